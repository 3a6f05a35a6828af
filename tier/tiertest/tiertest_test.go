package tiertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// reference is the plainest store that can be: a map under a mutex, and a
// slice in order of use. It exists to test the suite.
type reference struct {
	capacity int64

	mu      sync.Mutex
	objects map[block.Key]*entry
	order   []block.Key // least recently used first
	stats   tier.Stats
	pending int64 // bytes in reservations
	births  uint64
	closed  bool
}

type entry struct {
	d     block.Descriptor
	p     []byte
	pins  int
	views int
	birth uint64
}

func openReference(o Options) *reference {
	return &reference{capacity: o.Capacity, objects: map[block.Key]*entry{}}
}

func (r *reference) makeRoomLocked(n int64) (evicted []block.Key, err error) {
	if n > r.capacity {
		return nil, tier.ErrTooLarge
	}
	for r.stats.Bytes+r.pending+n > r.capacity {
		free := func(k block.Key) bool { return r.objects[k].pins == 0 && r.objects[k].views == 0 }
		i := slices.IndexFunc(r.order, func(k block.Key) bool { return free(k) && !r.followedLocked(k) })
		if i < 0 {
			i = slices.IndexFunc(r.order, free)
		}
		if i < 0 {
			return evicted, tier.ErrFull
		}
		evicted = append(evicted, r.order[i])
		r.removeLocked(r.order[i])
		r.stats.Evictions++
	}
	return evicted, nil
}

// followedLocked tells whether an object names this one as its parent.
func (r *reference) followedLocked(key block.Key) bool {
	for _, e := range r.objects {
		if e.d.Parent == key {
			return true
		}
	}
	return false
}

func (r *reference) removeLocked(key block.Key) {
	e := r.objects[key]
	delete(r.objects, key)
	r.order = slices.Delete(r.order, slices.Index(r.order, key), slices.Index(r.order, key)+1)
	r.stats.Objects--
	r.stats.Bytes -= int64(e.d.Length)
}

func (r *reference) existsLocked(d block.Descriptor) error {
	e, ok := r.objects[d.Key]
	switch {
	case !ok:
		return nil
	case e.d.Length == d.Length && e.d.Sum == d.Sum:
		return tier.ErrExists
	default:
		return tier.ErrConflict
	}
}

func (r *reference) storeLocked(d block.Descriptor, p []byte, pins int, birth uint64) {
	r.objects[d.Key] = &entry{d: d, p: p, pins: pins, birth: birth}
	r.order = append(r.order, d.Key)
	r.stats.Objects++
	r.stats.Puts++
	r.stats.Bytes += int64(d.Length)
}

func (r *reference) Put(ctx context.Context, d block.Descriptor, src []byte) ([]block.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.readyLocked(ctx); err != nil {
		return nil, err
	}
	if len(src) != int(d.Length) {
		return nil, fmt.Errorf("%d bytes under a descriptor of %d", len(src), d.Length)
	}
	if err := r.existsLocked(d); err != nil {
		return nil, err
	}
	evicted, err := r.makeRoomLocked(int64(len(src)))
	if err == nil {
		r.births++
		r.storeLocked(d, slices.Clone(src), 0, r.births)
	}
	return evicted, err
}

func (r *reference) readyLocked(ctx context.Context) error {
	if r.closed {
		return tier.ErrClosed
	}
	return ctx.Err()
}

func (r *reference) useLocked(key block.Key) (*entry, error) {
	e, ok := r.objects[key]
	if !ok {
		r.stats.Misses++
		return nil, tier.ErrNotFound
	}
	r.stats.Hits++
	i := slices.Index(r.order, key)
	r.order = append(slices.Delete(r.order, i, i+1), key)
	return e, nil
}

func (r *reference) Get(ctx context.Context, key block.Key, dst []byte) (block.Descriptor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.readyLocked(ctx); err != nil {
		return block.Descriptor{}, err
	}
	e, err := r.useLocked(key)
	if err != nil {
		return block.Descriptor{}, err
	}
	if len(dst) < len(e.p) {
		return e.d, tier.ErrShortBuffer
	}
	copy(dst, e.p)
	return e.d, nil
}

func (r *reference) Stat(key block.Key) (block.Descriptor, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.objects[key]
	if !ok {
		return block.Descriptor{}, false
	}
	return e.d, true
}

func (r *reference) Delete(key block.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.objects[key]
	if ok {
		r.removeLocked(key)
		r.stats.Deletes++
	}
	return ok
}

func (r *reference) All(yield func(block.Descriptor) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.objects {
		if !yield(e.d) {
			return
		}
	}
}

func (r *reference) Stats() tier.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Used, s.Capacity = s.Bytes, r.capacity
	for _, e := range r.objects {
		if e.pins > 0 || e.views > 0 {
			s.Pinned++
		}
	}
	return s
}

func (r *reference) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.objects, r.order = true, nil, nil
	return nil
}

func (r *reference) Pin(key block.Key) error {
	_, err := r.PinExact(key)
	return err
}

func (r *reference) PinExact(key block.Key) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, tier.ErrClosed
	}
	e, ok := r.objects[key]
	if !ok {
		return 0, tier.ErrNotFound
	}
	e.pins++
	return e.birth, nil
}

func (r *reference) UnpinExact(key block.Key, object uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.objects[key]; ok && e.birth == object && e.pins > 0 {
		e.pins--
	}
}

func (r *reference) Unpin(key block.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.objects[key]; ok && e.pins > 0 {
		e.pins--
	}
}

func (r *reference) View(key block.Key) (tier.View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return tier.View{}, tier.ErrClosed
	}
	e, err := r.useLocked(key)
	if err != nil {
		return tier.View{}, err
	}
	e.views++
	return tier.NewView(e.d, e.p, viewEnd{r, e}, 0), nil
}

type viewEnd struct {
	r *reference
	e *entry
}

func (v viewEnd) ReleaseView(uint64) {
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	v.e.views--
}

func (r *reference) Reserve(ctx context.Context, n int) (tier.Reservation, []block.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.readyLocked(ctx); err != nil {
		return nil, nil, err
	}
	evicted, err := r.makeRoomLocked(int64(n))
	if err != nil {
		return nil, evicted, err
	}
	r.pending += int64(n)
	r.births++
	return &reservation{r: r, p: make([]byte, n), birth: r.births}, evicted, nil
}

type reservation struct {
	birth uint64
	r     *reference
	p     []byte
	done  bool
}

func (v *reservation) Bytes() []byte { return v.p }

func (v *reservation) Object() uint64 { return v.birth }

func (v *reservation) Commit(d block.Descriptor, pins int) error {
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	if v.done || v.r.closed {
		return tier.ErrClosed
	}
	if int(d.Length) != len(v.p) {
		return errors.New("wrong length")
	}
	v.endLocked()
	if err := v.r.existsLocked(d); err != nil {
		return err
	}
	v.r.storeLocked(d, v.p, pins, v.birth)
	return nil
}

func (v *reservation) Abort() {
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	if !v.done {
		v.endLocked()
	}
}

func (v *reservation) endLocked() {
	v.done = true
	v.r.pending -= int64(len(v.p))
}

var _ tier.Memory = (*reference)(nil)

func TestReference(t *testing.T) {
	Run(t, Config{Open: func(_ testing.TB, o Options) tier.Store { return openReference(o) }})
}
