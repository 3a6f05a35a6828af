package simulate

import (
	"fmt"
	"iter"
	"time"

	"cairn/block"
	"cairn/internal/trace"
)

// Workload is requests in order of arrival. It is read-only once made, and may be
// used by many runs.
type Workload struct {
	Name     string
	Requests []Request
	// Blocks is the number of distinct blocks.
	Blocks int
	// References is the number of blocks of all requests.
	References int
}

// Request is one prompt.
type Request struct {
	At   time.Duration
	Keys []block.Key
	// numbers are the blocks' numbers in the workload, 0 to Blocks−1.
	numbers []uint32
}

// parent is the key of the block before block i.
func (r *Request) parent(i int) block.Key {
	if i == 0 {
		return block.Key{}
	}
	return r.Keys[i-1]
}

// Load reads a whole trace; limit is the largest number of requests, 0 for all.
func Load(name string, requests iter.Seq2[trace.Request, error], limit int) (*Workload, error) {
	w := &Workload{Name: name}
	numbers := map[block.Key]uint32{}
	var last time.Duration
	for r, err := range requests {
		if err != nil {
			return nil, err
		}
		if limit > 0 && len(w.Requests) == limit {
			break
		}
		if len(r.IDs) == 0 {
			continue
		}
		if r.Arrival < last {
			return nil, fmt.Errorf("simulate: request %d arrives at %v, before the one ahead of it at %v: sort the trace by time", len(w.Requests)+1, r.Arrival, last)
		}
		last = r.Arrival
		keys, err := r.Keys(nil, "")
		if err != nil {
			return nil, err
		}
		q := Request{At: r.Arrival, Keys: keys, numbers: make([]uint32, len(keys))}
		for i, k := range keys {
			n, ok := numbers[k]
			if !ok {
				n = uint32(len(numbers))
				numbers[k] = n
			}
			q.numbers[i] = n
		}
		w.Requests = append(w.Requests, q)
		w.References += len(keys)
	}
	w.Blocks = len(numbers)
	if w.Duration() <= 0 {
		return nil, fmt.Errorf("simulate: %s has %d requests, all at one time: want a trace with times of arrival", name, len(w.Requests))
	}
	return w, nil
}

// Duration is the time of the last arrival.
func (w *Workload) Duration() time.Duration {
	if len(w.Requests) == 0 {
		return 0
	}
	return w.Requests[len(w.Requests)-1].At
}
