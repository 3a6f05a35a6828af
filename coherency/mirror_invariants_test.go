package coherency

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// mirrorWorld is one mirror with its bytes: what each side really holds, as the
// number of the write that made them, beside the Mirror that is supposed to know.
// It checks the invariants of the package comment after each step.
type mirrorWorld struct {
	t        *testing.T
	m        Mirror
	bytes    [sides]int // number of the write; 0 is nothing, torn a mixture
	contents []Content  // of each write
	head     int        // the newest write, 0 when it is gone
	version  Version
	writing  *mirrorChange
	lost     map[int]bool // writes declared lost
	copies   []mirrorMoving
	writes   []MirrorWrite
	commits  int
}

const torn = -1

// mirrorChange is the write that changes bytes right now.
type mirrorChange struct {
	MirrorWrite
	old int // what its side held
}

type mirrorMoving struct {
	MirrorCopy
	read int // what the source held all the while
}

func newMirrorWorld(t *testing.T, at Side) *mirrorWorld {
	w := &mirrorWorld{t: t, contents: make([]Content, 1), head: 1, version: 1, lost: map[int]bool{}}
	w.bytes[at] = 1
	var err error
	if w.m, err = NewMirror(at, w.content(at)); err != nil {
		t.Fatal(err)
	}
	return w
}

// content makes up the bytes of the next write. A device tells every other checksum.
func (w *mirrorWorld) content(at Side) Content {
	n := len(w.contents)
	c := Content{Length: uint64(8 + n%5), Sum: uint64(n), Summed: true}
	w.contents = append(w.contents, c)
	if at == DeviceSide && n%2 == 0 {
		return Content{Length: c.Length}
	}
	return c
}

func (w *mirrorWorld) step(op, arg byte) {
	before, side := w.m, Side(arg%sides)
	failed := false
	switch op % 9 {
	case 0:
		failed = !w.beginWrite(side, arg>>5 == 7)
	case 1:
		failed = !w.commitWrite(int(arg))
	case 2:
		w.abortWrite(int(arg)>>1, arg&1 != 0)
	case 3:
		begin := func() (MirrorCopy, error) { return w.m.Begin(side) }
		if arg>>7 != 0 {
			begin = w.m.Sync
		}
		c, err := begin()
		if failed = err != nil; !failed {
			w.copies = append(w.copies, mirrorMoving{c, w.bytes[c.From]})
		}
	case 4, 5:
		failed = !w.commit(int(arg)>>1, arg&1 != 0 && op%9 == 5)
	case 6:
		if n := len(w.copies); n > 0 {
			w.m.Abort(w.copies[int(arg)%n].MirrorCopy)
		}
	case 7:
		failed = !w.drop(side, arg>>1)
	case 8:
		failed = !w.keep(side)
	}
	if failed && w.m != before {
		w.t.Fatalf("M2: operation %d(%d) failed and changed\n%+v to\n%+v", op%9, arg, before, w.m)
	}
	w.check()
}

func (w *mirrorWorld) beginWrite(s Side, blind bool) bool {
	expect := w.version
	if blind {
		expect--
	}
	h, err := w.m.BeginWrite(s, expect)
	if err != nil {
		return false
	}
	o := s.other()
	if blind || w.writing != nil || w.head != 0 && w.bytes[s] != w.head && w.bytes[o] == w.head && w.bytes[s] != 0 {
		w.t.Fatalf("M6: write on %s of version %d allowed: %v, head %d", s, expect, w.bytes, w.head)
	}
	if h.Whole == (w.head != 0 && w.bytes[s] == w.head) {
		w.t.Fatalf("write of the whole %v on %s: %v, head %d", h.Whole, s, w.bytes, w.head)
	}
	w.writing = &mirrorChange{h, w.bytes[s]}
	if !h.Whole {
		w.bytes[s] = torn
	}
	for i := range w.copies { // bytes changed under whoever read them
		if w.copies[i].From == s {
			w.copies[i].read = torn
		}
	}
	w.writes = append(w.writes, h)
	return true
}

// pick is a write begun at some time, most of them over; live tells of the last.
func (w *mirrorWorld) pick(i int) (h MirrorWrite, live, ok bool) {
	if len(w.writes) == 0 {
		return h, false, false
	}
	h = w.writes[len(w.writes)-1-i%min(2, len(w.writes))]
	return h, w.writing != nil && w.writing.MirrorWrite == h, true
}

func (w *mirrorWorld) commitWrite(i int) bool {
	h, live, ok := w.pick(i)
	if !ok {
		return true
	}
	c := w.content(h.Side)
	v, err := w.m.CommitWrite(h, c)
	if live != (err == nil) {
		w.t.Fatalf("commit of a write that is live %v: %v", live, err)
	}
	if err != nil {
		return false
	}
	w.version++
	if v != w.version {
		w.t.Fatalf("M2: version %d, want %d", v, w.version)
	}
	w.head = len(w.contents) - 1
	w.bytes[h.Side] = w.head
	w.writing = nil
	w.commits++
	return true
}

func (w *mirrorWorld) abortWrite(i int, tear bool) {
	h, live, _ := w.pick(i)
	before := w.m
	lost := w.m.AbortWrite(h, tear)
	if !live {
		if lost || w.m != before {
			w.t.Fatal("the abort of a stale write changed the mirror")
		}
		return
	}
	s := h.Side
	w.bytes[s] = w.writing.old
	w.writing = nil
	if tear {
		w.left(s, lost)
	}
}

func (w *mirrorWorld) commit(i int, corrupt bool) bool {
	if len(w.copies) == 0 {
		return true
	}
	c := w.copies[len(w.copies)-1-i%min(3, len(w.copies))]
	arrived := Content{Length: 1}
	if c.read > 0 {
		arrived = w.contents[c.read]
	}
	if corrupt {
		arrived.Length++
	}
	if err := w.m.Commit(c.MirrorCopy, arrived); err != nil {
		return false
	}
	if corrupt || c.read != w.head || w.head == 0 || w.bytes[c.From] != w.head || c.Version != w.version {
		w.t.Fatalf("M3: copy %+v counted, corrupt %v: head %d, %v", c, corrupt, w.head, w.bytes)
	}
	w.bytes[c.To] = c.read
	w.commits++
	return true
}

// left is the world after the copy of s was given up.
func (w *mirrorWorld) left(s Side, lost bool) {
	held, other := w.bytes[s], w.bytes[s.other()]
	if w.writing != nil && w.writing.Side == s {
		held, w.writing = w.writing.old, nil
	}
	if w.writing != nil && w.writing.Side != s {
		other = w.writing.old
	}
	only := w.head != 0 && held == w.head && other != w.head
	if lost != only {
		w.t.Fatalf("M4: lost %v; %s held %d, the other %d, head %d", lost, s, held, other, w.head)
	}
	if only {
		w.lost[w.head] = true
		w.head = 0
	}
	w.bytes[s] = 0
}

func (w *mirrorWorld) drop(s Side, how byte) bool {
	switch {
	case how%4 == 0 && s == DeviceSide:
		w.left(s, w.m.DeviceLost())
	case how%4 == 0:
		w.left(s, w.m.Discard(s))
	default:
		if w.m.Drop(s) != nil {
			return false
		}
		w.left(s, false)
	}
	return true
}

func (w *mirrorWorld) keep(s Side) bool {
	before := w.m
	lost, err := w.m.Keep(s)
	if err != nil {
		return false
	}
	if w.head != 0 && w.bytes[s] == w.head {
		if lost || w.m != before {
			w.t.Fatal("M2: the choice of the newest changed something")
		}
		return true
	}
	w.left(s.other(), lost)
	w.head = w.bytes[s]
	w.version++
	return true
}

func (w *mirrorWorld) check() {
	if w.m.Version() != w.version {
		w.t.Fatalf("M2: version %d, want %d", w.m.Version(), w.version)
	}
	for s := range Side(sides) {
		being := w.writing != nil && w.writing.Side == s
		held := w.bytes[s]
		if being {
			held = w.writing.old
		}
		current := w.head != 0 && held == w.head
		if w.m.Has(s) != current {
			w.t.Fatalf("M1: %s current %v, holds %d, head %d", s, w.m.Has(s), held, w.head)
		}
		v, c := w.m.Holds(s)
		want := Content{}
		if held > 0 {
			want = w.contents[held]
		}
		if (v != 0) != (held != 0) || c.Length != want.Length || c.Summed && c.Sum != want.Sum {
			w.t.Fatalf("M7: %s shows %+v of version %d, holds %d: %+v", s, c, v, held, want)
		}
		_, err := w.m.Read(s)
		wantErr := error(nil)
		switch {
		case held == 0:
			wantErr = ErrNoCopy
		case !current:
			wantErr = ErrStale
		case being:
			wantErr = ErrInFlight
		}
		if !errors.Is(err, wantErr) || wantErr == nil && err != nil {
			w.t.Fatalf("M1: read of %s: %v, want %v", s, err, wantErr)
		}
		if err == nil && w.lost[w.bytes[s]] {
			w.t.Fatalf("M5: %s serves %d, which was declared lost", s, w.bytes[s])
		}
	}
	if at := w.m.at; w.m.op == mirrorCopying && (w.m.Has(at) || !w.m.Has(at.other())) {
		w.t.Fatalf("M6: a copy to %s is in flight that nobody can commit: %s", at, w.m.State())
	}
	if writing := w.m.op == mirrorWriting; writing != (w.writing != nil) {
		w.t.Fatalf("M6: a write is in flight %v, want %v", writing, !writing)
	}
	if h, d := w.m.Has(HostSide), w.m.Has(DeviceSide); w.m.State().HostIsCurrent() != h || w.m.State().DeviceIsCurrent() != d ||
		w.m.State().NeedsSync() != (h != d && w.m.held[0].version != 0 && w.m.held[1].version != 0) {
		w.t.Fatalf("M1: %s, host %v, device %v", w.m.State(), h, d)
	}
}

// TestMirrorInvariants takes random walks; the seeds are fixed.
func TestMirrorInvariants(t *testing.T) {
	commits, lost := 0, 0
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newMirrorWorld(t, Side(seed%sides))
		for range 300 {
			w.step(byte(r.Uint32()), byte(r.Uint32()))
		}
		commits, lost = commits+w.commits, lost+len(w.lost)
	}
	if commits == 0 || lost == 0 {
		t.Errorf("%d commits, %d losses: the walks reach too little", commits, lost)
	}
	t.Logf("%d commits, %d losses reported", commits, lost)
}

// FuzzMirror takes any operations in any order; see mirrorWorld.
func FuzzMirror(f *testing.F) {
	f.Add([]byte{0, 3, 1, 5, 0, 0, 1, 0, 1, 3, 0, 4, 0})
	f.Add([]byte{1, 3, 0, 4, 0, 0, 1, 2, 1, 8, 0})
	f.Add([]byte{0, 3, 1, 4, 0, 0, 1, 1, 0, 7, 1, 8, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) == 0 || len(ops) > 2000 {
			return
		}
		w := newMirrorWorld(t, Side(ops[0]%sides))
		for ops = ops[1:]; len(ops) > 1; ops = ops[2:] {
			w.step(ops[0], ops[1])
		}
	})
}
