package engram

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"cairn/vram/emulated"
)

// TestRandomOperations: whatever is done in whatever order, with copies and allocations
// that fail, the newest committed bytes are there, the version grows with writes only,
// reads give the newest or an error, and the device's memory is what the engram holds.
func TestRandomOperations(t *testing.T) {
	ops := []string{"look", "host write", "host grow", "host shrink", "device write", "mark", "check",
		"upload", "download", "sync", "release", "drop host"}
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		x := &model{e: b.engram("seed"), newest: "seed"}
		version := Version(1)
		for range rapid.IntRange(1, 40).Draw(rt, "count") {
			op := rapid.SampledFrom(ops).Draw(rt, "op")
			if in := rapid.IntRange(0, 12).Draw(rt, "fault"); in < 4 {
				var calls atomic.Int64
				b.set(func(emulated.Call) error {
					if calls.Add(1) > int64(in) {
						return errBroken
					}
					return nil
				})
			}
			err := b.do(x.e, op)
			b.set(nil)
			x.newest = x.after(op, err)
			wrote := err == nil && (strings.HasSuffix(op, "write") || op == "host grow" || op == "host shrink" || op == "mark")
			if now := x.e.Version(); wrote != (now == version+1) || !wrote && now != version {
				rt.Fatalf("%s: version %d became %d, %v", op, version, now, err)
			}
			version = x.e.Version()
			if s := x.e.State(); s == Gone || x.e.OnDevice() != (b.used() > 0) {
				rt.Fatalf("%s: %v: %s, %d bytes on the device, on device %v", op, err, s, b.used(), x.e.OnDevice())
			}
			if err != nil && !errors.Is(err, errBroken) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrStale) &&
				!errors.Is(err, ErrNoCopy) && !errors.Is(err, ErrLastCopy) {
				rt.Fatalf("%s: %v", op, err)
			}
			x.check(t, b, 0)
			if t.Failed() {
				rt.Fatalf("after %s: %v", op, err)
			}
		}
		if _, err := x.e.Discard(Device); err != nil {
			rt.Fatal(err)
		}
		b.empty()
		if err := errors.Join(b.mem.Close(), b.dev.Close()); err != nil {
			rt.Fatal(err)
		}
	})
}

// after is the newest bytes after an operation that ended with err.
func (x *model) after(op string, err error) string {
	if err != nil {
		return x.newest
	}
	switch op {
	case "host write":
		return "host"
	case "host grow":
		return "a longer host"
	case "host shrink":
		return "h"
	case "device write":
		return strings.Repeat("card", 9)[:len(x.newest)]
	}
	return x.newest
}
