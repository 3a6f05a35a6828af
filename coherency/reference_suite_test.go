package coherency

import (
	"errors"
	"testing"

	"cairn/block"
)

// The reference's own tests of the multi-tier protocol, one for one. Those of
// tiers and masks are in package block. A comment names the deviation where ours
// answers differently.

func made(t *testing.T, at, home block.Tier) State {
	t.Helper()
	s, err := New(at, home)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// moved begins and commits a copy to the tier to.
func moved(t *testing.T, s *State, to block.Tier) {
	t.Helper()
	c, err := s.Begin(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(c); err != nil {
		t.Fatal(err)
	}
}

// written writes and returns the copies that the policy asks for.
func written(t *testing.T, s *State, to block.Tier, p WritePolicy) []Copy {
	t.Helper()
	_, copies, err := s.Write(to, p, s.Version())
	if err != nil {
		t.Fatal(err)
	}
	return copies
}

func commit(t *testing.T, s *State, copies ...Copy) {
	t.Helper()
	for _, c := range copies {
		if err := s.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
}

func shows(t *testing.T, s State, valid, dirty, needsSync block.TierMask, owner block.Tier) {
	t.Helper()
	o, _ := s.Owner()
	if s.Valid() != valid || s.Dirty() != dirty || s.NeedsSync() != needsSync || o != owner {
		t.Fatalf("valid %s, dirty %s, needs %s, owner %s; want %s, %s, %s, %s",
			s.Valid(), s.Dirty(), s.NeedsSync(), o, valid, dirty, needsSync, owner)
	}
}

var (
	inVRAM = block.MaskOf(block.VRAM)
	inHost = block.MaskOf(block.Host)
	inAll  = block.MaskOf(block.VRAM, block.Host, block.Disk)
)

func TestTieredStateNew(t *testing.T) {
	s := made(t, block.Host, block.Host)
	shows(t, s, inHost, 0, 0, block.Host)
}

func TestTieredStateWriteBack(t *testing.T) {
	s := made(t, block.Host, block.Host)
	if copies := written(t, &s, block.VRAM, WriteBack); copies != nil {
		t.Fatalf("write-back asked for %v", copies)
	}
	shows(t, s, inVRAM, inVRAM, inHost, block.VRAM)
	if s.Stale() != inHost {
		t.Errorf("stale is %s, want host", s.Stale())
	}
}

func TestTieredStateWriteThrough(t *testing.T) {
	s := made(t, block.Host, block.Host)
	copies := written(t, &s, block.VRAM, WriteThrough)
	shows(t, s, inVRAM, inVRAM, inHost, block.VRAM) // T1: not before the bytes are there
	if len(copies) != 1 || copies[0].From != block.VRAM || copies[0].To != block.Host || copies[0].Flush() {
		t.Fatalf("asked for %+v, want one copy from vram to host", copies)
	}
	commit(t, &s, copies...)
	shows(t, s, inVRAM.Union(inHost), 0, 0, block.VRAM)
}

func TestTieredStateWriteAll(t *testing.T) {
	s := made(t, block.Host, block.Host)
	moved(t, &s, block.VRAM)
	moved(t, &s, block.Disk)
	shows(t, s, inAll, 0, 0, block.Host)
	copies := written(t, &s, block.Host, WriteAll)
	shows(t, s, inHost, inHost, inAll, block.Host) // T2: the others have old bytes
	if len(copies) != 3 || !copies[0].Flush() || copies[1].To != block.VRAM || copies[2].To != block.Disk {
		t.Fatalf("asked for %+v, want a flush of host, then copies to vram and disk", copies)
	}
	commit(t, &s, copies...)
	shows(t, s, inAll, 0, 0, block.Host)
}

func TestHasValidCopy(t *testing.T) {
	s := made(t, block.Host, block.Host)
	if !s.Has(block.Host) || s.Has(block.VRAM) || s.Has(block.Disk) || s.Has(block.Tiers) {
		t.Errorf("valid is %s, want host", s.Valid())
	}
}

func TestTieredStateSync(t *testing.T) {
	s := made(t, block.Host, block.Host)
	written(t, &s, block.VRAM, WriteBack)
	moved(t, &s, block.Host)
	shows(t, s, inVRAM.Union(inHost), 0, 0, block.VRAM)
}

func TestTieredStateInvalidate(t *testing.T) {
	s := made(t, block.Host, block.Host)
	moved(t, &s, block.VRAM)
	if err := s.Invalidate(block.VRAM); err != nil {
		t.Fatal(err)
	}
	shows(t, s, inHost, 0, 0, block.Host)
}

func TestTieredBlock(t *testing.T) {
	s := made(t, block.Host, block.Host)
	if s.Version() != 1 { // T14, T19: 0 is "never written" here, so the first content is 1
		t.Fatalf("version %d, want 1", s.Version())
	}
	written(t, &s, block.Host, WriteBack)
	if s.Version() != 2 || !s.NeedsSync().Any() {
		t.Errorf("version %d, needs %s; want 2, host", s.Version(), s.NeedsSync())
	}
}

func TestSyncProtocol(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	if q.Epoch() != 0 || q.Pending() != 0 {
		t.Fatalf("epoch %d, %d pending", q.Epoch(), q.Pending())
	}
	q.Add(block.Key{1}, 1, block.VRAM, block.Host)
	q.Add(block.Key{2}, 1, block.Host, block.Disk)
	if q.Pending() != 2 {
		t.Fatalf("%d pending, want 2", q.Pending())
	}
	intents := q.Next(10)
	if len(intents) != 2 || q.Pending() != 0 || q.InFlight() != 2 {
		t.Fatalf("handed out %v, %d pending, %d in flight", intents, q.Pending(), q.InFlight())
	}
	if _, err := q.Advance(); !errors.Is(err, ErrPending) { // S1: not before they are done
		t.Fatalf("Advance: %v, want ErrPending", err)
	}
	for _, in := range intents {
		if !q.Done(in) {
			t.Errorf("%v was not in the queue", in)
		}
	}
	if e, err := q.Advance(); e != 1 || err != nil || q.Epoch() != 1 { // S1: the new epoch
		t.Errorf("Advance: %d, %v; want 1", e, err)
	}
}

func TestSyncProtocolPolicy(t *testing.T) {
	var zero WritePolicy
	if p := NewSyncQueue(zero).Policy(); p != WriteBack {
		t.Errorf("default policy is %s", p)
	}
	if p := NewSyncQueue(WriteThrough).Policy(); p != WriteThrough {
		t.Errorf("policy is %s, want write-through", p)
	}
}
