package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/tier"
)

const space = "default"

func setName(ctx context.Context, n *Node, name, value string, o NameOptions) (old *Loan, err error) {
	in, err := n.Reserve(ctx, len(value))
	if err != nil {
		return nil, err
	}
	copy(in.Bytes(), value)
	return n.SetName(ctx, space, []byte(name), in, o)
}

func mustSet(t *testing.T, n *Node, name, value string) {
	t.Helper()
	if _, err := setName(t.Context(), n, name, value, NameOptions{}); err != nil {
		t.Fatalf("set %s at %s: %v", name, n.ID(), err)
	}
}

// getName returns the value of a name, or "(none)".
func getName(t *testing.T, n *Node, name string) string {
	t.Helper()
	loan, err := n.ReadName(t.Context(), space, []byte(name))
	if errors.Is(err, tier.ErrNotFound) {
		return "(none)"
	}
	if err != nil {
		t.Fatalf("get %s at %s: %v", name, n.ID(), err)
	}
	defer loan.Release()
	return string(loan.Bytes)
}

func wantName(t *testing.T, n *Node, name, value string) {
	t.Helper()
	if got := getName(t, n, name); got != value {
		t.Errorf("%s at %s is %.40q, want %.40q", name, n.ID(), got, value)
	}
}

// namedObjects counts the objects of names that a node holds.
func namedObjects(n *Node) int { return int(n.dir.blocks.Load() - n.dir.sealed.Load()) }

func TestNameIsOneInTheCluster(t *testing.T) {
	c := newMemCluster()
	var nodes []*Node
	for i := range 3 {
		n, _ := c.join(t, fmt.Sprintf("n%d", i), testTiers{host: 4 << 20}.open(t), nil)
		nodes = append(nodes, n)
	}
	for round := range 6 {
		value := strings.Repeat(strconv.Itoa(round), 100<<10)
		mustSet(t, nodes[round%3], "k", value)
		for _, n := range nodes {
			wantName(t, n, "k", value)
		}
		held := 0
		for _, n := range nodes {
			held += namedObjects(n)
		}
		if held != 1 {
			t.Errorf("round %d: %d versions are held, want the newest alone", round, held)
		}
	}
	if was, err := nodes[1].DeleteName(t.Context(), space, []byte("k")); !was || err != nil {
		t.Errorf("delete: %v, %v", was, err)
	}
	for _, n := range nodes {
		wantName(t, n, "k", "(none)")
		if namedObjects(n) != 0 {
			t.Errorf("%s holds bytes of a deleted name", n.ID())
		}
	}
	if was, err := nodes[1].DeleteName(t.Context(), space, []byte("k")); was || err != nil {
		t.Errorf("delete again: %v, %v", was, err)
	}
	mustSet(t, nodes[0], "k", "back")
	wantName(t, nodes[2], "k", "back")
}

func TestOneOfManyFindsTheNameAbsent(t *testing.T) {
	log := newSlowLog()
	var nodes []*Node
	for i := range 3 {
		n, r := log.join(t, fmt.Sprintf("n%d", i))
		r.setBlind(true) // the index trails the log: the worst case
		nodes = append(nodes, n)
	}
	for round := range 10 {
		name := fmt.Sprintf("lock%d", round)
		var won, lost atomic.Int64
		var winner atomic.Value
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				value := fmt.Sprintf("owner%d", i)
				_, err := setName(t.Context(), nodes[i%3], name, value, NameOptions{If: IfAbsent})
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(value)
				case errors.Is(err, ErrCondition):
					lost.Add(1)
				default:
					t.Errorf("%s: %v", value, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != 31 {
			t.Fatalf("%d won, %d lost", won.Load(), lost.Load())
		}
		for _, n := range nodes {
			wantName(t, n, name, winner.Load().(string))
		}
	}
	total := 0
	for _, n := range nodes {
		total += namedObjects(n)
	}
	if total != 10 {
		t.Errorf("%d objects are held for 10 names: losers left theirs", total)
	}
}

// While a node knows of a name but not yet of its bytes, conditions, EXISTS and
// DEL ask the writer.
func TestNameIsPresentBeforeItsPlacementIsKnown(t *testing.T) {
	log := newSlowLog()
	n1, _ := log.join(t, "n1")
	n2, r2 := log.join(t, "n2")
	r2.setBlind(true)
	mustSet(t, n1, "k", "v")
	if _, ok := n2.HasName(t.Context(), space, []byte("k")); !ok {
		t.Error("the name counts as absent")
	}
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfAbsent}); !errors.Is(err, ErrCondition) {
		t.Errorf("set if absent: %v", err)
	}
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfPresent}); err != nil {
		t.Errorf("set if present: %v", err)
	}
	wantName(t, n1, "k", "w")
	if was, err := n1.DeleteName(t.Context(), space, []byte("k")); !was || err != nil {
		t.Errorf("delete: %v, %v", was, err)
	}
	// With its bytes evicted the name counts as absent.
	mustSet(t, n1, "k", "v")
	s, _ := n1.LookupName(space, []byte("k"))
	n1.Remove(s.Object)
	if _, ok := n2.HasName(t.Context(), space, []byte("k")); ok {
		t.Error("a name without bytes counts as present")
	}
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfPresent}); !errors.Is(err, ErrCondition) {
		t.Errorf("set if present, without bytes: %v", err)
	}
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfAbsent}); err != nil {
		t.Errorf("set if absent, without bytes: %v", err)
	}
}

func TestUnreachableWriterCountsAsHavingTheName(t *testing.T) {
	log := newSlowLog()
	n1, _ := log.join(t, "n1")
	n2, r2 := log.join(t, "n2")
	mustSet(t, n1, "k", "v")
	r2.setBlind(true)
	log.c.mu.Lock()
	log.c.nodes["n1"].addr = "127.0.0.1:1" // nobody answers there
	log.c.mu.Unlock()
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfAbsent}); !errors.Is(err, ErrCondition) {
		t.Errorf("set if absent: %v", err)
	}
	log.leave("n1")
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfAbsent}); err != nil {
		t.Errorf("with the writer gone for good: %v", err)
	}
}

// A node that has not yet applied a change finds the bytes gone at their writer:
// it waits for the change and reads the newer ones.
func TestReadFollowsTheName(t *testing.T) {
	log := newSlowLog()
	n1, _ := log.join(t, "n1")
	n2, r2 := log.join(t, "n2")
	for i := range 3 {
		mustSet(t, n1, fmt.Sprint("k", i), "old")
	}
	mustSet(t, n1, "deleted", "old")
	r2.hold()
	for i := range 3 {
		mustSet(t, n1, fmt.Sprint("k", i), "new")
	}
	if _, err := n1.DeleteName(t.Context(), space, []byte("deleted")); err != nil {
		t.Fatal(err)
	}
	s := &session{n: n2, namespace: Namespace{Name: space}}
	read := make(chan []*Loan)
	go func() {
		read <- s.readWindow(t.Context(), [][]byte{[]byte("k0"), []byte("none"), []byte("k1"), []byte("deleted"), []byte("k2")})
	}()
	for range 5 { // the fetch asks where each writer is; then the questions begin
		if id := <-r2.asks; id != "n1" {
			t.Errorf("asked for %s", id)
		}
	}
	r2.release()
	var got []string
	for _, l := range <-read {
		if l == nil {
			got = append(got, "-")
			continue
		}
		got = append(got, string(l.Bytes))
		l.Release()
	}
	if want := []string{"new", "-", "new", "-", "new"}; !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

// Readers at both nodes find a value that is overwritten all the time, and never
// an older one than before.
func TestReadersNeverMissWhileANameIsOverwritten(t *testing.T) {
	c := newMemCluster()
	n1, addr1 := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, addr2 := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
	const versions = 400
	mustSet(t, n1, "k", "0")
	stop := make(chan struct{})
	var reads atomic.Int64
	var wg sync.WaitGroup
	for _, n := range []*Node{n1, n2} {
		wg.Go(func() {
			last := 0
			for {
				select {
				case <-stop:
					return
				default:
				}
				value := getName(t, n, "k")
				version, err := strconv.Atoi(value)
				if err != nil || version < last {
					t.Errorf("%s read %q after version %d", n.ID(), value, last)
					return
				}
				last = version
				reads.Add(1)
			}
		})
	}
	writers := []*rawConn{dialRaw(t, addr1), dialRaw(t, addr2)}
	for i := 1; i <= versions; i++ {
		w := writers[i/10%2]
		w.send("SET", "k", strconv.Itoa(i))
		if got := w.reply(t); got[0] != "+OK" {
			t.Fatal(got)
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d reads of %d versions", reads.Load(), versions)
	wantName(t, n1, "k", strconv.Itoa(versions))
	wantName(t, n2, "k", strconv.Itoa(versions))
}

// Each of many swaps gets the value that another one put there: none is lost, and
// none is seen twice.
func TestSwapsFormAChain(t *testing.T) {
	log := newSlowLog()
	var nodes []*Node
	for i := range 2 {
		n, _ := log.join(t, fmt.Sprintf("n%d", i))
		nodes = append(nodes, n)
	}
	mustSet(t, nodes[0], "k", "first")
	const swaps = 32
	seen := make([]string, swaps)
	var wg sync.WaitGroup
	for i := range swaps {
		wg.Go(func() {
			old, err := setName(t.Context(), nodes[i%2], "k", fmt.Sprint("swap", i), NameOptions{Old: true})
			if err != nil || old == nil {
				t.Errorf("swap %d: %v, %v", i, old, err)
				return
			}
			defer old.Release()
			seen[i] = string(old.Bytes)
		})
	}
	wg.Wait()
	got := append(seen, getName(t, nodes[0], "k"))
	want := []string{"first"}
	for i := range swaps {
		want = append(want, fmt.Sprint("swap", i))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("values seen:\n%v\nwant\n%v", got, want)
	}
}

func TestOneOfManyTakesTheName(t *testing.T) {
	log := newSlowLog()
	var nodes []*Node
	for i := range 2 {
		n, _ := log.join(t, fmt.Sprintf("n%d", i))
		nodes = append(nodes, n)
	}
	mustSet(t, nodes[0], "job", "work")
	var took, missed atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			loan, err := nodes[i%2].TakeName(t.Context(), space, []byte("job"))
			switch {
			case err == nil:
				took.Add(1)
				if string(loan.Bytes) != "work" {
					t.Errorf("took %q", loan.Bytes)
				}
				loan.Release()
			case errors.Is(err, tier.ErrNotFound):
				missed.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took.Load() != 1 || missed.Load() != 15 {
		t.Errorf("%d took it, %d did not", took.Load(), missed.Load())
	}
}

// Conditional writers get in each other's way and all succeed in the end.
func TestConditionalWritersAllSucceed(t *testing.T) {
	log := newSlowLog()
	var nodes []*Node
	for i := range 2 {
		n, _ := log.join(t, fmt.Sprintf("n%d", i))
		nodes = append(nodes, n)
	}
	end := time.Now().Add(time.Hour).UnixMilli()
	if _, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{Expires: end}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if _, err := setName(t.Context(), nodes[i%2], "k", fmt.Sprint(i), NameOptions{If: IfPresent, KeepTTL: true}); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		if s, _ := n.LookupName(space, []byte("k")); s.Expires != end {
			t.Errorf("%s: the end is %d, want %d", n.ID(), s.Expires, end)
		}
	}
}

func TestLogThatRefusesLeavesNamesAsTheyAre(t *testing.T) {
	c := newMemCluster()
	n, addr := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	mustSet(t, n, "k", "v")
	refuse := func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refuse = err
	}
	refuse(errors.New("no leader"))
	conn := dialRaw(t, addr)
	for _, command := range []string{
		"SET k w", "SET k w XX", "SET other w NX", "SET k w GET", "GETSET k w", "SETEX k 10 w", "MSET k w other w",
		"DEL k", "DEL k k other", "GETDEL k", "EXPIRE k 10", "GETEX k EX 10",
	} {
		conn.send(strings.Fields(command)...)
		if got := conn.reply(t); !strings.HasPrefix(got[0], "-UNAVAILABLE ") || !strings.Contains(got[0], "no leader") {
			t.Errorf("%s: %q", command, got)
		}
	}
	wantName(t, n, "k", "v")
	wantName(t, n, "other", "(none)")
	if _, err := setName(t.Context(), n, "k", "w", NameOptions{}); !errors.Is(err, ErrNameLog) {
		t.Errorf("got %v, want ErrNameLog", err)
	}
	refuse(nil)
	mustSet(t, n, "k", "w")
	wantName(t, n, "k", "w")
}

func TestNameEnds(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
	end := time.Now().UnixMilli() + 2
	if _, err := setName(t.Context(), n1, "k", "v", NameOptions{Expires: end}); err != nil {
		t.Fatal(err)
	}
	for time.Now().UnixMilli() < end {
	}
	for _, n := range []*Node{n1, n2} {
		wantName(t, n, "k", "(none)")
		if _, ok := n.HasName(t.Context(), space, []byte("k")); ok {
			t.Errorf("%s: a name beyond its end is present", n.ID())
		}
	}
	if was, err := n2.DeleteName(t.Context(), space, []byte("k")); was || err != nil {
		t.Errorf("delete: %v, %v", was, err)
	}
	newSweeper(n2).sweep(t.Context(), time.Now())
	if n2.names.table.count() != 1 {
		t.Error("a node ended a name of another node's writing")
	}
	newSweeper(n1).sweep(t.Context(), time.Now())
	for _, n := range []*Node{n1, n2} {
		if n.names.table.count() != 0 || namedObjects(n) != 0 {
			t.Errorf("%s: %d names, %d objects after the sweep", n.ID(), n.names.table.count(), namedObjects(n))
		}
	}
	if _, err := setName(t.Context(), n2, "k", "w", NameOptions{If: IfAbsent}); err != nil {
		t.Errorf("set if absent after the end: %v", err)
	}
	wantName(t, n1, "k", "w")
}

func TestSweepEndsNamesWithoutBytes(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
	const names = 300 // more than a sweep ends at once
	for i := range names {
		mustSet(t, n1, fmt.Sprint("k", i), "v")
	}
	mustSet(t, n2, "theirs", "v")
	for i := range names - 1 {
		s, _ := n1.LookupName(space, []byte(fmt.Sprint("k", i)))
		n1.Remove(s.Object)
	}
	now := time.Now()
	newSweeper(n1).sweep(t.Context(), now)
	for _, n := range []*Node{n1, n2} {
		if got := n.names.table.count(); got != 2 {
			t.Errorf("%s: %d names are left, want 2", n.ID(), got)
		}
	}
	wantName(t, n2, fmt.Sprint("k", names-1), "v")
	if got := n1.counters.namesSwept.Load(); got != names-1 {
		t.Errorf("%d swept, want %d", got, names-1)
	}
	// Much later the traces go as well.
	newSweeper(n1).sweep(t.Context(), now.Add(tombstoneKeep+time.Minute))
	if left := len(allRefs(n1)); left != 2 {
		t.Errorf("%d entries are left, want 2", left)
	}
}

func allRefs(n *Node) (refs []nameRef) {
	for shard := range shards {
		refs = n.names.table.refs(shard, refs)
	}
	return refs
}

// The names of a node that never came back are ended by those that stay.
func TestSweepEndsNamesOfAnAbsentNode(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
	mustSet(t, n1, "k", "v")
	c.leave("n1")
	s, now := newSweeper(n2), time.Now()
	s.sweep(t.Context(), now)
	s.sweep(t.Context(), now.Add(absentKeep/2))
	if n2.names.table.count() != 1 {
		t.Error("ended while the writer may still come back")
	}
	s.sweep(t.Context(), now.Add(absentKeep+time.Minute))
	if n2.names.table.count() != 0 {
		t.Error("a name that has no bytes and no writer lives on")
	}
}

func TestSweepStopsWhenTheLogDoesNotAnswer(t *testing.T) {
	c := newMemCluster()
	n, _ := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	const names = 1000
	for i := range names {
		mustSet(t, n, fmt.Sprint("k", i), "v")
		s, _ := n.LookupName(space, []byte(fmt.Sprint("k", i)))
		n.Remove(s.Object)
	}
	c.mu.Lock()
	c.refuse = errors.New("no leader")
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		newSweeper(n).sweep(t.Context(), time.Now())
	}()
	<-done
	if got := n.names.table.count(); got != names {
		t.Errorf("%d names, want %d", got, names)
	}
}

// The log forgets a deleted name before the nodes do.
func TestNameIsFreeAfterItsTraceLeftTheLog(t *testing.T) {
	log := newSlowLog()
	n1, _ := log.join(t, "n1")
	mustSet(t, n1, "k", "v")
	if _, err := n1.DeleteName(t.Context(), space, []byte("k")); err != nil {
		t.Fatal(err)
	}
	log.forget(block.NamedKey(space, []byte("k"), 0))
	if _, err := setName(t.Context(), n1, "k", "w", NameOptions{If: IfAbsent}); err != nil {
		t.Errorf("set if absent: %v", err)
	}
	wantName(t, n1, "k", "w")
}

// A mark by which the log says that a name is gone carries only its key.
func TestNameAfterTheLogsOwnMark(t *testing.T) {
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	key := block.NamedKey(space, []byte("k"), 0)
	n.ApplyName(Name{Key: key, Expires: time.Now().UnixMilli(), Sequence: 0})
	n.ApplyName(Name{Key: block.NamedKey(space, []byte("other"), 0), Expires: 1, Sequence: 0})
	mustSet(t, n, "k", "v")
	wantName(t, n, "k", "v")
	conn := dialRaw(t, addr)
	conn.send("KEYS", "*")
	if got := conn.reply(t); !slices.Equal(got, []string{"*1", "$k"}) {
		t.Errorf("keys: %q", got)
	}
	if len(n.names.table.scan(shardOf(key))) == 0 {
		t.Error("the name is in no shard")
	}
}

// Of two changes by one node the answers of the log may come in either order.
func TestOlderChangeAppliedLateLeavesNothingBehind(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	key := block.NamedKey(space, []byte("k"), 0)
	object := func(version uint64) block.Key { return block.NamedKey(space, []byte("k"), version) }
	for v := uint64(1); v <= 2; v++ {
		if _, err := n.Put(t.Context(), object(v), block.Key{}, []byte{byte(v)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	state := func(v uint64) Name {
		return Name{Key: key, Namespace: space, Name: []byte("k"), Object: object(v), Length: 1, Writer: "n1", Sequence: v}
	}
	n.ApplyName(state(2))
	n.ApplyName(state(1))
	n.ApplyName(state(2))
	wantName(t, n, "k", "\x02")
	if n.Holds(object(1)) {
		t.Error("the older version is still held")
	}
}

func TestExpireSurvivesARace(t *testing.T) {
	log := newSlowLog()
	var nodes []*Node
	for i := range 2 {
		n, _ := log.join(t, fmt.Sprintf("n%d", i))
		nodes = append(nodes, n)
	}
	mustSet(t, nodes[0], "k", "v")
	const callers = 16
	base := time.Now().Add(time.Hour).UnixMilli()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			// Each adds one to the end: an update that is lost shows in the sum.
			changed, err := nodes[i%2].ExpireName(t.Context(), space, []byte("k"), func(old int64) (int64, bool) {
				return max(old, base) + 1, true
			})
			if !changed || err != nil {
				t.Errorf("caller %d: %v, %v", i, changed, err)
			}
		})
	}
	wg.Wait()
	if s, _ := nodes[0].LookupName(space, []byte("k")); s.Expires != base+callers {
		t.Errorf("the end is base%+d, want base+%d", s.Expires-base, callers)
	}
}

func TestNameTooLongIsRefused(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) { c.MaxName = 8 })
	if _, err := setName(t.Context(), n, "123456789", "v", NameOptions{}); !errors.Is(err, tier.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if used := n.stores[block.Host].Stats().Used; used != 0 {
		t.Errorf("%d bytes of the host tier are taken", used)
	}
}

// Values of every size are right after any order of writes at two nodes.
func TestNamesUnderLoad(t *testing.T) {
	c := newMemCluster()
	var nodes []*Node
	for i := range 2 {
		n, _ := c.join(t, fmt.Sprintf("n%d", i), testTiers{host: 1 << 20, disk: 64 << 20}.open(t), nil)
		nodes = append(nodes, n)
	}
	value := func(name, version int) []byte {
		return bytes.Repeat([]byte{byte(name), byte(version)}, 1+(name*7919+version)%(32<<10))
	}
	var wg sync.WaitGroup
	for w := range 4 { // each owns its names, so the newest version is known
		wg.Go(func() {
			for version := range 25 {
				for name := w; name < 16; name += 4 {
					mustSet(t, nodes[(name+version)%2], fmt.Sprint("k", name), string(value(name, version)))
					got := getName(t, nodes[(name+version+1)%2], fmt.Sprint("k", name))
					if got != string(value(name, version)) {
						t.Errorf("name %d version %d: %d bytes, want %d", name, version, len(got), len(value(name, version)))
					}
				}
			}
		})
	}
	wg.Wait()
}

// A state that a name has left while someone was looking at it does not stand for
// an absent name, although its bytes are gone.
func TestAStateLeftBehindIsNotAnAbsentName(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	var states []Name
	for _, v := range []string{"one", "two"} {
		if _, err := setName(t.Context(), n, "k", v, NameOptions{}); err != nil {
			t.Fatal(err)
		}
		s, _ := n.LookupName(space, []byte("k"))
		states = append(states, s)
	}
	if n.Known(states[0].Object) {
		t.Fatal("the first version's bytes are still there: the test shows nothing")
	}
	for i, s := range states {
		if !n.live(t.Context(), s, false) {
			t.Errorf("state %d counts as absent in a condition", i)
		}
		if !n.Present(t.Context(), []Name{s})[0] {
			t.Errorf("state %d counts as absent", i)
		}
	}
	if _, err := n.DeleteName(t.Context(), space, []byte("k")); err != nil {
		t.Fatal(err)
	}
	for i, s := range states {
		if n.live(t.Context(), s, false) || n.Present(t.Context(), []Name{s})[0] {
			t.Errorf("state %d counts as present after the deletion", i)
		}
	}
}

// The log may bring a state here before its writer has applied it. What the writer
// says then is about an older state, and no reason to take the name for absent.
func TestAWriterThatIsBehindIsNotAskedInVain(t *testing.T) {
	c := newMemCluster()
	c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), nil)
	s := Name{
		Key: block.NamedKey(space, []byte("k"), 0), Namespace: space, Name: []byte("k"),
		Object: block.NamedKey(space, []byte("k"), 1), Length: 1, Writer: "n1", Sequence: 5,
	}
	n2.ApplyName(s)
	if !n2.live(t.Context(), s, false) {
		t.Error("counts as absent in a condition: two writers could both win")
	}
	if !n2.Present(t.Context(), []Name{s})[0] {
		t.Error("counts as absent")
	}
}
