package hostcache

import (
	"cairn/block"
	"cairn/eviction"
	"cairn/tier"
)

// leaves is what the exact orders of all classes share: who follows whom, and whom to
// ask. Cache.mu guards it.
type leaves struct {
	entries *table
	index   map[block.Key]uint32
	// waiting is the number of children of blocks that are not here.
	waiting map[block.Key]uint32
	// orderOf is the order of the class of an entry.
	orderOf func(id uint32) order
	hint    func(id uint32) tier.Hint
}

// parentOf is the key of the block before d; false when there is none, or it claims
// not to come before: no chain of parents ends where it began.
func parentOf(d *block.Descriptor) (block.Key, bool) {
	return d.Parent, !d.Parent.IsZero() && d.Parent.Position() < d.Key.Position()
}

// join counts an entry among the children of its parent, and its own.
func (l *leaves) join(id uint32) {
	e := l.entries.at(id)
	if n, ok := l.waiting[e.Key]; ok {
		delete(l.waiting, e.Key)
		e.children = n
	}
	key, ok := parentOf(&e.Descriptor)
	if !ok {
		return
	}
	if parent, here := l.index[key]; here {
		l.entries.at(parent).children++
	} else {
		l.waiting[key]++
	}
}

// leave undoes join. It gives the entry of the parent when that has become a leaf.
func (l *leaves) leave(id uint32) (parent uint32, leaf bool) {
	e := l.entries.at(id)
	if e.children > 0 {
		l.waiting[e.Key], e.children = e.children, 0
	}
	key, ok := parentOf(&e.Descriptor)
	if !ok {
		return 0, false
	}
	if parent, ok = l.index[key]; ok {
		p := l.entries.at(parent)
		p.children--
		return parent, p.children == 0
	}
	if l.waiting[key]--; l.waiting[key] == 0 {
		delete(l.waiting, key)
	}
	return 0, false
}

// exactOrder is the order of use of the leaves of a class. Parents stay in it until
// eviction meets them; then they are set aside until their last child goes, and take its
// place, because a use of a block is one of those before it. An entry unparked is the newest.
type exactOrder struct {
	*recency
	aside *recency
	*leaves
}

func newExactOrder(entries *table, l *leaves) (exactOrder, error) {
	o := exactOrder{leaves: l}
	var err error
	if o.recency, err = newRecency(entries); err != nil {
		return o, err
	}
	o.aside, err = newRecency(entries)
	return o, err
}

func (o exactOrder) insert(id uint32) {
	o.join(id)
	o.recency.touch(id)
}

func (o exactOrder) touch(id uint32) {
	if o.leaves.entries.at(id).aside {
		o.park(id)
	}
	o.recency.touch(id)
}

func (o exactOrder) park(id uint32) {
	e := o.leaves.entries.at(id)
	if e.aside {
		o.aside.drop(id)
		e.aside = false
		return
	}
	o.recency.drop(id)
}

func (o exactOrder) unpark(id uint32) { o.touch(id) }
func (o exactOrder) evict(id uint32)  { o.remove(id) }

func (o exactOrder) remove(id uint32) {
	parent, leaf := o.leave(id)
	if leaf && o.leaves.entries.at(parent).aside {
		of := o.orderOf(parent).(exactOrder)
		of.park(parent)
		if !o.leaves.entries.at(id).aside && of.recency == o.recency && o.replace(id, parent) {
			return
		}
		of.recency.touch(parent)
	}
	o.park(id)
}

// victim is the first of the oldest few leaves that has another copy, or else the oldest;
// when there is no leaf, the parent that was set aside first. The few are those of the
// oldest run, so that finding them costs nothing.
func (o exactOrder) victim() (id uint32, ok bool) {
	for needed := 0; o.live > 0; {
		_, in, _ := o.runs.GetOldest()
		id, ok = o.choose(in, needed < eviction.DefaultLook)
		if ok {
			return id, true
		}
		needed++
	}
	return o.aside.oldest()
}

// choose looks at the leaves of a run; those that are held, and parents, leave the order.
// ok is false when the run had none, or one was found to be needed, which counts as a
// use: then there is another oldest run, or another oldest leaf in it.
func (o exactOrder) choose(in *run, heed bool) (oldest uint32, ok bool) {
	looked := 0
	for i := in.head; i < len(in.ids) && in.live > 0 && looked < eviction.DefaultLook; i++ {
		if !o.current(in, i) {
			if i == in.head {
				in.head++
			}
			continue
		}
		id := in.ids[i]
		e := o.leaves.entries.at(id)
		if e.children > 0 || e.held() {
			o.recency.drop(id)
			if !e.held() {
				o.aside.touch(id)
				e.aside = true
			}
			continue
		}
		switch hint := o.hint(id); {
		case hint&tier.Copied != 0:
			return id, true
		case hint&tier.Needed != 0 && heed && !ok:
			o.recency.touch(id)
			return 0, false
		case !ok:
			oldest, ok = id, true
		}
		looked++
	}
	return oldest, ok
}
