package tiertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"cairn/block"
	"cairn/tier"
)

// testParallel lets goroutines put, get and delete the same objects. Bytes are
// compared at every Get, and in the end every object that went in has left as
// often as was reported.
func testParallel(s *suite) {
	const workers, steps = 4, 400
	s.Logf("seed %d", s.cfg.Seed)
	// Twice as many objects as fit, so that every Put may evict.
	n := max(16, 2*int(s.store.Stats().Capacity)/s.cfg.BlockSize)
	descriptors, contents := make([]block.Descriptor, n), make([][]byte, n)
	number := map[block.Key]int{}
	for i := range n {
		descriptors[i], contents[i] = object(i, s.cfg.BlockSize-i)
		number[descriptors[i].Key] = i
	}
	balance := make([]atomic.Int64, n) // times in less times out
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(s.cfg.Seed, uint64(w)))
			dst := make([]byte, s.cfg.BlockSize)
			for range steps {
				i := rnd.IntN(n)
				d := descriptors[i]
				switch op := rnd.IntN(10); {
				case op < 5:
					evicted, err := s.store.Put(context.Background(), d, contents[i])
					for _, key := range evicted {
						balance[number[key]].Add(-1)
					}
					if err == nil {
						balance[i].Add(1)
					} else if !errors.Is(err, tier.ErrExists) && !errors.Is(err, tier.ErrFull) {
						s.Errorf("Put: %v", err)
					}
				case op < 9:
					got, err := s.store.Get(context.Background(), d.Key, dst)
					if err == nil && (got != d || !d.Matches(dst[:d.Length])) {
						s.Errorf("Get(%s): wrong bytes", d.Key)
					} else if err != nil && !errors.Is(err, tier.ErrNotFound) {
						s.Errorf("Get: %v", err)
					}
				default:
					if s.store.Delete(d.Key) {
						balance[i].Add(-1)
					}
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		switch balance[i].Load() {
		case 0:
		case 1:
			s.held[descriptors[i].Key] = descriptors[i]
		default:
			s.Errorf("object %d went in %d times more than it left", i, balance[i].Load())
		}
	}
	s.check()
	if s.store.Stats().Evictions == 0 {
		s.Error("nothing was evicted")
	}
}

// testCloseWhileBusy: a call that meets Close does its work or gives ErrClosed.
func testCloseWhileBusy(s *suite) {
	const workers = 4
	var wg sync.WaitGroup
	started := make(chan struct{}, workers)
	for w := range workers {
		wg.Go(func() {
			dst := make([]byte, s.cfg.BlockSize)
			for i := 0; ; i++ {
				d, p := object(w<<8|i&63, s.cfg.BlockSize)
				_, err := s.store.Put(context.Background(), d, p)
				if err == nil {
					_, err = s.store.Get(context.Background(), d.Key, dst)
					if err == nil && !d.Matches(dst) {
						s.Errorf("Get(%s): wrong bytes", d.Key)
					}
				}
				if i == 8 {
					started <- struct{}{}
				}
				s.store.Stat(d.Key)
				s.store.Delete(d.Key)
				switch {
				case errors.Is(err, tier.ErrClosed):
					return
				case err == nil, errors.Is(err, tier.ErrExists), errors.Is(err, tier.ErrNotFound), errors.Is(err, tier.ErrFull):
				default:
					s.Errorf("a call that meets Close gives %v", err)
					if i > 8 {
						return
					}
				}
			}
		})
	}
	for range workers {
		<-started
	}
	if err := s.store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	wg.Wait()
}
