package coherency

// This file is the bookkeeping of SyncQueue: slots, the list of waiting entries,
// and the counts by epoch.

// open is the epoch that new intents join.
func (q *SyncQueue) open() Epoch { return q.epoch + Epoch(len(q.owed)-1) }

func (q *SyncQueue) count(e Epoch, by int) { q.owed[e-q.epoch] += by }

// slot is the index of the entry for t, which is made when there is none.
func (q *SyncQueue) slot(t target) int32 {
	if i, ok := q.index[t]; ok {
		return i
	}
	var i int32
	if n := len(q.free); n > 0 {
		i, q.free = q.free[n-1], q.free[:n-1]
	} else {
		i = int32(len(q.slots))
		q.slots = append(q.slots, slot{})
	}
	q.slots[i] = slot{target: t, next: none, prev: none}
	q.index[t] = i
	return i
}

// release frees the entry if nothing is owed any more.
func (q *SyncQueue) release(i int32) {
	e := &q.slots[i]
	if e.wait.version != 0 || e.fly.version != 0 {
		return
	}
	delete(q.index, e.target)
	q.free = append(q.free, i)
}

// park lets o wait at entry i, which has nothing waiting.
func (q *SyncQueue) park(i int32, o owing) {
	e := &q.slots[i]
	e.wait = o
	q.count(o.epoch, 1)
	q.waiting++
	if e.fly.version == 0 {
		q.pushBack(i)
	}
}

// unpark takes back what waits at entry i.
func (q *SyncQueue) unpark(i int32) {
	e := &q.slots[i]
	q.count(e.wait.epoch, -1)
	q.waiting--
	if e.fly.version == 0 {
		q.unlink(i)
	}
	e.wait = owing{}
}

// land ends what is in flight at entry i; what waited behind it joins the list.
func (q *SyncQueue) land(i int32) {
	e := &q.slots[i]
	q.count(e.fly.epoch, -1)
	q.flying--
	e.fly = owing{}
	if e.wait.version != 0 {
		q.pushBack(i)
	}
}

// pushBack and unlink keep the doubly linked list.
func (q *SyncQueue) pushBack(i int32) {
	e := &q.slots[i]
	e.prev, e.next = q.tail, none
	if q.tail == none {
		q.head = i
	} else {
		q.slots[q.tail].next = i
	}
	q.tail = i
}

func (q *SyncQueue) unlink(i int32) {
	e := &q.slots[i]
	if e.prev == none {
		q.head = e.next
	} else {
		q.slots[e.prev].next = e.next
	}
	if e.next == none {
		q.tail = e.prev
	} else {
		q.slots[e.next].prev = e.prev
	}
	e.prev, e.next = none, none
}
