//go:build cuda && cgo

package cuda

import (
	"fmt"
	"unsafe"

	"cairn/vram"
	"cairn/vram/cuda/driver"
)

// CopyInBatch implements [vram.BatchStream].
func (s *stream) CopyInBatch(dst []vram.Addr, src [][]byte) error {
	return s.batch("copy a batch in", dst, src, s.in, func(t transfer) (to, from uint64) { return t.device, address(t.host) })
}

// CopyOutBatch implements [vram.BatchStream].
func (s *stream) CopyOutBatch(dst [][]byte, src []vram.Addr) error {
	return s.batch("copy a batch out", src, dst, s.out, func(t transfer) (to, from uint64) { return address(t.host), t.device })
}

// batch queues the copies with as few calls as the driver allows. What is not page-locked goes one by
// one: the driver would have to copy it within the call anyway.
func (s *stream) batch(op string, device []vram.Addr, host [][]byte, one func(transfer) error, ends func(transfer) (to, from uint64)) error {
	return s.enqueue(op, func() (err error) {
		if len(device) != len(host) {
			return fmt.Errorf("%d addresses and %d slices: want as many", len(device), len(host))
		}
		d := s.dev
		d.mu.Lock()
		s.transfers = s.transfers[:0]
		for i := range device {
			if s.transfers, err = d.splitLocked(s.transfers, device[i], host[i]); err != nil {
				break
			}
		}
		d.mu.Unlock()
		if err != nil {
			return fmt.Errorf("the batch's copy %w", err)
		}
		defer s.forget()
		if !d.batches {
			return s.each(s.transfers, one)
		}
		queued, err := s.lockedOnes(ends)
		if err != nil {
			return err
		}
		return s.otherOnes(queued, one)
	})
}

// triples are the arguments of a batch, as the driver wants them.
type triples struct{ to, from, size []uint64 }

// lockedOnes queues what of s.transfers is page-locked, and says whether that was anything.
func (s *stream) lockedOnes(ends func(transfer) (to, from uint64)) (queued bool, err error) {
	b := &s.triples
	flush := func() error {
		if len(b.to) == 0 {
			return nil
		}
		err := driver.MemcpyBatchAsync(b.to, b.from, b.size, uintptr(unsafe.Pointer(s.cu.C())))
		b.to, b.from, b.size = b.to[:0], b.from[:0], b.size[:0]
		if err != nil {
			s.undo(true) // it is not said how much of this call is queued
			return err
		}
		queued = true
		return nil
	}
	for _, t := range s.transfers {
		if !t.locked {
			continue
		}
		to, from := ends(t)
		b.to, b.from, b.size = append(b.to, to), append(b.from, from), append(b.size, uint64(len(t.host)))
		if len(b.to) == batchLimit {
			if err := flush(); err != nil {
				return queued, err
			}
		}
	}
	return queued, flush()
}

// otherOnes queues the rest of s.transfers.
func (s *stream) otherOnes(queued bool, one func(transfer) error) error {
	for _, t := range s.transfers {
		if t.locked {
			continue
		}
		s.pin(t)
		if err := one(t); err != nil {
			s.undo(queued)
			return err
		}
		queued = true
	}
	s.unpinSome()
	return nil
}
