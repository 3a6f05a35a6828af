package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/node"

	"github.com/google/go-cmp/cmp"
)

// table is the names as a node applies them.
type table struct {
	t   *testing.T
	log *cluster.Names
	// wait returns the error of Run when that has ended.
	wait func() error

	mu      sync.Mutex
	names   map[block.Key]node.Name
	history []node.Name
	changed chan struct{}
}

func follow(t *testing.T, conn *cluster.Conn, cfg cluster.NamesConfig) *table {
	t.Helper()
	log, err := cluster.NewNames(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	tab := &table{t: t, log: log, names: map[block.Key]node.Name{}, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- log.Run(ctx, tab.apply) }()
	tab.wait = sync.OnceValue(func() error { return <-ended })
	t.Cleanup(func() {
		cancel()
		if err := tab.wait(); !errors.Is(err, context.Canceled) && !errors.Is(err, cluster.ErrNamesLost) {
			t.Errorf("Run ended with %v", err)
		}
	})
	if err := log.Ready(ctxFor(t, patience)); err != nil {
		t.Fatal(err)
	}
	return tab
}

func (tab *table) apply(n node.Name) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if k := len(tab.history); k > 0 && tab.history[k-1].Sequence >= n.Sequence {
		tab.t.Errorf("sequence %d after %d", n.Sequence, tab.history[k-1].Sequence)
	}
	tab.names[n.Key] = n
	tab.history = append(tab.history, n)
	close(tab.changed)
	tab.changed = make(chan struct{})
}

// until waits until the table has applied the sequence.
func (tab *table) until(sequence uint64) {
	tab.t.Helper()
	timeout := time.After(patience)
	for {
		tab.mu.Lock()
		changed := tab.changed
		k := len(tab.history)
		done := k > 0 && tab.history[k-1].Sequence >= sequence
		tab.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			tab.t.Fatalf("sequence %d was not applied within %v: %+v", sequence, patience, tab.log.Stats())
		}
	}
}

func (tab *table) get(key block.Key) node.Name {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return tab.names[key]
}

func (tab *table) append(n node.Name, expect *uint64) uint64 {
	tab.t.Helper()
	seq, err := tab.log.Append(ctxFor(tab.t, patience), n, expect)
	if err != nil {
		tab.t.Fatal(err)
	}
	return seq
}

// state is version v of a name.
func state(name string, v uint64) node.Name {
	n := node.Name{Key: block.NamedKey("ns", []byte(name), 0), Namespace: "ns", Name: []byte(name), Length: uint32(v), Writer: "n1"}
	if v > 0 {
		n.Object = block.NamedKey("ns", []byte(name), v)
	}
	return n
}

func ptr[T any](v T) *T { return &v }

func TestNamesOrderAndConflict(t *testing.T) {
	conn := natstest.Run(t)
	a := follow(t, conn, cluster.NamesConfig{})
	first := a.append(state("x", 1), ptr(uint64(0)))
	second := a.append(state("x", 2), &first)
	for _, stale := range []uint64{0, first, second + 1} {
		if _, err := a.log.Append(t.Context(), state("x", 3), &stale); !errors.Is(err, node.ErrNameConflict) {
			t.Errorf("expecting %d: %v, want ErrNameConflict", stale, err)
		}
	}
	third := a.append(state("x", 4), nil)
	binary := state("\xff\x00", 1)
	binary.Expires = time.Now().Add(time.Hour).UnixMilli()
	last := a.append(binary, nil)
	a.until(last)
	for _, want := range []struct {
		n   node.Name
		seq uint64
	}{{state("x", 4), third}, {binary, last}} {
		want.n.Sequence = want.seq
		if diff := cmp.Diff(want.n, a.get(want.n.Key)); diff != "" {
			t.Errorf("applied (-want +got):\n%s", diff)
		}
	}
	// A reader that comes late sees the newest states only, in the same order.
	b := follow(t, conn, cluster.NamesConfig{})
	if diff := cmp.Diff([]uint64{third, last}, []uint64{b.history[0].Sequence, b.history[1].Sequence}); len(b.history) != 2 || diff != "" {
		t.Errorf("late reader: %v", b.history)
	}
	if s := a.log.Stats(); s.Appended != 4 || s.Conflicts != 3 || s.Sequence != last {
		t.Errorf("stats %+v", s)
	}
}

func TestNamesRefuses(t *testing.T) {
	conn := natstest.Run(t)
	a := follow(t, conn, cluster.NamesConfig{})
	long := state("x", 1)
	long.Name = bytes.Repeat([]byte("x"), 1<<17)
	negative := state("x", 1)
	negative.Expires = -1
	for _, n := range []node.Name{long, negative, {}} {
		if _, err := a.log.Append(t.Context(), n, nil); !errors.Is(err, cluster.ErrNameData) {
			t.Errorf("%.40v: %v, want ErrNameData", n, err)
		}
	}
	// What others put into the stream that is no state is counted and left out.
	if _, err := conn.JS.Publish(t.Context(), cluster.NameSubject(state("y", 1).Key), []byte("{")); err != nil {
		t.Fatal(err)
	}
	a.until(a.append(state("x", 1), nil))
	if s := a.log.Stats(); s.Bad != 1 || s.Applied != 1 {
		t.Errorf("stats %+v", s)
	}
	if err := (cluster.NamesConfig{DeletedTTL: 1500 * time.Millisecond, InFlight: -1}).Validate(); err == nil {
		t.Error("Validate accepts a DeletedTTL of 1.5 s and a negative InFlight")
	}
}

// Traces of deleted names vanish after DeletedTTL, and then count as never
// written.
func TestDeletedNamesVanish(t *testing.T) {
	conn := natstest.Run(t)
	a := follow(t, conn, cluster.NamesConfig{DeletedTTL: time.Second})
	seq := a.append(state("x", 1), nil)
	gone := a.append(state("x", 0), &seq)
	a.until(gone)
	if !a.get(state("x", 0).Key).Deleted() {
		t.Error("the deletion was not applied")
	}
	ctx := ctxFor(t, patience)
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		if _, err := a.log.Append(ctx, state("x", 2), ptr(uint64(0))); err == nil {
			break
		} else if !errors.Is(err, node.ErrNameConflict) {
			t.Fatal(err)
		}
	}
}

func TestNamesSurviveServerRestart(t *testing.T) {
	srv := newRestartable(t)
	conn := natstest.Connect(t, cluster.ConnConfig{URLs: []string{srv.now.ClientURL()}, ReconnectWait: 10 * time.Millisecond})
	natstest.Ensure(t, conn)
	a := follow(t, conn, cluster.NamesConfig{AckTimeout: 200 * time.Millisecond})
	for i := range uint64(10) {
		a.append(state(fmt.Sprint("before", i), 1), nil)
	}
	srv.stop()
	// These begin while nobody is there, and end once the server is back.
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { a.append(state(fmt.Sprint("during", i), 1), ptr(uint64(0))) })
	}
	srv.start()
	wg.Wait()
	last := a.append(state("after", 1), nil)
	a.until(last)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.names) != 21 || len(a.history) != 21 {
		t.Errorf("%d names and %d changes were applied, want 21 each", len(a.names), len(a.history))
	}
	if s := a.log.Stats(); s.Resent == 0 {
		t.Errorf("nothing was sent again: %+v", s)
	}
}

// A log that has lost what was read from it must not be served from.
func TestNamesLost(t *testing.T) {
	conn := natstest.Run(t)
	a := follow(t, conn, cluster.NamesConfig{})
	a.until(a.append(state("x", 1), nil))
	if err := conn.JS.DeleteStream(t.Context(), cluster.StreamNames); err != nil {
		t.Fatal(err)
	}
	natstest.Ensure(t, conn)
	ended := make(chan error, 1)
	go func() { ended <- a.wait() }()
	select {
	case err := <-ended:
		if !errors.Is(err, cluster.ErrNamesLost) {
			t.Errorf("Run ended with %v, want ErrNamesLost", err)
		}
	case <-time.After(patience):
		t.Error("Run goes on with another stream")
	}
}

func FuzzDecodeName(f *testing.F) {
	f.Add("cairn.v1.name.00000000000000000000000000000001", []byte(`{"namespace":"a","name":"b","object":"00000000000000000000000000000001","length":3,"writer":"n"}`))
	f.Add("cairn.v1.name.x", []byte(`{"name_bytes":"/w=="}`))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		if _, err := cluster.DecodeName(subject, data); err != nil && !errors.Is(err, cluster.ErrNameData) {
			t.Fatalf("error %v does not wrap ErrNameData", err)
		}
	})
}
