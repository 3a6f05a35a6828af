package coherency

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"cairn/block"
)

func key(n int) block.Key { return block.Key{byte(n >> 8), byte(n)} }

func keysOf(intents []Intent) []int {
	var out []int
	for _, in := range intents {
		out = append(out, int(in.Key[0])<<8|int(in.Key[1]))
	}
	return out
}

func TestQueueOrder(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	for _, n := range []int{5, 3, 9, 1} {
		q.Add(key(n), 1, block.Host, block.Disk)
	}
	q.Add(key(3), 2, block.Host, block.Disk) // keeps its place
	first := q.Next(2)
	if diff := cmp.Diff([]int{5, 3}, keysOf(first)); diff != "" {
		t.Fatal(diff)
	}
	if first[1].Version != 2 {
		t.Errorf("version %d, want the newer", first[1].Version)
	}
	if !q.Fail(first[0]) { // to the end, so that the others get their turn
		t.Error("a failed intent was not in flight")
	}
	if diff := cmp.Diff([]int{9, 1, 5}, keysOf(q.Next(10))); diff != "" {
		t.Error(diff)
	}
	if q.Next(1) != nil || q.Next(0) != nil || q.Next(-1) != nil {
		t.Error("an empty queue handed something out")
	}
}

func TestQueueTargetsAreApart(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	q.Add(key(1), 1, block.VRAM, block.Host)
	q.Add(key(1), 1, block.VRAM, block.Disk)
	out := q.Next(10)
	if len(out) != 2 {
		t.Fatalf("handed out %v", out)
	}
	q.Done(out[0])
	if _, err := q.Advance(); !errors.Is(err, ErrPending) {
		t.Errorf("Advance: %v, want ErrPending for the other target", err)
	}
}

func TestQueueNewerVersionDuringFlight(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	q.Add(key(1), 1, block.Host, block.Disk)
	old := q.Next(1)[0]
	if q.Add(key(1), 1, block.Host, block.Disk) {
		t.Error("the version in flight was added again")
	}
	if !q.Add(key(1), 2, block.Host, block.Disk) || q.Pending() != 1 || q.InFlight() != 1 {
		t.Fatalf("%d pending, %d in flight", q.Pending(), q.InFlight())
	}
	if out := q.Next(1); out != nil {
		t.Errorf("%v handed out while an older copy to the same tier is in flight", out)
	}
	q.Done(old)
	out := q.Next(1)
	if len(out) != 1 || out[0].Version != 2 {
		t.Fatalf("handed out %v, want version 2", out)
	}
	if q.Done(old) || q.Fail(old) {
		t.Error("an ended intent ended another")
	}
	q.Add(key(1), 3, block.VRAM, block.Disk)
	q.Fail(out[0])
	out = q.Next(10)
	if len(out) != 1 || out[0].Version != 3 || out[0].From != block.VRAM {
		t.Errorf("handed out %v, want version 3 in place of the failed one", out)
	}
}

func TestQueueDoneWhileWaiting(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	q.Add(key(1), 3, block.Host, block.Disk)
	if q.Done(Intent{Key: key(1), Version: 2, To: block.Disk}) {
		t.Error("an older version was enough")
	}
	if !q.Done(Intent{Key: key(1), Version: 3, To: block.Disk}) || q.Pending() != 0 || q.Synced() != 1 {
		t.Errorf("%d pending, %d synced", q.Pending(), q.Synced())
	}
	if q.Add(key(1), 0, block.Host, block.Disk) || q.Pending() != 0 {
		t.Error("a block that was never written was added")
	}
}

func TestQueueDrop(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	q.Add(key(1), 1, block.VRAM, block.Host)
	in := q.Next(1)[0]
	q.Add(key(1), 2, block.VRAM, block.Host)
	q.Add(key(1), 2, block.VRAM, block.Disk)
	if !q.Drop(key(1)) || q.Drop(key(1)) || q.Pending()+q.InFlight() != 0 || q.Synced() != 0 {
		t.Fatalf("%d pending, %d in flight, %d synced", q.Pending(), q.InFlight(), q.Synced())
	}
	if q.Done(in) {
		t.Error("a dropped intent was done")
	}
	if e, err := q.Advance(); e != 1 || err != nil {
		t.Errorf("a barrier waits for a block that is gone: %d, %v", e, err)
	}
}

// A barrier covers what was added before its cut, and nothing else (B9).
func TestQueueCut(t *testing.T) {
	q := NewSyncQueue(WriteBack)
	q.Add(key(1), 1, block.Host, block.Disk)
	q.Add(key(2), 1, block.Host, block.Disk)
	if e := q.Cut(); e != 0 {
		t.Fatalf("closed epoch %d, want 0", e)
	}
	q.Add(key(3), 1, block.Host, block.Disk)
	q.Add(key(2), 2, block.Host, block.Disk) // takes over what epoch 0 waits for
	out := q.Next(10)
	want := []Intent{
		{key(1), 1, 0, block.Host, block.Disk},
		{key(2), 2, 0, block.Host, block.Disk},
		{key(3), 1, 1, block.Host, block.Disk},
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Fatal(diff)
	}
	if e := q.Cut(); e != 1 {
		t.Fatalf("closed epoch %d, want 1", e)
	}
	q.Done(out[2])
	q.Done(out[0])
	if e, err := q.Advance(); e != 0 || !errors.Is(err, ErrPending) {
		t.Fatalf("Advance: %d, %v; want ErrPending", e, err)
	}
	q.Fail(out[1])
	q.Done(q.Next(1)[0])
	q.Add(key(4), 1, block.Host, block.Disk)
	for want := Epoch(1); want <= 2; want++ {
		if e, err := q.Advance(); e != want || err != nil {
			t.Fatalf("Advance: %d, %v; want %d", e, err, want)
		}
	}
	if _, err := q.Advance(); !errors.Is(err, ErrPending) {
		t.Errorf("Advance: %v, want ErrPending for the open epoch", err)
	}
}

// plainQueue is what a SyncQueue must remember, kept in the plainest way.
type plainQueue struct {
	waits, flies map[target]Intent
	open         Epoch
}

func (m *plainQueue) add(in Intent) {
	at := target{in.Key, in.To}
	in.Epoch = m.open
	if w, ok := m.waits[at]; ok {
		in.Epoch = w.Epoch
	}
	m.waits[at] = in
}

func (m *plainQueue) done(in Intent) bool {
	at, ended := target{in.Key, in.To}, false
	for _, owed := range []map[target]Intent{m.waits, m.flies} {
		if o, ok := owed[at]; ok && o.Version <= in.Version {
			delete(owed, at)
			ended = true
		}
	}
	return ended
}

func (m *plainQueue) fail(in Intent) bool {
	at := target{in.Key, in.To}
	o, ok := m.flies[at]
	if !ok || o.Version != in.Version {
		return false
	}
	delete(m.flies, at)
	if w, ok := m.waits[at]; ok {
		o.Version, o.From = w.Version, w.From
	}
	m.waits[at] = o
	return true
}

// before counts what is owed to epochs up to e.
func (m *plainQueue) before(e Epoch) int {
	n := 0
	for _, owed := range []map[target]Intent{m.waits, m.flies} {
		for _, in := range owed {
			if in.Epoch <= e {
				n++
			}
		}
	}
	return n
}

// TestQueueAtRandom compares the queue with plain maps.
func TestQueueAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	barriers, refused := 0, 0
	for range 300 {
		q := NewSyncQueue(WriteBack)
		m := plainQueue{waits: map[target]Intent{}, flies: map[target]Intent{}}
		handed := []Intent{{}} // some are handed back twice, or late
		version := Version(0)
		for range 300 {
			some := handed[r.IntN(len(handed))]
			switch r.IntN(8) {
			case 0, 1:
				version++
				in := Intent{Key: key(r.IntN(8)), Version: version, From: block.VRAM, To: block.Tier(1 + r.IntN(2))}
				m.add(in)
				if !q.Add(in.Key, in.Version, in.From, in.To) {
					t.Fatal("a newer version was not added")
				}
			case 2, 3:
				for _, in := range q.Next(r.IntN(5)) {
					at := target{in.Key, in.To}
					if _, flies := m.flies[at]; flies || m.waits[at] != in {
						t.Fatalf("handed out %v, want %v; another in flight %v", in, m.waits[at], flies)
					}
					delete(m.waits, at)
					m.flies[at] = in
					handed = append(handed, in)
				}
			case 4, 5:
				if got, want := q.Done(some), m.done(some); got != want {
					t.Fatalf("done with %v: %v, want %v", some, got, want)
				}
			case 6:
				if got, want := q.Fail(some), m.fail(some); got != want {
					t.Fatalf("%v failed: %v, want %v", some, got, want)
				}
			case 7:
				if r.IntN(2) == 0 {
					m.open = q.Cut() + 1
				}
				left := m.before(q.Epoch())
				e, err := q.Advance()
				if (err == nil) != (left == 0) || err != nil && !errors.Is(err, ErrPending) {
					t.Fatalf("B9: Advance: %d, %v with %d owed", e, err, left)
				}
				if m.open = max(m.open, e); err == nil {
					barriers++
				} else {
					refused++
				}
			}
			if q.Pending() != len(m.waits) || q.InFlight() != len(m.flies) {
				t.Fatalf("%d pending, %d in flight; want %d, %d", q.Pending(), q.InFlight(), len(m.waits), len(m.flies))
			}
		}
		drained(t, q)
	}
	if barriers == 0 || refused == 0 {
		t.Errorf("%d barriers, %d refused: the walk does not reach them", barriers, refused)
	}
	t.Logf("%d barriers, %d refused", barriers, refused)
}

// drained finishes everything and checks that nothing is left behind.
func drained(t *testing.T, q *SyncQueue) {
	t.Helper()
	for k := range 8 {
		q.Drop(key(k))
	}
	for _, n := range q.owed {
		if n != 0 {
			t.Fatalf("B9: %v owed by an empty queue", q.owed)
		}
	}
	if len(q.index) != 0 || q.head != none || q.tail != none || len(q.free) != len(q.slots) || q.Next(1) != nil {
		t.Fatalf("an empty queue has %d entries, list %d to %d, %d of %d slots free", len(q.index), q.head, q.tail, len(q.free), len(q.slots))
	}
}

func TestStats(t *testing.T) {
	var c Stats
	dirty := made(t, block.Host, block.Disk)
	moved(t, &dirty, block.VRAM)
	gone := made(t, block.VRAM, block.Host)
	gone.Discard(block.VRAM)
	rewritten := made(t, block.Disk, block.Disk)
	written(t, &rewritten, block.Host, WriteBack)
	for _, s := range []State{dirty, gone, rewritten, made(t, block.Disk, block.Disk)} {
		c.Add(s)
	}
	ahead, behind := NewSyncQueue(WriteBack), NewSyncQueue(WriteBack)
	if _, err := ahead.Advance(); err != nil {
		t.Fatal(err)
	}
	ahead.Add(key(1), 1, block.Host, block.Disk)
	ahead.Add(key(2), 1, block.Host, block.Disk)
	ahead.Add(key(3), 1, block.Host, block.Disk)
	ahead.Done(ahead.Next(2)[0])
	c.AddQueue(ahead)
	if c.Epoch != 1 {
		t.Errorf("epoch %d, want 1", c.Epoch)
	}
	c.AddQueue(behind)
	got, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"blocks":4,"copies":[1,2,1],"stale":[0,0,1],"dirty":2,"gone":1,"pending":1,"in_flight":1,"synced":1,"epoch":0}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWritePolicyText(t *testing.T) {
	for p := range WritePolicy(policies) {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back WritePolicy
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%s came back as %s, %v", text, back, err)
		}
	}
	if p, err := ParseWritePolicy("WriteThrough"); p != WriteThrough || err != nil {
		t.Errorf("WriteThrough is read as %s, %v", p, err)
	}
	if _, err := ParseWritePolicy("write-never"); !errors.Is(err, ErrPolicy) {
		t.Errorf("write-never: %v, want ErrPolicy", err)
	}
	if _, err := WritePolicy(9).MarshalText(); !errors.Is(err, ErrPolicy) {
		t.Errorf("policy 9 has a text: %v", err)
	}
	s := made(t, block.Host, block.Host)
	if _, _, err := s.Write(block.Host, 9, 1); !errors.Is(err, ErrPolicy) {
		t.Errorf("write with policy 9: %v", err)
	}
}
