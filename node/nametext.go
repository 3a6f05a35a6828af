package node

// keep copies a name into a chunk. Readers see the bytes only after the entry
// that names them.
func (t *nameTable) keep(name []byte) (chunk, offset uint32) {
	list := *t.chunks.Load()
	if t.open < 0 || len(list[t.open])-t.fill < len(name) {
		t.open, t.fill = len(list), 0
		for i, c := range list {
			if c == nil {
				t.open = i
				break
			}
		}
		next := make([][]byte, max(len(list), t.open+1))
		copy(next, list)
		next[t.open] = make([]byte, max(nameChunk, len(name)))
		t.chunks.Store(&next)
		list = next
	}
	offset = uint32(t.fill)
	t.fill += copy(list[t.open][t.fill:], name)
	t.used += len(name)
	return uint32(t.open), offset
}

// compact writes the names that live into new chunks, and then gives the old ones back.
// Readers that hold a name keep its chunk alive.
func (t *nameTable) compact() {
	old := *t.chunks.Load()
	t.open, t.used, t.dead = -1, 0, 0
	t.entries.each(func(e *nameEntry, w *nameWords) bool {
		if chunk, offset, size := w.text(); size > 0 {
			name := old[chunk][offset : offset+size]
			chunk, offset = t.keep(name)
			w.setText(chunk, offset, size)
			e.write(w)
		}
		return true
	})
	left := append([][]byte(nil), *t.chunks.Load()...)
	for i, c := range old {
		if c != nil { // else keep has taken the place of one given back before
			left[i] = nil
		}
	}
	t.chunks.Store(&left)
}
