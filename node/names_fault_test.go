package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
)

// quick is a configuration of nodes that soon do what a death asks for. That a node is dead
// the test says, by bury: a lease that is short enough to wait for its end may also end
// while the machine is busy, and with it what the node owns.
func quick(c *Config) {
	c.Lease, c.Renew = time.Hour, 100*time.Millisecond
	c.RevokeAfter, c.RehomeAfter = 100*time.Millisecond, 500*time.Millisecond
	c.FlushAfter = time.Hour // not before somebody asks
	c.IdleAfter = time.Hour
	patient(c)
}

// bury ends the membership of a node, as members do that have not heard of it for a lease, and
// returns when the survivors know.
func (c *memCluster) bury(t testing.TB, id string, survivors ...*Node) {
	t.Helper()
	incarnation, _ := survivors[0].coherence.joined(id)
	c.log.publish("undertaker", &ledger.Message{
		Node: "undertaker", Incarnation: uint64(time.Now().UnixNano()), Number: 1,
		Records: []ledger.Record{
			{Kind: ledger.Join},
			{Kind: ledger.Expire, Member: id, Incarnation: incarnation, Sequence: 1 << 40},
			{Kind: ledger.Leave},
		},
	})
	for _, n := range survivors {
		await(t, n, func() bool { _, live := n.coherence.joined(id); return !live })
	}
}

func withSpace(s Namespace, change func(*Config)) func(*Config) {
	return func(c *Config) {
		s.Name = space
		c.Namespaces = []Namespace{s}
		if change != nil {
			change(c)
		}
	}
}

var onDisk = testTiers{host: 8 << 20, disk: 32 << 20}

// nameAt is a name whose home the node will be.
func nameAt(t testing.TB, n *Node, policy coherency.WritePolicy) string {
	t.Helper()
	for i := range 1000 {
		name := fmt.Sprint("name", i)
		c, err := setName(t.Context(), n, name, "v", NameOptions{Policy: coherency.WriteThrough})
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := n.coherence.member(c.After.Value.Homes[0]); m.ID == n.ID() {
			return name
		}
	}
	t.Fatal("the node is never a home")
	return ""
}

// What an owner had acknowledged and not flushed is lost with it, and every node says
// so; what was flushed is not.
func TestOwnersDeathIsADeclaredLoss(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 3, onDisk, withSpace(Namespace{Homes: 2}, quick))
	mustSet(t, nodes[0], "k", "flushed")
	if _, err := nodes[1].Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	flushed := nodes[0].Coherence()
	if flushed.Owned != 1 || flushed.Dirty != 0 {
		t.Errorf("after the barrier: %+v", flushed)
	}
	before := mustSet(t, nodes[0], "k", "lost").After
	wantName(t, nodes[1], "k", "lost") // the owner is asked
	if s, _ := nodes[0].ExplainName(space, []byte("k")); s.Dirty != uint64(before.Version) || s.Owner != "n0" || !s.OwnerAlive {
		t.Errorf("explained as %+v", s)
	}
	survivors := nodes[1:]
	c.crash("n0")
	c.bury(t, "n0", survivors...)
	for _, n := range survivors {
		value, s := readAt(t, n, "k", ReadOptions{Level: ReadStrict})
		if value != "flushed" && value != "lost" {
			t.Errorf("%s reads %q", n.ID(), value)
		}
		if s.Version <= before.Version {
			t.Errorf("%s: version %d is not newer than the lost one, %d", n.ID(), s.Version, before.Version)
		}
		await(t, n, func() bool { return n.Coherence().LossesSeen == 1 })
	}
	// Of the homes of the flushed version only the dead node's is gone.
	mustSet(t, survivors[0], "k", "goes on")
	wantName(t, survivors[1], "k", "goes on")
}

// A replicated write-back write survives its owner.
func TestReplicatedWriteSurvivesItsOwner(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 3, onDisk, withSpace(Namespace{Copies: 2, Homes: 2}, quick))
	for i := range 20 {
		mustSet(t, nodes[0], "k", fmt.Sprint("v", i))
	}
	if s := nodes[0].Coherence(); s.Dirty != 1 {
		t.Errorf("flushed already: %+v", s)
	}
	c.crash("n0")
	c.bury(t, "n0", nodes[1:]...)
	for _, n := range nodes[1:] {
		wantName(t, n, "k", "v19")
		if s := n.Coherence(); s.LossesSeen != 0 {
			t.Errorf("%s declared a loss", n.ID())
		}
	}
	mustSet(t, nodes[1], "k", "goes on")
	wantName(t, nodes[2], "k", "goes on")
	// What was staged on the way is collected.
	for _, n := range nodes[1:] {
		await(t, n, func() bool { return namedObjects(n) <= 2 })
	}
}

// A node that is cut off from the log stops strict service within a lease, and its
// unflushed write does not come back when another took the name meanwhile.
func TestCutOffOwner(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, onDisk, func(c *Config) {
		quick(c)
		c.RevokeAfter = time.Hour // an owner that was away for a moment gets its time
		if c.ID == "n0" {
			c.Lease = 500 * time.Millisecond
		}
	})
	for incarnation := uint64(0); ; c.log.connect("n0") {
		await(t, nodes[0], func() bool {
			s := nodes[0].Coherence()
			incarnation = s.Incarnation
			return s.Serving
		})
		mustSet(t, nodes[0], "k", "old")
		if _, err := nodes[0].Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSet(t, nodes[0], "k", "unflushed")
		c.log.disconnect("n0")
		if s := nodes[0].Coherence(); s.Incarnation == incarnation && s.Dirty == 1 {
			break // else the lease has ended before, and a flush may be in the log
		}
	}
	await(t, nodes[0], func() bool { return !nodes[0].Coherence().Serving })
	in, err := nodes[0].Reserve(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if loan, _, err := nodes[0].ReadName(ctx, space, []byte("k"), ReadOptions{Level: ReadStrict}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("strict read at a node without a lease: %v, %v", loan, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := nodes[0].SetName(ctx, space, []byte("k"), in, NameOptions{}); !errors.Is(err, protocol.ErrUnknown) {
		t.Errorf("write at a node without a lease: %v", err)
	}
	c.bury(t, "n0", nodes[1])
	setThrough(t, nodes[1], "k", "new")
	c.log.connect("n0")
	wantName(t, nodes[0], "k", "new")
	await(t, nodes[0], func() bool { return nodes[0].Coherence().LossesSeen == 1 && nodes[0].Coherence().Serving })
	mustSet(t, nodes[0], "k", "newer")
	wantName(t, nodes[1], "k", "newer")
}

func TestBytesThatCannotBeReached(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, onDisk, func(c *Config) { quick(c); c.FlushAfter = 20 * time.Millisecond })
	name := nameAt(t, nodes[0], coherency.WriteThrough)
	await(t, nodes[1], func() bool { return nodes[1].coherence.applied.Load() >= nodes[0].coherence.applied.Load() })
	c.crash("n0")
	c.bury(t, "n0", nodes[1])
	for _, level := range []ReadLevel{ReadSession, ReadStrict, ReadLocal} {
		if _, _, err := nodes[1].ReadName(t.Context(), space, []byte(name), ReadOptions{Level: level}); !errors.Is(err, ErrBytesUnreachable) {
			t.Errorf("%s: %v", level, err)
		}
	}
	mustSet(t, nodes[1], name, "new bytes")
	wantName(t, nodes[1], name, "new bytes")
}

// A home takes what is staged there although its host tier has no slot left: else two
// nodes could wait for each other for ever.
func TestHomeWithoutASlot(t *testing.T) {
	nodes := joinAll(t, newMemCluster(), 2, onDisk, nil)
	name := nameAt(t, nodes[1], coherency.WriteThrough)
	for _, size := range []int{100, testBlock} {
		var held []*Incoming
		for _, class := range []int{1 << 20, testBlock, 4 << 10} {
			for {
				in, err := nodes[1].tryReserve(t.Context(), class)
				if err != nil {
					break
				}
				held = append(held, in)
			}
		}
		value := string(content(1, size))
		change, err := setName(t.Context(), nodes[0], name, value, NameOptions{Policy: coherency.WriteThrough})
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		await(t, nodes[1], func() bool { return nodes[1].coherence.applied.Load() >= change.Sequence })
		if s, _ := nodes[1].ExplainName(space, []byte(name)); !slices.Equal(s.Here, []block.Tier{block.Disk}) {
			t.Errorf("%d bytes are in %v, want the disk alone", size, s.Here)
		}
		for _, in := range held {
			in.Abort()
		}
		wantName(t, nodes[1], name, value)
	}
	checkDirectory(t, nodes[1])
}

// A write-through of a name that another node writes all the time by write-back takes
// its turn.
func TestWriteThroughAgainstAHotOwner(t *testing.T) {
	nodes := joinAll(t, newMemCluster(), 2, onDisk, nil)
	mustSet(t, nodes[0], "k", "first")
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := setName(t.Context(), nodes[0], "k", "hot", NameOptions{Policy: coherency.WriteBack}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const writes = 20
	for i := range writes {
		if _, err := setName(t.Context(), nodes[1], "k", fmt.Sprint("cold", i), NameOptions{Policy: coherency.WriteThrough}); err != nil {
			t.Error(err)
		}
	}
	cancel()
	writers.Wait()
	if again := nodes[1].Coherence().Conflicts; again > writes/4 {
		t.Errorf("%d writes were overtaken %d times", writes, again)
	}
}

// A home that is a member by the log, and not yet one by what the cluster shows of its
// members, is waited for.
func TestHomeThatHasJustJoined(t *testing.T) {
	c := newMemCluster()
	c.unseen["n1"] = 3
	nodes := joinAll(t, c, 2, onDisk, withSpace(Namespace{Homes: 2}, nil))
	await(t, nodes[0], func() bool { _, live := nodes[0].coherence.joined("n1"); return live })
	change, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{Policy: coherency.WriteThrough})
	if err != nil || change.After.Value.Homes.Count() != 2 {
		t.Errorf("%v, %v", change.After.Value.Homes, err)
	}
	// One that was there and is gone is not waited for.
	c.mu.Lock()
	c.unseen["n1"] = 1
	c.mu.Unlock()
	if _, err := setName(t.Context(), nodes[0], "k", "v2", NameOptions{Policy: coherency.WriteThrough}); !errors.Is(err, protocol.ErrStage) {
		t.Errorf("a home that has gone: %v", err)
	}
}

func TestTwoHomes(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 3, onDisk, withSpace(Namespace{Homes: 2, Policy: coherency.WriteThrough}, quick))
	const names = 20
	for i := range names {
		change, err := setName(t.Context(), nodes[i%3], fmt.Sprint("k", i), fmt.Sprint("v", i), NameOptions{Policy: coherency.WriteThrough})
		if err != nil {
			t.Fatal(err)
		}
		homes := change.After.Value.Homes
		if homes.Count() != 2 {
			t.Errorf("homes %v", homes)
		}
		for _, n := range nodes {
			e, ok := n.dir.get(change.After.Value.Object)
			if homes.Has(uint16(n.coherence.number.Load())) && (!ok || !e.state.Durable()) {
				t.Errorf("acknowledged, and not durable at its home %s", n.ID())
			}
		}
	}
	c.crash("n0")
	c.bury(t, "n0", nodes[1:]...)
	for _, n := range nodes[1:] {
		for i := range names {
			wantName(t, n, fmt.Sprint("k", i), fmt.Sprint("v", i))
		}
	}
	// In time every object has two homes again.
	await(t, nodes[1], func() bool {
		for i := range names {
			s, _ := nodes[1].ExplainName(space, []byte(fmt.Sprint("k", i)))
			if len(s.Homes) != 2 || s.Homes[0] == "n0" || s.Homes[1] == "n0" {
				return false
			}
		}
		return true
	})
	if nodes[1].Coherence().Rehomed+nodes[2].Coherence().Rehomed == 0 {
		t.Error("nothing was copied")
	}
	await(t, nodes[2], func() bool { return nodes[2].coherence.applied.Load() >= nodes[1].coherence.applied.Load() })
	c.crash("n1")
	for i := range names {
		value, _ := readAt(t, nodes[2], fmt.Sprint("k", i), ReadOptions{Level: ReadLocal})
		if value != fmt.Sprint("v", i) {
			t.Errorf("k%d is %q with its other home gone", i, value)
		}
	}
}

// What was written while too few nodes could be its homes gets another one when there is
// one.
func TestSecondHomeComesLater(t *testing.T) {
	c := newMemCluster()
	change := withSpace(Namespace{Homes: 2, Policy: coherency.WriteThrough}, func(c *Config) {
		quick(c)
		c.Lease = 500 * time.Millisecond // twice that is waited for what was staged before the second one came
	})
	first, _ := c.join(t, "n0", onDisk.open(t), change)
	set, err := setName(t.Context(), first, "k", "v", NameOptions{Policy: coherency.WriteThrough})
	if err != nil || set.After.Value.Homes.Count() != 1 {
		t.Fatalf("%v, %v", set.After.Value.Homes, err)
	}
	second, _ := c.join(t, "n1", onDisk.open(t), change)
	await(t, second, func() bool {
		s, _ := second.ExplainName(space, []byte("k"))
		return len(s.Homes) == 2
	})
	if e, ok := second.dir.get(set.After.Value.Object); !ok || !e.state.Durable() {
		t.Error("the second home does not have the object")
	}
}

// A home that starts again still has what it held, gives back what it must not keep,
// and knows what was staged there and not decided.
func TestRestartOfAHome(t *testing.T) {
	c := newMemCluster()
	dir := t.TempDir()
	tt := testTiers{host: 8 << 20, disk: 32 << 20, dir: dir}
	tiers := tt.open(t)
	n, _ := c.join(t, "n0", tiers, quick)
	const names = 30
	for i := range names {
		if _, err := setName(t.Context(), n, fmt.Sprint("k", i), fmt.Sprint("v", i), NameOptions{Policy: coherency.WriteThrough}); err != nil {
			t.Fatal(err)
		}
	}
	// One object is staged for a write that nobody will publish, and one is left over.
	stray := block.NamedKey(space, []byte("stray"), 7)
	author := stageAuthor{node: "gone", incarnation: 3}
	for i, staged := range []bool{true, false} {
		object := block.NamedKey(space, []byte{byte(i)}, 1)
		if !staged {
			object = stray
		}
		in, err := n.Reserve(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		copy(in.Bytes(), "bytes")
		d := block.Describe(object, block.Key{}, in.Bytes())
		if err := in.keep(d); err != nil {
			t.Fatal(err)
		}
		w := stagedWrite{Key: block.NamedKey(space, []byte("other"), 0), Token: 1 << 40, Version: 1<<40 + 1,
			Value: ledger.Value{Object: object, Length: 5, Sum: d.Sum}}
		if errs := n.coherence.homed.store(t.Context(), author, []stagedWrite{w}, nil); errs[0] != nil {
			t.Fatal(errs[0])
		}
		if !staged {
			n.coherence.homed.decided(object)
			await(t, n, func() bool { return len(n.coherence.dropper.pending()) == 0 })
		}
	}
	c.crash("n0")
	if err := errors.Join(tiers.Disk.Close(), tiers.Host.Close()); err != nil {
		t.Fatal(err)
	}
	n, _ = c.join(t, "n0", tt.open(t), quick)
	if got := n.coherence.homed.undecided(); got != 1 {
		t.Errorf("%d objects are staged here, want 1", got)
	}
	if w, ok := n.coherence.homed.newest(block.NamedKey(space, []byte("other"), 0), 1<<40); !ok || w.Version != 1<<40+1 {
		t.Errorf("what was staged is forgotten: %+v", w)
	}
	for i := range names {
		wantName(t, n, fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	await(t, n, func() bool { return !n.Holds(stray) })
	await(t, n, func() bool { return namedObjects(n) == names+1 })
	mustSet(t, n, "k0", "after")
	wantName(t, n, "k0", "after")
}

// A node that starts from a snapshot, and what came after it, knows what the others
// know.
func TestStartFromASnapshot(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, onDisk, nil)
	for i := range 50 {
		mustSet(t, nodes[i%2], fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	if _, err := nodes[0].Clear(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		mustSet(t, nodes[i%2], fmt.Sprint("k", i), fmt.Sprint("w", i))
	}
	var b bytes.Buffer
	var sequence uint64
	nodes[0].coherence.call(func(m *protocol.Machine) {
		sequence = m.Ledger().Sequence()
		if err := m.Ledger().Snapshot(&b); err != nil {
			t.Error(err)
		}
	})
	c.log.save(sequence, b.Bytes())
	mustSet(t, nodes[0], "k0", "tail")
	late, _ := c.join(t, "late", onDisk.open(t), patient)
	wantName(t, late, "k0", "tail")
	for i := 1; i < 20; i++ {
		wantName(t, late, fmt.Sprint("k", i), fmt.Sprint("w", i))
	}
	wantName(t, late, "k40", "(none)")
	await(t, late, func() bool {
		a, b := nodes[0].Coherence(), late.Coherence()
		return a.Applied == b.Applied && a.Digest == b.Digest && a.Names == b.Names
	})
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	p := port{newMemCluster(), "n1"}
	p.c.nodes["n1"] = &member{}
	n, err := New(Config{ID: "n1"}, testTiers{host: 4 << 20}.open(t), Ports{p, p, p, p})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.LogHandler().Restore(5, bytes.NewReader([]byte("CAIRNCOH nonsense that is long enough"))); !errors.Is(err, ledger.ErrFormat) {
		t.Errorf("got %v", err)
	}
}

// A log that cannot be trusted any more ends strict service, and says so.
func TestRegressedLog(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) { c.CloseWait = time.Second })
	mustSet(t, n, "k", "v")
	n.LogHandler().Regressed(errors.New("it is shorter than before"))
	if _, _, err := n.ReadName(t.Context(), space, []byte("k"), ReadOptions{Level: ReadStrict}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("strict read: %v", err)
	}
	if s := n.Coherence(); s.Serving || s.Alarm == "" {
		t.Errorf("status %+v", s)
	}
	if value, _ := readAt(t, n, "k", ReadOptions{Level: ReadLocal}); value != "v" {
		t.Errorf("local read: %q", value)
	}
	n.coherence.leaving.Store(true) // it cannot leave what it cannot trust
}

// A write that proposes while the block gets an owner tries again, with another object,
// once the owner has given it back.
func TestOvertakenWriteTriesAgain(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, onDisk, func(c *Config) {
		quick(c)
		c.Renew = 10 * time.Minute // the messages of who reads nothing stay on their way, and there may be few
	})
	setThrough(t, nodes[0], "k", "first")
	getName(t, nodes[1], "k")
	reader := c.nodes["n1"].reader
	reader.hold() // n1 does not see that n0 becomes the owner
	mustSet(t, nodes[0], "k", "owner's")
	proposed := func() bool {
		c.log.mu.Lock()
		defer c.log.mu.Unlock()
		return slices.ContainsFunc(c.log.messages, func(data []byte) bool {
			var m ledger.Message
			err := ledger.Decode(data, &m)
			return err == nil && m.Node == "n1" && slices.ContainsFunc(m.Records, func(r ledger.Record) bool { return r.Kind == ledger.Commit })
		})
	}
	done := make(chan error)
	go func() {
		_, err := setName(t.Context(), nodes[1], "k", "other's", NameOptions{Policy: coherency.WriteThrough})
		done <- err
	}()
	await(t, nodes[0], proposed)
	reader.release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		wantName(t, n, "k", "other's")
	}
	if nodes[1].Coherence().Conflicts == 0 {
		t.Error("the write was not overtaken: the test shows nothing")
	}
}

func TestClear(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 3, onDisk, func(c *Config) {
		c.Namespaces = []Namespace{{Name: space}, {Name: "other"}}
		c.IdleAfter = 200 * time.Millisecond // what was being flushed meanwhile goes with the ownership
	})
	const names = 60
	for i := range names {
		policy := policiesOfNames[i%3]
		if _, err := setName(t.Context(), nodes[i%3], fmt.Sprint("k", i), "v", NameOptions{Policy: policy}); err != nil {
			t.Fatal(err)
		}
	}
	in, err := nodes[0].Reserve(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].SetName(t.Context(), "other", []byte("stays"), in, NameOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].Clear(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		for i := range names {
			wantName(t, n, fmt.Sprint("k", i), "(none)")
		}
		await(t, n, func() bool { return n.coherence.live(space) == 0 && namedObjects(n) <= 1 })
		if loan, _, err := n.ReadName(t.Context(), "other", []byte("stays"), ReadOptions{Level: ReadStrict}); err != nil {
			t.Errorf("%s: a name of another namespace: %v", n.ID(), err)
		} else {
			loan.Release()
		}
	}
	mustSet(t, nodes[2], "k1", "again")
	for _, n := range nodes {
		wantName(t, n, "k1", "again")
	}
}
