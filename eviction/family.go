package eviction

// kin is a block's place among the blocks of its sequence. It has no pointers.
type kin struct {
	key, parent uint64 // fingerprints; key 0 is nobody
	children    uint32 // blocks in the store that name this one as their parent
}

// family knows which blocks of a store follow which. The blocks' kin lie in the table of
// the policy, where at finds them.
type family struct {
	at  func(id uint32) *kin
	ids map[uint64]uint32 // by fingerprint
	// waiting is the number of children of blocks that are not here, by
	// fingerprint.
	waiting map[uint64]uint32
}

func newFamily(at func(uint32) *kin) family {
	return family{at: at, ids: map[uint64]uint32{}, waiting: map[uint64]uint32{}}
}

// join adds a block, and gives the id of its parent if that is here.
func (f *family) join(id uint32, b *Block) (parent uint32, ok bool) {
	k := f.at(id)
	*k = kin{}
	k.key, k.parent = b.fingerprints()
	if n, waits := f.waiting[k.key]; waits {
		delete(f.waiting, k.key)
		k.children = n
	}
	f.ids[k.key] = id
	if k.parent == 0 {
		return 0, false
	}
	if parent, ok = f.ids[k.parent]; ok {
		f.at(parent).children++
	} else {
		f.waiting[k.parent]++
	}
	return parent, ok
}

// leave takes a block out, and gives the id of its parent if that is here.
func (f *family) leave(id uint32) (parent uint32, ok bool) {
	k := f.at(id)
	delete(f.ids, k.key)
	if k.children > 0 {
		f.waiting[k.key] = k.children
	}
	up := k.parent
	*k = kin{}
	if up == 0 {
		return 0, false
	}
	if parent, ok = f.ids[up]; ok {
		// Two keys with one fingerprint may have left fewer than there were.
		p := f.at(parent)
		p.children = max(p.children, 1) - 1
		return parent, true
	}
	switch n := f.waiting[up]; n {
	case 0:
	case 1:
		delete(f.waiting, up)
	default:
		f.waiting[up] = n - 1
	}
	return 0, false
}
