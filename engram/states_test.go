package engram

import (
	"errors"
	"os"
	"strings"
	"testing"

	"cairn/vram"
)

// TestStatesTable reads the table of states and operations of docs/engrams.md, and tries
// every cell of it on real bytes.
func TestStatesTable(t *testing.T) {
	text, err := os.ReadFile("../docs/engrams.md")
	if err != nil {
		t.Fatal(err)
	}
	reach := map[string][]string{
		"host-only": nil, "device-only": {"upload", "drop host"}, "synced": {"upload"},
		"host-dirty": {"upload", "host write"}, "device-dirty": {"upload", "device write"},
	}
	ops := []string{"host write", "device write", "upload", "download", "sync", "release", "drop host"}
	errs := map[string]error{"ErrNoCopy": ErrNoCopy, "ErrConflict": ErrConflict, "ErrLastCopy": ErrLastCopy, "ErrDirty": ErrDirty}
	_, table, _ := strings.Cut(string(text), "| from | `WriteHost` | `WriteDevice` | `Upload` | `Download` | `Sync` | `Release` | `DropHost` |\n")
	cells := 0
	for line := range strings.Lines(table) {
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(row) != 1+len(ops) {
			break
		}
		from := strings.TrimSpace(row[0])
		setup, ok := reach[from]
		if !ok {
			continue // the line under the heads
		}
		for i, op := range ops {
			cell := strings.Trim(strings.TrimSuffix(strings.TrimSpace(row[1+i]), " ¹"), "`")
			cells++
			b := newBench(t)
			e := b.engram("seed")
			b.run(e, setup...)
			if e.State().String() != from {
				t.Fatalf("%v leads to %s, not to %s", setup, e.State(), from)
			}
			before, version := b.is(e), e.Version()
			err := b.do(e, op)
			words := strings.Split(cell, ", ")
			switch want, isErr := errs[cell]; {
			case isErr:
				if !errors.Is(err, want) || b.is(e) != before {
					t.Errorf("%s, %s: %v, %s; the table says %s, and nothing changes", from, op, err, b.is(e), cell)
				}
			case cell == "–":
				if err != nil || b.is(e) != before {
					t.Errorf("%s, %s: %v, %s; the table says that nothing happens", from, op, err, b.is(e))
				}
			case err != nil || e.State().String() != words[len(words)-1]:
				t.Errorf("%s, %s: %v, %s; the table says %s", from, op, err, e.State(), cell)
			case (e.Version() != version) != strings.HasSuffix(op, "write"):
				t.Errorf("%s, %s: version %d became %d", from, op, version, e.Version())
			}
			if e.OnDevice() != (e.State() != HostOnly) {
				t.Errorf("%s, %s: on the device %v", e.State(), op, e.OnDevice())
			}
			if _, err := e.Discard(Device); err != nil {
				t.Error(err)
			}
			b.empty()
		}
	}
	if cells != len(reach)*len(ops) {
		t.Errorf("%d cells were found, want %d", cells, len(reach)*len(ops))
	}
}

// TestReplaceFromOneSide is the note under that table.
func TestReplaceFromOneSide(t *testing.T) {
	b := newBench(t)
	e := b.engram("seed")
	if _, err := e.ReplaceDevice(t.Context(), 6, b.write("card")); err != nil {
		t.Error(err)
	}
	b.want(e, `device-dirty 2 "seed" "cardca"`)
	b.run(e, "drop host")
	if _, err := e.ReplaceHost(t.Context(), 0, []byte("host")); err != nil {
		t.Error(err)
	}
	b.want(e, `host-dirty 3 "host" "cardca"`)
	b.run(e, "release")
	b.empty()
}

// Errors say what to do next, as far as that is the same for everybody.
func TestErrorsAdvise(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	nothing := func(vram.Addr, int64) error { return nil }
	loose, e := New([]byte("seed")), b.engram("seed")
	_, errNone := loose.WriteDevice(ctx, nothing)
	_, errEmpty := e.WriteDevice(ctx, nothing)
	b.run(e, "upload", "device write")
	_, _, errOlder := e.Snapshot()
	e.DeviceLost()
	_, _, errLost := e.Snapshot()
	for _, c := range []struct {
		err, is error
		advice  string
	}{
		{errNone, ErrNoDevice, "Attach"}, {errEmpty, ErrNoCopy, "Upload"}, {errOlder, ErrStale, "Download"}, {errLost, ErrStale, "Keep"},
	} {
		if !errors.Is(c.err, c.is) || !strings.Contains(c.err.Error(), c.advice) {
			t.Errorf("%v; want %v, and a word of %s", c.err, c.is, c.advice)
		}
	}
}
