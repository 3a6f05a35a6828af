package node

import (
	"sync"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency/ledger"
)

// overlay holds the newest values of the blocks that this node owns, as long as the
// log does not have them. It is looked at before the name table. The coherence
// goroutine writes it; any reads.
type overlay struct {
	count  atomic.Int64 // lets a read be cheap when the node owns nothing unflushed
	shards [overlayShards]struct {
		// mu guards values.
		mu     sync.RWMutex
		values map[block.Key]localValue
	}
}

const overlayShards = 64

// localValue is a version of a block that the log does not have yet.
type localValue struct {
	version   ledger.Version
	value     ledger.Value
	namespace string
}

func (o *overlay) of(key block.Key) int { return int(key.Hash64() % overlayShards) }

// get returns the block's newest value here.
func (o *overlay) get(key block.Key) (localValue, bool) {
	if o.count.Load() == 0 {
		return localValue{}, false
	}
	s := &o.shards[o.of(key)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.values[key]
	return v, ok
}

func (o *overlay) set(key block.Key, v localValue) {
	s := &o.shards[o.of(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = make(map[block.Key]localValue)
	}
	before := len(s.values)
	s.values[key] = v
	if len(s.values) > before {
		o.count.Add(1)
	}
}

func (o *overlay) remove(key block.Key) {
	s := &o.shards[o.of(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.values[key]; ok {
		delete(s.values, key)
		o.count.Add(-1)
	}
}

// each calls yield for every value until it returns false. yield must not change
// the overlay.
func (o *overlay) each(yield func(block.Key, localValue) bool) {
	if o.count.Load() == 0 {
		return
	}
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.RLock()
		for k, v := range s.values {
			if !yield(k, v) {
				s.mu.RUnlock()
				return
			}
		}
		s.mu.RUnlock()
	}
}
