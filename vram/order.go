package vram

// ref names a slot (run in the upper half, place in the run in the lower) or,
// in lists, a run.
type ref uint64

const noRef = ^ref(0)

func slotRef(run, place int) ref { return ref(run)<<32 | ref(place) }
func (r ref) run() int           { return int(r >> 32) }
func (r ref) place() int         { return int(uint32(r)) }

// links are a member's neighbours in a list. They are numbers, not pointers, so
// that a million of them cost the garbage collector nothing.
type links struct{ newer, older ref }

// order is a list of refs, newest first, threaded through the members
// themselves: at finds a member's links.
type order struct {
	newest, oldest ref
	at             func(ref) *links
}

func newOrder(at func(ref) *links) order { return order{newest: noRef, oldest: noRef, at: at} }

// push makes r, which is not in the list, its newest member.
func (o *order) push(r ref) {
	*o.at(r) = links{newer: noRef, older: o.newest}
	if o.newest == noRef {
		o.oldest = r
	} else {
		o.at(o.newest).newer = r
	}
	o.newest = r
}

// remove takes the member r out.
func (o *order) remove(r ref) {
	l := *o.at(r)
	if l.newer == noRef {
		o.newest = l.older
	} else {
		o.at(l.newer).older = l.older
	}
	if l.older == noRef {
		o.oldest = l.newer
	} else {
		o.at(l.older).newer = l.newer
	}
}
