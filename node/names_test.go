package node

import (
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
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/resp"
	"cairn/tier"
)

const space = "default"

func setName(ctx context.Context, n *Node, name, value string, o NameOptions) (NameChange, error) {
	in, err := n.Reserve(ctx, len(value))
	if err != nil {
		return NameChange{}, err
	}
	copy(in.Bytes(), value)
	return n.SetName(ctx, space, []byte(name), in, o)
}

func mustSet(t testing.TB, n *Node, name, value string) NameChange {
	t.Helper()
	c, err := setName(t.Context(), n, name, value, NameOptions{})
	if err != nil {
		t.Fatalf("set %s at %s: %v", name, n.ID(), err)
	}
	return c
}

// getName returns the value of a name as a strict read finds it, or "(none)".
func getName(t testing.TB, n *Node, name string) string {
	t.Helper()
	value, _ := readAt(t, n, name, ReadOptions{Level: ReadStrict})
	return value
}

func readAt(t testing.TB, n *Node, name string, o ReadOptions) (string, NameState) {
	t.Helper()
	loan, s, err := n.ReadName(t.Context(), space, []byte(name), o)
	if errors.Is(err, tier.ErrNotFound) {
		return "(none)", s
	}
	if err != nil {
		t.Fatalf("get %s at %s: %v", name, n.ID(), err)
	}
	defer loan.Release()
	return string(loan.Bytes), s
}

func wantName(t testing.TB, n *Node, name, value string) {
	t.Helper()
	if got := getName(t, n, name); got != value {
		t.Errorf("%s at %s is %.40q, want %.40q", name, n.ID(), got, value)
	}
}

// namedObjects counts the objects of names that a node holds.
func namedObjects(n *Node) int { return int(n.dir.blocks.Load() - n.dir.sealed.Load()) }

// patient is a configuration of nodes where who waits for the log, or for a home, does not
// give up because the disk or the machine is slow.
func patient(c *Config) { c.NameWait = time.Minute }

// joinAll starts nodes n0, n1… with the same configuration, of which the change may be
// nil.
func joinAll(t testing.TB, c *memCluster, count int, tt testTiers, change func(*Config)) []*Node {
	t.Helper()
	var nodes []*Node
	for i := range count {
		n, _ := c.join(t, fmt.Sprintf("n%d", i), tt.open(t), func(c *Config) {
			patient(c)
			if change != nil {
				change(c)
			}
		})
		nodes = append(nodes, n)
	}
	await(t, nodes[0], func() bool { return nodes[0].Coherence().Members == count })
	return nodes
}

// await waits until a condition holds that follows from the log, or from time.
func await(t testing.TB, n *Node, done func() bool) {
	t.Helper()
	for {
		news := n.coherence.news.wait()
		if done() {
			return
		}
		select {
		case <-news:
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the test ended before the condition held")
		}
	}
}

var policiesOfNames = []coherency.WritePolicy{coherency.WriteBack, coherency.WriteThrough, coherency.WriteAll}

func TestNameIsOneInTheCluster(t *testing.T) {
	for _, policy := range policiesOfNames {
		t.Run(policy.String(), func(t *testing.T) {
			nodes := joinAll(t, newMemCluster(), 3, testTiers{host: 8 << 20, disk: 32 << 20}, nil)
			for round := range 6 {
				value := strings.Repeat(strconv.Itoa(round), 100<<10)
				if _, err := setName(t.Context(), nodes[round%3], "k", value, NameOptions{Policy: policy}); err != nil {
					t.Fatal(err)
				}
				for _, n := range nodes {
					wantName(t, n, "k", value)
				}
			}
			if c, err := nodes[1].DeleteName(t.Context(), space, []byte("k"), NameOptions{Policy: policy}); err != nil || c.Before.Value.Object.IsZero() {
				t.Errorf("delete: %+v, %v", c, err)
			}
			for _, n := range nodes {
				wantName(t, n, "k", "(none)")
			}
			if _, err := nodes[1].DeleteName(t.Context(), space, []byte("k"), NameOptions{Policy: policy}); !errors.Is(err, ErrCondition) {
				t.Errorf("delete again: %v", err)
			}
			for _, n := range nodes {
				await(t, n, func() bool { return namedObjects(n) == 0 })
			}
			mustSet(t, nodes[0], "k", "back")
			wantName(t, nodes[2], "k", "back")
		})
	}
}

func TestOneOfManyFindsTheNameAbsent(t *testing.T) {
	for _, policy := range policiesOfNames {
		t.Run(policy.String(), func(t *testing.T) {
			nodes := joinAll(t, newMemCluster(), 3, testTiers{host: 8 << 20}, nil)
			for round := range 5 {
				name := fmt.Sprintf("lock%d", round)
				var won, lost atomic.Int64
				var winner atomic.Value
				var wg sync.WaitGroup
				for i := range 24 {
					wg.Go(func() {
						value := fmt.Sprintf("owner%d", i)
						_, err := setName(t.Context(), nodes[i%3], name, value, NameOptions{If: ledger.Absent, Policy: policy})
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
				if won.Load() != 1 || lost.Load() != 23 {
					t.Fatalf("%d won, %d lost", won.Load(), lost.Load())
				}
				for _, n := range nodes {
					wantName(t, n, name, winner.Load().(string))
				}
			}
		})
	}
}

// A counter that many clients at all nodes increase by strict read and compare-and-set
// ends at the number of successes: no update is lost, none is seen twice.
func TestCountersAreLinearizable(t *testing.T) {
	for _, policy := range policiesOfNames {
		t.Run(policy.String(), func(t *testing.T) {
			nodes := joinAll(t, newMemCluster(), 3, testTiers{host: 8 << 20, disk: 32 << 20}, nil)
			const each = 8
			var wg sync.WaitGroup
			for i := range 9 {
				n := nodes[i%3]
				wg.Go(func() {
					for done := 0; done < each; {
						value, s := readAt(t, n, "counter", ReadOptions{Level: ReadStrict})
						v, _ := strconv.Atoi(value)
						_, err := setName(t.Context(), n, "counter", strconv.Itoa(v+1),
							NameOptions{If: ledger.Exactly, Expect: s.Version, Policy: policy})
						switch {
						case err == nil:
							done++
						case !errors.Is(err, ErrCondition):
							t.Errorf("%s: %v", n.ID(), err)
							return
						}
					}
				})
			}
			wg.Wait()
			for _, n := range nodes {
				wantName(t, n, "counter", strconv.Itoa(9*each))
			}
		})
	}
}

// The same with another policy for each write: owners are asked to give the name back, and
// what loses against them begins again with the bytes that it has, also at the home, where
// staged objects that lost are collected.
func TestCountersWithMixedPolicies(t *testing.T) {
	nodes := joinAll(t, newMemCluster(), 3, testTiers{host: 8 << 20, disk: 32 << 20}, nil)
	const each = 25
	var wg sync.WaitGroup
	for i := range 6 {
		n := nodes[i%3]
		wg.Go(func() {
			for done, tries := 0, i; done < each; tries++ {
				value, s := readAt(t, n, "counter", ReadOptions{Level: ReadStrict})
				v, _ := strconv.Atoi(value)
				_, err := setName(t.Context(), n, "counter", strconv.Itoa(v+1),
					NameOptions{If: ledger.Exactly, Expect: s.Version, Policy: policiesOfNames[tries%len(policiesOfNames)]})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, ErrCondition):
					t.Errorf("%s: %v", n.ID(), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if !t.Failed() {
		wantName(t, nodes[0], "counter", strconv.Itoa(6*each))
	}
}

// Each of many swaps gets the value that another one put there: none is lost, and
// none is seen twice.
func TestSwapsFormAChain(t *testing.T) {
	nodes := joinAll(t, newMemCluster(), 2, testTiers{host: 8 << 20}, nil)
	mustSet(t, nodes[0], "k", "first")
	const swaps = 32
	seen := make([]string, swaps)
	var wg sync.WaitGroup
	for i := range swaps {
		wg.Go(func() {
			c, err := setName(t.Context(), nodes[i%2], "k", fmt.Sprint("swap", i), NameOptions{Old: true})
			if err != nil || c.Old == nil {
				t.Errorf("swap %d: %v, %v", i, c.Old, err)
				return
			}
			defer c.Old.Release()
			seen[i] = string(c.Old.Bytes)
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
	nodes := joinAll(t, newMemCluster(), 2, testTiers{host: 8 << 20}, nil)
	mustSet(t, nodes[0], "job", "work")
	var took, missed atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			s := nodes[i%2].NewHandler(resp.ConnInfo{}).(*session)
			defer s.Close()
			s.namespace.Consistency = ReadStrict
			loan, err := s.takeName(t.Context(), []byte("job"))
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
	nodes := joinAll(t, newMemCluster(), 2, testTiers{host: 8 << 20}, nil)
	end := time.Now().Add(time.Hour).UnixMilli()
	if _, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{Expires: end}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if _, err := setName(t.Context(), nodes[i%2], "k", fmt.Sprint(i), NameOptions{If: ledger.Present, KeepTTL: true}); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		if _, s := readAt(t, n, "k", ReadOptions{Level: ReadStrict}); s.Value.Expires != end {
			t.Errorf("%s: the end is %d, want %d", n.ID(), s.Value.Expires, end)
		}
	}
}

// Readers at both nodes find a value that is overwritten all the time, and never
// an older one than before.
func TestReadersNeverMissWhileANameIsOverwritten(t *testing.T) {
	for _, policy := range policiesOfNames[:2] {
		t.Run(policy.String(), func(t *testing.T) {
			c := newMemCluster()
			nodes := joinAll(t, c, 2, testTiers{host: 8 << 20}, nil)
			versions := 300
			if _, err := setName(t.Context(), nodes[0], "k", "0", NameOptions{Policy: policy}); err != nil {
				t.Fatal(err)
			}
			getName(t, nodes[1], "k")
			stop := make(chan struct{})
			var reads atomic.Int64
			var wg sync.WaitGroup
			for i, level := range []ReadLevel{ReadSession, ReadSession, ReadStrict, ReadStrict} {
				n := nodes[i%2]
				wg.Go(func() {
					last := 0
					o := ReadOptions{Level: level}
					for {
						select {
						case <-stop:
							return
						default:
						}
						value, s := readAt(t, n, "k", o)
						o.Session = s.Sequence
						version, err := strconv.Atoi(value)
						if err != nil || version < last {
							t.Errorf("%s, %s read %q after version %d", n.ID(), level, value, last)
							return
						}
						last = version
						reads.Add(1)
					}
				})
			}
			for i := 1; i <= versions; i++ {
				if _, err := setName(t.Context(), nodes[i/10%2], "k", strconv.Itoa(i), NameOptions{Policy: policy}); err != nil {
					t.Error(err)
				}
			}
			close(stop)
			wg.Wait()
			t.Logf("%d reads of %d versions", reads.Load(), versions)
			for _, n := range nodes {
				wantName(t, n, "k", strconv.Itoa(versions))
			}
		})
	}
}

func TestNameEnds(t *testing.T) {
	nodes := joinAll(t, newMemCluster(), 2, testTiers{host: 8 << 20}, nil)
	end := time.Now().UnixMilli() + 2
	if _, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{Expires: end}); err != nil {
		t.Fatal(err)
	}
	for time.Now().UnixMilli() < end {
	}
	for _, n := range nodes {
		wantName(t, n, "k", "(none)")
		if _, err := n.DeleteName(t.Context(), space, []byte("k"), NameOptions{}); !errors.Is(err, ErrCondition) {
			t.Errorf("%s: delete: %v", n.ID(), err)
		}
	}
	await(t, nodes[0], func() bool {
		for _, n := range nodes {
			n.sweep(t.Context())
		}
		return nodes[0].coherence.live("")+nodes[1].coherence.live("")+namedObjects(nodes[0])+namedObjects(nodes[1]) == 0
	})
	if got := nodes[0].coherence.counters.expired.Load() + nodes[1].coherence.counters.expired.Load(); got != 1 {
		t.Errorf("ended %d times", got)
	}
	if _, err := setName(t.Context(), nodes[1], "k", "w", NameOptions{If: ledger.Absent}); err != nil {
		t.Errorf("set if absent after the end: %v", err)
	}
	wantName(t, nodes[0], "k", "w")
}

func TestExpireSurvivesARace(t *testing.T) {
	for _, policy := range policiesOfNames[:2] {
		t.Run(policy.String(), func(t *testing.T) {
			nodes := joinAll(t, newMemCluster(), 2, testTiers{host: 8 << 20}, nil)
			if _, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{Policy: policy}); err != nil {
				t.Fatal(err)
			}
			getName(t, nodes[1], "k") // so that it has applied the name
			const callers = 16
			base := time.Now().Add(time.Hour).UnixMilli()
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					// Each adds one to the end: an update that is lost shows in the sum.
					_, changed, err := nodes[i%2].ExpireName(t.Context(), space, []byte("k"), policy, func(old int64) (int64, bool) {
						return max(old, base) + 1, true
					})
					if !changed || err != nil {
						t.Errorf("caller %d: %v, %v", i, changed, err)
					}
				})
			}
			wg.Wait()
			for _, n := range nodes {
				if value, s := readAt(t, n, "k", ReadOptions{Level: ReadStrict}); s.Value.Expires != base+callers || value != "v" {
					t.Errorf("the end is base%+d, want base+%d; the value is %q", s.Value.Expires-base, callers, value)
				}
			}
		})
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

// Values of every size are right after any order of writes at two nodes whose host
// tiers are small.
func TestNamesUnderLoad(t *testing.T) {
	nodes := joinAll(t, newMemCluster(), 2, testTiers{host: 2 << 20, disk: 64 << 20}, nil)
	value := func(name, version int) string {
		return strings.Repeat(string([]byte{byte(name), byte(version)}), 1+(name*7919+version)%(32<<10))
	}
	var wg sync.WaitGroup
	for w := range 4 { // each owns its names, so the newest version is known
		wg.Go(func() {
			for version := range 15 {
				for name := w; name < 16; name += 4 {
					policy := policiesOfNames[(name+version)%3]
					_, err := setName(t.Context(), nodes[(name+version)%2], fmt.Sprint("k", name), value(name, version), NameOptions{Policy: policy})
					if err != nil {
						t.Errorf("name %d version %d: %s at %s: %v", name, version, policy, nodes[(name+version)%2].ID(), err)
						continue
					}
					got := getName(t, nodes[(name+version+1)%2], fmt.Sprint("k", name))
					if got != value(name, version) {
						t.Errorf("name %d version %d: %d bytes, want %d", name, version, len(got), len(value(name, version)))
					}
				}
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		checkDirectory(t, n)
	}
}

// A session that moves to another node sees there what it has seen here.
func TestSessionMoves(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, testTiers{host: 8 << 20}, nil)
	reader := c.nodes["n1"].reader
	reader.hold()
	change, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{Policy: coherency.WriteThrough})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := readAt(t, nodes[1], "k", ReadOptions{Level: ReadLocal}); got != "(none)" {
		t.Errorf("a node that has not applied the write has %q", got)
	}
	if got, _ := readAt(t, nodes[1], "k", ReadOptions{}); got != "(none)" {
		t.Errorf("without a session: %q", got)
	}
	read := make(chan string)
	go func() {
		got, _ := readAt(t, nodes[1], "k", ReadOptions{Session: change.Sequence})
		read <- got
	}()
	select {
	case got := <-read:
		t.Errorf("read %q before the log was applied", got)
	default:
	}
	reader.release()
	if got := <-read; got != "v" {
		t.Errorf("read %q", got)
	}
}
