package emulated

import "cairn/vram"

// pair is one copy of a batch.
type pair struct{ dst, src []byte }

var _ vram.BatchStream = (*stream)(nil)

// CopyInBatch implements [vram.BatchStream].
func (s *stream) CopyInBatch(dst []vram.Addr, src [][]byte) error {
	return s.copyBatch(CopyInBatch, len(dst), func(i int) (p pair, err error) {
		p.src = src[i]
		p.dst, err = s.dev.bytes(dst[i], int64(len(src[i])))
		return p, err
	})
}

// CopyOutBatch implements [vram.BatchStream].
func (s *stream) CopyOutBatch(dst [][]byte, src []vram.Addr) error {
	return s.copyBatch(CopyOutBatch, len(dst), func(i int) (p pair, err error) {
		p.dst = dst[i]
		p.src, err = s.dev.bytes(src[i], int64(len(dst[i])))
		return p, err
	})
}

// copyBatch queues n copies as one operation. The hook is asked once for the call, and
// once for each copy when it is carried out.
func (s *stream) copyBatch(op Op, n int, copyAt func(i int) (pair, error)) error {
	if err := s.dev.ready(op); err != nil {
		return err
	}
	pairs := make([]pair, n)
	for i := range pairs {
		var err error
		if pairs[i], err = copyAt(i); err != nil {
			return err
		}
	}
	return s.submit(work{op: op, batch: pairs})
}

// carryOut does what the stream's turn has come to, and returns the first error.
func (s *stream) carryOut(w work) (first error) {
	if w.op != CopyInBatch && w.op != CopyOutBatch {
		first = s.dev.ask(Call{Op: w.op, Queued: true})
		if first == nil && w.op != Record {
			copy(w.dst, w.src)
		}
		return first
	}
	for _, p := range w.batch {
		err := s.dev.ask(Call{Op: w.op, Queued: true})
		if err == nil {
			copy(p.dst, p.src)
		} else if first == nil {
			first = err
		}
	}
	return first
}
