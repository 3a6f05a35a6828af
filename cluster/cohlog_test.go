package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/coherency/ledger"
	"cairn/internal/natstest"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
)

// reader is a node that applies the coherence log.
type reader struct {
	t   *testing.T
	log *cluster.Coherence
	// wait returns the error of Run when that has ended.
	wait func() error
	stop context.CancelFunc
	// hook, if set, is called with each message, and onRestore with each snapshot.
	hook      func(sequence uint64, m *ledger.Message)
	onRestore func(sequence uint64) error

	mu        sync.Mutex
	led       *ledger.Ledger
	fresh     map[string]int // messages that counted, by node and number
	stale     int
	bad       []uint64
	restored  []uint64
	caughtUp  int
	regressed error
	changed   chan struct{} // closed at each change
}

func newReader(t *testing.T, conn *cluster.Conn, cfg cluster.CoherenceConfig) *reader {
	t.Helper()
	log, err := cluster.NewCoherence(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, log: log, led: ledger.New(ledger.NewMapTable(), 64), fresh: map[string]int{}, changed: make(chan struct{})}
}

// run reads until the test ends.
func (r *reader) run() *reader {
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.log.Run(ctx, r) }()
	r.stop = cancel
	r.wait = sync.OnceValue(func() error { return <-ended })
	r.t.Cleanup(func() {
		cancel()
		if err := r.wait(); !errors.Is(err, context.Canceled) && r.regressed == nil {
			r.t.Errorf("Run ended with %v", err)
		}
	})
	return r
}

func (r *reader) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *reader) Restore(sequence uint64, snapshot io.Reader) error {
	if r.onRestore != nil {
		if err := r.onRestore(sequence); err != nil {
			return err
		}
	}
	led, err := ledger.LoadSnapshot(snapshot, ledger.NewMapTable(), 64)
	if err == nil {
		r.note(func() { r.led, r.restored = led, append(r.restored, sequence) })
	}
	return err
}

func (r *reader) Message(sequence uint64, m *ledger.Message, sum uint64) {
	if r.hook != nil {
		r.hook(sequence, m)
	}
	r.note(func() {
		if r.led.Apply(sequence, m, sum, func(*ledger.Record, *ledger.Outcome) {}).Stale {
			r.stale++
		} else {
			r.fresh[fmt.Sprint(m.Node, ".", m.Number)]++
		}
	})
}

func (r *reader) Bad(sequence, sum uint64) {
	r.note(func() { r.led.Skip(sequence, sum); r.bad = append(r.bad, sequence) })
}
func (r *reader) CaughtUp()           { r.note(func() { r.caughtUp++ }) }
func (r *reader) Regressed(err error) { r.note(func() { r.regressed = err }) }

// until waits for something about the reader.
func (r *reader) until(what string, done func() bool) {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		changed, ok := r.changed, done()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("not within %v: %s; %+v", patience, what, r.log.Stats())
		}
	}
}

func (r *reader) ready() *reader {
	r.t.Helper()
	r.until("caught up", func() bool { return r.caughtUp > 0 })
	return r
}

// reach waits until the sequence is applied.
func (r *reader) reach(sequence uint64) {
	r.t.Helper()
	r.until(fmt.Sprint("sequence ", sequence), func() bool { return r.led.Sequence() >= sequence })
}

// state is digest, sequence and snapshot.
func (r *reader) state() (uint64, uint64, []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b bytes.Buffer
	if err := r.led.Snapshot(&b); err != nil {
		r.t.Fatal(err)
	}
	return r.led.Sequence(), r.led.Digest(), b.Bytes()
}

// same compares the states of two readers at one sequence: a message that was overtaken long
// ago may still come to the log, and to one of them first.
func (r *reader) same(o *reader) {
	r.t.Helper()
	var d1, d2 uint64
	var b1, b2 []byte
	until(r.t, "two readers are at one sequence", func() bool {
		var s1, s2 uint64
		s1, d1, b1 = r.state()
		s2, d2, b2 = o.state()
		return s1 == s2
	})
	if d1 != d2 || !bytes.Equal(b1, b2) {
		r.t.Errorf("states differ: digest %x and %x, snapshot of %d and %d bytes", d1, d2, len(b1), len(b2))
	}
}

// say publishes message number n of a node: a Join if it is the first, and a commit.
func (r *reader) say(node string, n uint64) {
	m := &ledger.Message{Node: node, Incarnation: 7, Number: n}
	if n == 1 {
		m.Records = append(m.Records, ledger.Record{Kind: ledger.Join})
	}
	m.Records = append(m.Records, commit(fmt.Sprint(node, n)))
	r.log.Publish(m)
}

func commit(name string) ledger.Record {
	return ledger.Record{Kind: ledger.Commit, Key: block.NamedKey("ns", []byte(name), 0), Namespace: "ns", Name: []byte(name),
		Value: ledger.Value{Object: block.NamedKey("ns", []byte(name), 1), Length: 7, Sum: 9}}
}

// sayAll publishes n messages of a node, each when the one before has come back.
func (r *reader) sayAll(node string, n uint64) {
	r.t.Helper()
	mem, _ := r.member(node)
	for i := mem.Last + 1; i <= mem.Last+n; i++ {
		r.say(node, i)
		r.until(fmt.Sprint(node, " ", i), func() bool { m, _ := r.led.Find(node); return m.Last == i })
	}
}

func (r *reader) member(node string) (ledger.Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.led.Find(node)
}

func TestCoherenceOrder(t *testing.T) {
	conn := natstest.Run(t)
	a := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	b := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	const each = 200
	var wg sync.WaitGroup
	for node, r := range map[string]*reader{"a": a, "b": b} {
		wg.Go(func() { r.sayAll(node, each) })
	}
	wg.Wait()
	a.reach(2 * each)
	b.reach(2 * each)
	a.same(b)
	for _, r := range []*reader{a, b} {
		if len(r.fresh) != 2*each || r.stale != 0 || r.caughtUp != 1 || r.restored != nil {
			t.Errorf("%d messages counted, %d stale, caught up %d times, restored %v", len(r.fresh), r.stale, r.caughtUp, r.restored)
		}
		want := cluster.CoherenceStats{Published: each, Delivered: 2 * each, Sequence: 2 * each, Resent: r.log.Stats().Resent, Live: r.log.Stats().Live, Lag: r.log.Stats().Lag}
		if diff := cmp.Diff(want, r.log.Stats()); diff != "" {
			t.Error(diff)
		}
	}
	msg := stored(t, conn, 1)
	want := map[string]string{"Nats-Msg-Id": "a.7.1", "Cairn-Format": "coh.v1", "Cairn-Count": "2",
		"Cairn-First-Key": commit("a1").Key.String(), "Cairn-Last-Key": commit("a1").Key.String()}
	if msg.Subject == "cairn.v1.coh.0.b" {
		want["Nats-Msg-Id"] = "b.7.1"
		want["Cairn-First-Key"], want["Cairn-Last-Key"] = commit("b1").Key.String(), commit("b1").Key.String()
	}
	for k, v := range want {
		if got := msg.Header.Get(k); got != v {
			t.Errorf("header %s = %q, want %q", k, got, v)
		}
	}
}

func stored(t *testing.T, conn *cluster.Conn, sequence uint64) *jetstream.RawStreamMsg {
	t.Helper()
	msg, err := coherenceStream(t, conn).GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func coherenceStream(t *testing.T, conn *cluster.Conn) jetstream.Stream {
	t.Helper()
	var s jetstream.Stream
	err := conn.Retry(ctxFor(t, patience), 2*time.Second, func(ctx context.Context) (err error) {
		s, err = conn.JS.Stream(ctx, cluster.CoherenceStream(0))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCoherenceResend: a message of which nothing is heard is sent again, and is in
// the log once.
func TestCoherenceResend(t *testing.T) {
	conn := natstest.Run(t)
	r := newReader(t, conn, cluster.CoherenceConfig{AckTimeout: 5 * time.Millisecond})
	release := make(chan struct{})
	r.hook = func(sequence uint64, _ *ledger.Message) {
		if sequence == 1 {
			<-release // the log seems to be silent
		}
	}
	r.run().ready()
	r.say("a", 1)
	r.say("a", 2)
	for deadline := time.Now().Add(patience); r.log.Stats().Resent < 4; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not sent again: %+v", r.log.Stats())
		}
	}
	close(release)
	r.say("a", 3)
	r.reach(3)
	if last := coherenceStream(t, conn).CachedInfo().State.LastSeq; last != 3 || r.stale != 0 {
		t.Errorf("%d messages in the log, %d stale; want 3 and 0", last, r.stale)
	}
	if s := r.log.Stats(); s.Pending != 0 {
		t.Errorf("still on their way: %+v", s)
	}
}

func TestCoherenceBadAndHistory(t *testing.T) {
	conn := natstest.Run(t)
	r := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	r.sayAll("a", 3)
	foreign := ledger.Message{Node: "b", Incarnation: 1, Number: 1}
	for _, data := range [][]byte{[]byte("garbage"), foreign.Append(nil)} {
		if _, err := conn.JS.Publish(t.Context(), cluster.CoherenceSubject(0, "a"), data); err != nil {
			t.Fatal(err)
		}
	}
	r.log.Publish(&ledger.Message{Node: "no.id", Number: 1})
	r.log.Publish(&ledger.Message{Node: "a", Incarnation: 7, Number: 3, Records: []ledger.Record{{Kind: ledger.Clear, Namespace: strings.Repeat("x", r.log.MaxBytes())}}})
	r.sayAll("a", 2)
	if diff := cmp.Diff([]uint64{4, 5}, r.bad); diff != "" {
		t.Errorf("bad sequences: %s", diff)
	}
	if s := r.log.Stats(); s.Pending != 0 || s.Bad != 2 || s.Published != 5 {
		t.Errorf("%+v", s)
	}
	late := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	late.reach(7)
	late.same(r)

	list := func(match func(*ledger.Message) bool, most int) (got []string) {
		for l, err := range r.log.History(t.Context(), match, most) {
			if err != nil {
				t.Fatal(err)
			}
			if l.Time.IsZero() || l.Node != "a" {
				t.Errorf("sequence %d: time %v, node %q", l.Sequence, l.Time, l.Node)
			}
			if l.Message == nil {
				got = append(got, fmt.Sprint(l.Sequence, " bad"))
				continue
			}
			got = append(got, fmt.Sprint(l.Sequence, " ", l.Message.Number))
		}
		return got
	}
	if diff := cmp.Diff([]string{"1 1", "2 2", "3 3", "4 bad", "5 bad", "6 4", "7 5"}, list(nil, 0)); diff != "" {
		t.Error(diff)
	}
	even := func(m *ledger.Message) bool { return m.Number%2 == 0 }
	if diff := cmp.Diff([]string{"2 2", "4 bad", "5 bad"}, list(even, 3)); diff != "" {
		t.Error(diff)
	}
}

func TestCoherenceConfig(t *testing.T) {
	err := cluster.CoherenceConfig{Partition: 1, MaxBytes: -1}.Validate()
	for _, word := range []string{"Partition", "MaxBytes"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not mention %s", err, word)
		}
	}
}
