package node

import (
	"sync"
	"sync/atomic"

	"cairn/block"
)

// watches wakes those who wait for another version of a name.
type watches struct {
	count atomic.Int64 // lets notify be cheap when nobody waits

	// mu guards by.
	mu sync.Mutex
	by map[block.Key]*watched
}

// watched is a name that someone watches.
type watched struct {
	broadcast
	watchers int
}

// add begins to watch a name; the caller takes wait before it looks at the name, and
// calls remove in the end.
func (w *watches) add(key block.Key) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[block.Key]*watched{}
	}
	e := w.by[key]
	if e == nil {
		e = &watched{}
		w.by[key] = e
	}
	e.watchers++
	w.count.Add(1)
	return e
}

func (w *watches) remove(key block.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.by[key]
	if e.watchers--; e.watchers == 0 {
		delete(w.by, key)
	}
	w.count.Add(-1)
}

func (w *watches) notify(key block.Key) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	e := w.by[key]
	w.mu.Unlock()
	if e != nil {
		e.notify()
	}
}
