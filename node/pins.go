package node

import (
	"slices"

	"cairn/block"
)

// pins are the objects that the host tier keeps because they are this node's own
// versions of a name, which are not known to be durable at its homes. Each is
// pinned once. The coherence goroutine uses them.
type pins struct {
	name    map[block.Key]block.Key   // of an object
	objects map[block.Key][]block.Key // of a name
}

func (p *pins) add(name, object block.Key) {
	p.name[object] = name
	p.objects[name] = append(p.objects[name], object)
}

// remove reports whether the object was there.
func (p *pins) remove(object block.Key) bool {
	name, ok := p.name[object]
	if !ok {
		return false
	}
	delete(p.name, object)
	list := p.objects[name]
	if len(list) == 1 {
		delete(p.objects, name)
		return true
	}
	p.objects[name] = slices.DeleteFunc(list, func(o block.Key) bool { return o == object })
	return true
}

// pin keeps an object in the host tier. It reports whether it is there.
func (c *coherence) pin(name, object block.Key) bool {
	if _, ok := c.pinned.name[object]; ok {
		return true
	}
	if c.n.host.Pin(object) != nil {
		return false
	}
	c.pinned.add(name, object)
	return true
}

func (c *coherence) unpin(object block.Key) {
	if c.pinned.remove(object) {
		c.n.host.Unpin(object)
		c.n.room.notify()
	}
}
