package eviction

const chunkLen = 1024

// chunks is a table by id that grows without copying.
type chunks[T any] struct{ list []*[chunkLen]T }

// at is the element of an id within grown bounds.
func (c *chunks[T]) at(id uint32) *T { return &c.list[id/chunkLen][id%chunkLen] }

// grow makes room for id.
func (c *chunks[T]) grow(id uint32) {
	for uint32(len(c.list)) <= id/chunkLen {
		c.list = append(c.list, new([chunkLen]T))
	}
}

// len is the number of elements that there is room for.
func (c *chunks[T]) len() int { return len(c.list) * chunkLen }
