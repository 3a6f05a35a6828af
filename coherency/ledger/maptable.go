package ledger

import (
	"bytes"
	"maps"

	"cairn/block"
)

// MapTable is a Table in a plain map, for tests and simulation. It is not safe for
// use by several goroutines, unless none of them writes.
type MapTable struct{ m map[block.Key]Pointer }

var _ Table = (*MapTable)(nil)

// NewMapTable is an empty table.
func NewMapTable() *MapTable { return &MapTable{m: map[block.Key]Pointer{}} }

// Clone is an independent copy.
func (t *MapTable) Clone() *MapTable {
	// Names are never written to once they are stored, so the copies share them.
	return &MapTable{m: maps.Clone(t.m)}
}

// Load implements Table.
func (t *MapTable) Load(key block.Key) (Pointer, bool) {
	p, ok := t.m[key]
	return p, ok
}

// Store implements Table.
func (t *MapTable) Store(p Pointer) {
	if old, ok := t.m[p.Key]; ok && bytes.Equal(old.Name, p.Name) {
		p.Name = old.Name
	} else {
		p.Name = bytes.Clone(p.Name)
	}
	t.m[p.Key] = p
}

// Delete implements Table.
func (t *MapTable) Delete(key block.Key) { delete(t.m, key) }

// Range implements Table.
func (t *MapTable) Range(yield func(Pointer) bool) {
	for _, p := range t.m {
		if !yield(p) {
			return
		}
	}
}

// Len implements Table.
func (t *MapTable) Len() int { return len(t.m) }
