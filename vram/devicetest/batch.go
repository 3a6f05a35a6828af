package devicetest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"cairn/tier"
	"cairn/vram"
)

// testBatch copies many pieces of different sizes in and out with one call each. A stream
// without batches has nothing to test.
func testBatch(t *testing.T, dev vram.Device) {
	s, ok := stream(t, dev).(vram.BatchStream)
	if !ok {
		t.Skip("the streams of this device know no batches")
	}
	const n = 64
	var at []vram.Addr
	var src, dst [][]byte
	for i := range n {
		p := pattern(i, 1+i*1021)
		at, src, dst = append(at, alloc(t, dev, int64(len(p)))), append(src, p), append(dst, make([]byte, len(p)))
	}
	must(t, s.CopyInBatch(at, src))
	e, err := s.Record()
	must(t, err)
	must(t, e.Wait(context.Background()))
	e.Release()
	must(t, s.CopyOutBatch(dst, at))
	must(t, s.Synchronize())
	for i := range n {
		if !bytes.Equal(src[i], dst[i]) {
			t.Errorf("copy %d of the batch came back changed", i)
		}
	}
	must(t, s.CopyInBatch(at[:1], src[:1]))
	must(t, s.Synchronize())
	must(t, s.Close())
	if err := s.CopyInBatch(at, src); !errors.Is(err, tier.ErrClosed) {
		t.Errorf("a batch on a closed stream gave %v, want ErrClosed", err)
	}
}
