package engram

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"cairn/coherency"
	"cairn/vram"
)

// TestUpdateVectorTogether: writers on host wait for each other, so nothing is lost.
func TestUpdateVectorTogether(t *testing.T) {
	e, err := FromVector(SparseVec{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	const writers, times = 6, 30
	for w := range uint32(writers) {
		wg.Go(func() {
			for i := range uint32(times) {
				if _, err := e.UpdateVector(t.Context(), func(v SparseVec) (SparseVec, error) {
					return Bundle(v, SparseVec{Pos: []uint32{w*times + i}}), nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := e.Vector()
	if err != nil || len(v.Pos) != writers*times || e.Version() != writers*times+1 {
		t.Errorf("%d of %d dimensions, version %d, %v", len(v.Pos), writers*times, e.Version(), err)
	}
	if _, err := e.UpdateVector(t.Context(), func(v SparseVec) (SparseVec, error) { return v, errBroken }); err != errBroken {
		t.Errorf("%v is not the error of the function", err)
	}
	if _, err := e.ReplaceHost(t.Context(), 0, []byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.UpdateVector(t.Context(), func(v SparseVec) (SparseVec, error) { return v, nil }); !errors.Is(err, ErrTruncated) {
		t.Errorf("update of what is no vector: %v", err)
	}
	own := v.Clone()
	own.Pos[0] = 99
	if p, err := v.MarshalBinary(); err != nil || v.Pos[0] != 0 || len(p) != v.EncodedSize() {
		t.Errorf("a clone shares memory, or: %v", err)
	}
}

// TestWriteHostWaits: for another writer, as long as its context lasts; a read does
// not wait.
func TestWriteHostWaits(t *testing.T) {
	e := New([]byte("seed"))
	begun, gate, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := e.WriteHost(t.Context(), func([]byte) ([]byte, error) {
			close(begun)
			<-gate
			return []byte("first"), nil
		})
		done <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, write := range map[string]func() (Version, error){
		"write":   func() (Version, error) { return e.WriteHost(ctx, nil) },
		"replace": func() (Version, error) { return e.ReplaceHost(ctx, 0, nil) },
	} {
		if v, err := write(); v != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("%s beside another: %d, %v", name, v, err)
		}
	}
	if p, v, err := e.Snapshot(); string(p) != "seed" || v != 1 || err != nil {
		t.Errorf("%q, %d, %v", p, v, err)
	}
	close(gate)
	if err := <-done; err != nil || e.Version() != 2 {
		t.Errorf("%v, version %d", err, e.Version())
	}
}

// TestWriteHostMeetsWriteDevice: the second of two writes on both sides is told so, and
// changes nothing.
func TestWriteHostMeetsWriteDevice(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	b.run(e, "upload")
	if _, err := e.WriteHost(t.Context(), func([]byte) ([]byte, error) {
		b.run(e, "device write")
		return []byte("host"), nil
	}); !errors.Is(err, ErrConflict) {
		t.Errorf("host after device: %v", err)
	}
	b.want(e, `device-dirty 2 "seed" "card"`)
	if _, err := e.Vector(); !errors.Is(err, ErrStale) {
		t.Errorf("old bytes are read: %v", err)
	}
	b.run(e, "sync")
	// A write on host waits for one on the device that is under way.
	done := make(chan error)
	if _, err := e.WriteDevice(t.Context(), func(a vram.Addr, n int64) error {
		go func() {
			_, err := e.WriteHost(t.Context(), func([]byte) ([]byte, error) { return []byte("host"), nil })
			done <- err
		}()
		return b.write("more")(a, n)
	}); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrConflict) {
		t.Errorf("host during device: %v", err)
	}
	b.want(e, `device-dirty 3 "card" "more"`)
	b.run(e, "release")
	b.empty()
}

// TestDiscardDuringWriteDevice: the function keeps its memory, and its write is void.
func TestDiscardDuringWriteDevice(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup []string
		side  Side
		fails bool // the function
		want  string
		lost  int64
		err   error
	}{
		{"in place, the device", []string{"upload"}, Device, false, `host-only 1 "seed" "-"`, 0, ErrStale},
		{"on a copy, the device", []string{"upload", "device write"}, Device, false, `gone 2 "seed" "-"`, 1, ErrStale},
		{"in place, host", []string{"upload"}, Host, false, `device-only 2 "-" "more"`, 0, nil},
		{"in place, host, and it fails", []string{"upload"}, Host, true, `gone 1 "-" "-"`, 1, ErrLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			e := b.engram("seed")
			b.run(e, c.setup...)
			_, err := e.WriteDevice(t.Context(), func(a vram.Addr, n int64) error {
				if _, err := e.Discard(c.side); err != nil {
					t.Error(err)
				}
				if b.used() == 0 {
					t.Error("the memory was freed under the function")
				}
				err := b.write("more")(a, n)
				if c.fails {
					err = errors.Join(err, errBroken)
				}
				return err
			})
			if !errors.Is(err, c.err) || c.err == nil && err != nil || errors.Is(err, errBroken) != c.fails {
				t.Errorf("%v, want %v", err, c.err)
			}
			b.want(e, c.want)
			if got := e.Counts().Lost; got != c.lost {
				t.Errorf("%d losses, want %d", got, c.lost)
			}
			if _, err := e.Discard(Device); err != nil {
				t.Error(err)
			}
			b.empty()
		})
	}
}

func TestReplaceDeviceRefuses(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if v, err := e.ReplaceDevice(t.Context(), -1, nil); v != 0 || err == nil || !strings.Contains(err.Error(), "0 or more") {
		t.Errorf("%d, %v", v, err)
	}
	for _, err := range []error{
		func() error { _, err := e.ReplaceDevice(t.Context(), deviceMemory+1, nil); return err }(),
		func() error {
			big := b.engram(strings.Repeat("x", deviceMemory+1))
			return big.Upload(t.Context())
		}(),
	} {
		if !errors.Is(err, vram.ErrOutOfMemory) {
			t.Errorf("%v", err)
		}
	}
	if _, err := e.Keep(t.Context(), 7); !errors.Is(err, coherency.ErrSide) {
		t.Errorf("keep of no side: %v", err)
	}
	b.want(e, `host-only 1 "seed" "-"`)
	b.run(e, "upload")
	if lost, err := e.Discard(7); lost || !errors.Is(err, coherency.ErrSide) {
		t.Errorf("discard of no side: %v, %v", lost, err)
	}
	b.want(e, `synced 1 "seed" "seed"`)
	b.run(e, "release")
	b.empty()
}
