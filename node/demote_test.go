package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/coherency"
	"cairn/sequence"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// withDevice adds GPU memory of so many blocks to tiers, on a device with a hook.
func withDevice(t testing.TB, tiers Tiers, blocks int64, hook func(emulated.Call) error) Tiers {
	t.Helper()
	dev, err := emulated.New(emulated.Config{Memory: blocks * testBlock, Hook: hook})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := vram.Open(dev, vram.Config{Capacity: blocks * testBlock, Classes: []int{testBlock}, Streams: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(pool.Close(), dev.Close()); err != nil {
			t.Error(err)
		}
	})
	tiers.VRAM = pool
	return tiers
}

// raised puts blocks from to to-1, makes them durable, and brings them to GPU memory.
func raised(t *testing.T, n *Node, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		put(t, n, i, coherency.WriteAll)
		if !n.Explain(key(i)).has(block.VRAM) {
			t.Fatalf("block %d is not in GPU memory", i)
		}
	}
}

func (b BlockStatus) has(t block.Tier) bool {
	for _, here := range b.Here {
		if here == t {
			return true
		}
	}
	return false
}

// alone leaves blocks from to to-1 in GPU memory only.
func alone(n *Node, from, to int) {
	for i := from; i < to; i++ {
		for _, tr := range []block.Tier{block.Host, block.Disk} {
			if n.stores[tr] != nil {
				evict(n, tr, i)
			}
		}
	}
}

// noDemoter keeps the background from looking, so that a test can.
func noDemoter(c *Config) { c.VRAMHigh, c.VRAMLow, c.PromoteAfter = 1, 1, 0 }

// look has the demoter look with these marks until it finds nothing more to do.
func look(t *testing.T, n *Node, high, low float64) DemotionStatus {
	t.Helper()
	before := n.Status().Demoted
	n.demoter.look(t.Context(), high, low)
	after := n.Status().Demoted
	after.Blocks -= before.Blocks
	after.Bytes -= before.Bytes
	after.Errors -= before.Errors
	return after
}

// What would go next and is nowhere else is in host memory before it goes; nothing else is
// copied.
func TestDemotion(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{vram: 16 * testBlock, host: 4 << 20}.open(t), noDemoter)
	raised(t, n, 0, 16)
	if got := look(t, n, 0.9, 0.5); got.Blocks != 0 {
		t.Errorf("%d blocks were copied, which host memory has", got.Blocks)
	}
	alone(n, 0, 16)
	if got := look(t, n, 1, 0.5); got.Blocks != 0 {
		t.Errorf("%d blocks were copied below the high mark", got.Blocks)
	}
	if got := look(t, n, 0.9, 0.75); got.Blocks != 4 || got.Bytes != 4*testBlock {
		t.Errorf("%+v was copied, want the 4 blocks down to the low mark", got)
	}
	for i := range 16 {
		if here := n.Explain(key(i)); here.has(block.Host) != (i < 4) || here.has(block.VRAM) == (i < 4) {
			t.Errorf("block %d is in %v", i, here.Here)
		}
	}
	if got := look(t, n, 0.9, 0.75); got.Blocks != 0 {
		t.Errorf("%d blocks were copied again", got.Blocks)
	}
	raised(t, n, 20, 24) // finds room
	for i := range 16 {
		if from := want(t, n, i, Local); i < 4 && from != FromHost {
			t.Errorf("block %d from %s", i, from)
		}
	}
	if st := n.Status(); st.Demoted.LetGo != 0 || st.Forgotten != 0 {
		t.Errorf("blocks were lost: %+v, %d forgotten", st.Demoted, st.Forgotten)
	}
	checkDirectory(t, n)
}

// A copy of what a peer has takes only room of host memory that is free; but what others here
// follow, and what nobody else has, takes the room of others.
func TestDemotionOfWhatPeersHave(t *testing.T) {
	c := newMemCluster()
	n1, _ := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), nil)
	n2, _ := c.join(t, "n2", testTiers{vram: 16 * testBlock, host: 1 << 20}.open(t), noDemoter)
	putRange(t, n1, 0, 16)
	s := openSequence(t, n2, 8)
	onboard(t, s, block.VRAM, sequence.Range{})
	s.Close()
	if got := look(t, n2, 0.3, 0.25); got.Blocks != 4 {
		t.Errorf("%d blocks of a peer were copied into free room, want 4", got.Blocks)
	}
	for i := range 16 {
		put(t, n2, 100+i, coherency.WriteBack) // host memory is full
	}
	for i := range 8 {
		evict(n2, block.Host, i)
	}
	for n2.host.Stats().Used < n2.host.Stats().Capacity {
		put(t, n2, 200+int(n2.host.Stats().Puts), coherency.WriteBack)
	}
	if got := look(t, n2, 0.2, 0.05); got.Blocks != 0 || got.Errors != 0 {
		t.Errorf("%+v: blocks of a peer took the room of others", got)
	}
	c.leave("n1")
	if got := look(t, n2, 0.2, 0.05); got.Blocks != 3 {
		t.Errorf("%d blocks were copied that nobody else has, want 3", got.Blocks)
	}
	for i := 4; i < 8; i++ {
		want(t, n2, i, Local)
	}
	nothingLeft(t, n2)
}

// What goes down and is not on the disk is owed to it, and stays in host memory until it is
// there.
func TestDemotedBlocksGoHome(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	tiers := testTiers{vram: 16 * testBlock, host: 4 << 20, disk: 16 << 20, noSpace: &full}.open(t)
	n, _ := newMemCluster().join(t, "n1", tiers, noDemoter)
	for i := range 8 {
		put(t, n, i, coherency.WriteBack)
		if err := n.raise(t.Context(), block.Descriptor{Key: key(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Flush(t.Context()); !errors.Is(err, tier.ErrNoSpace) {
		t.Fatalf("flush to a full disk: %v", err)
	}
	alone(n, 0, 8)
	full.Store(false)
	if got := look(t, n, 0.3, 0.1); got.Blocks != 6 {
		t.Errorf("%d blocks were copied, want 6", got.Blocks)
	}
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 8 { // the last two, in GPU memory only, as well: the flush before had not done it
		if here := n.Explain(key(i)); !here.Durable || !here.has(block.Host) || !here.has(block.Disk) {
			t.Errorf("block %d is in %v, durable %v", i, here.Here, here.Durable)
		}
	}
	nothingLeft(t, n)
}

// A block that leaves GPU memory while it goes home does not make that copy void.
func TestOffloadOutlivesItsPlan(t *testing.T) {
	tiers := testTiers{vram: 16 * testBlock, host: 4 << 20, disk: 16 << 20}.open(t)
	inPut := make(chan func(), 1)
	tiers.Disk = hookedDisk{tiers.Disk, inPut}
	n, _ := newMemCluster().join(t, "n1", tiers, noDemoter)
	inPut <- func() {
		if err := n.raise(t.Context(), block.Descriptor{Key: key(0)}); err != nil {
			t.Error(err)
		}
	}
	put(t, n, 0, coherency.WriteThrough)
	e, _ := n.dir.get(key(0))
	if !e.state.Durable() {
		t.Error("not durable after a copy came")
	}
	// Dirty in GPU memory and host memory, the copy comes from the former by the plan.
	evict(n, block.Disk, 0)
	inPut <- func() { evict(n, block.VRAM, 0) }
	if _, err := n.Put(t.Context(), key(0), block.Key{}, content(0, testBlock), coherency.WriteThrough); err != nil {
		t.Fatal(err)
	}
	if e, _ := n.dir.get(key(0)); !e.state.Durable() {
		t.Error("not durable after the source of the plan went")
	}
	nothingLeft(t, n)
}

// hookedDisk does what it is told in the middle of a Put.
type hookedDisk struct {
	tier.Store
	do chan func()
}

func (d hookedDisk) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	if !desc.Key.Named() { // what the node keeps of itself is none of the test's
		select {
		case f := <-d.do:
			f()
		default:
		}
	}
	return d.Store.Put(ctx, desc, src)
}

// A block that is only in GPU memory is read by a client, by a peer, and in a batch, also
// when host memory has no room for it.
func TestReadsOfBlocksOnlyInGPUMemory(t *testing.T) {
	for name, full := range map[string]bool{"room": false, "host memory full": true} {
		t.Run(name, func(t *testing.T) {
			c := newMemCluster()
			n1, addr1 := c.join(t, "n1", testTiers{vram: 16 * testBlock, host: 1 << 20}.open(t), noDemoter)
			n2, _ := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
			raised(t, n1, 0, 12)
			alone(n1, 0, 12)
			if full {
				for r, err := n1.Reserve(t.Context(), testBlock); err == nil; {
					defer r.Abort()
					if n1.host.Stats().Used == n1.host.Stats().Capacity {
						break
					}
					r, err = n1.Reserve(t.Context(), testBlock)
				}
			}
			cl, err := client.Open(t.Context(), client.Config{Nodes: []string{addr1}})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			origins := map[Origin]int{}
			for i := range 4 { // by a client
				if got, err := cl.Get(t.Context(), key(i), nil); err != nil || !bytes.Equal(got, content(i, testBlock)) {
					t.Errorf("block %d: %v, or other bytes", i, err)
				}
				origins[want(t, n1, i, Local)]++
			}
			if full && origins[FromVRAM] != 4 {
				t.Errorf("reads came from %v", origins)
			}
			for i := 4; i < 8; i++ { // by a peer
				if from := want(t, n2, i, Cluster); from != FromPeer {
					t.Errorf("block %d from %s", i, from)
				}
			}
			conn := dialNode(t, addr1) // in a batch
			conn.Append("CAIRN.MGET", []byte("LOCAL"), []byte(key(8).String()), []byte(key(9).String()), []byte(key(10).String()))
			reply, err := conn.ReadReply()
			if err != nil || len(reply.Elems) != 4 && len(reply.Elems) != 3 {
				t.Fatalf("%v, %d elements", err, len(reply.Elems))
			}
			for i, e := range reply.Elems[len(reply.Elems)-3:] {
				if !bytes.Contains(e.Bytes, content(8+i, testBlock)) {
					t.Errorf("block %d in the batch has other bytes", 8+i)
				}
			}
			checkDirectory(t, n1)
		})
	}
}

var errBroken = errors.New("broken")

// What is not durable yet is never at stake, whatever fails while GPU memory is under
// pressure: the n-th call of any kind.
func TestPressureLosesNothingThatIsOwed(t *testing.T) {
	for _, op := range []emulated.Op{emulated.CopyIn, emulated.CopyInBatch, emulated.CopyOut, emulated.CopyOutBatch, emulated.Record} {
		for _, queued := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s queued=%v", op, queued), func(t *testing.T) {
				for at := int64(1); ; at += 3 {
					var count atomic.Int64
					hook := func(c emulated.Call) error {
						if c == (emulated.Call{Op: op, Queued: queued}) && count.Add(1) == at {
							return errBroken
						}
						return nil
					}
					pressure(t, hook)
					if count.Load() < at || at > 40 {
						return
					}
				}
			})
		}
	}
}

// pressure writes through a node whose tiers are all small, with a disk that takes blocks
// only now and then. Every block that is acknowledged and not durable must be there with its
// own bytes all the time.
func pressure(t *testing.T, hook func(emulated.Call) error) {
	t.Helper()
	gate := make(chan struct{}, 64)
	tiers := testTiers{host: 1 << 20, disk: 32 << 20}.open(t)
	tiers.Disk = slowDisk{tiers.Disk, gate}
	tiers = withDevice(t, tiers, 4, hook)
	n, _ := newMemCluster().join(t, "n1", tiers, func(c *Config) { c.PromoteAfter = 1; c.VRAMHigh, c.VRAMLow = 0.5, 0.2 })
	for i := range 30 {
		if i >= 8 {
			gate <- struct{}{} // lets one block go home
			gate <- struct{}{}
		}
		put(t, n, i, coherency.WriteBack)
		if i%3 == 0 {
			_ = n.raise(t.Context(), block.Descriptor{Key: key(i)})
		}
		for j := max(0, i-10); j <= i; j++ {
			e, known := n.dir.get(key(j))
			if !known || e.state.Durable() {
				continue
			}
			loans, _ := n.Read(t.Context(), []block.Key{key(j)}, Local)
			if loans[0] == nil {
				t.Fatalf("block %d is acknowledged, not durable, and gone", j)
			}
			if !bytes.Equal(loans[0].Bytes, content(j, testBlock)) {
				t.Fatalf("block %d has wrong bytes", j)
			}
			loans[0].Release()
		}
	}
	close(gate)
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		if e, ok := n.dir.get(key(i)); ok && !e.state.Durable() {
			t.Errorf("block %d did not get home", i)
		}
		want(t, n, i, Local)
	}
}

// slowDisk takes a block whenever gate lets it.
type slowDisk struct {
	tier.Store
	gate chan struct{}
}

func (d slowDisk) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	<-d.gate
	return d.Store.Put(ctx, desc, src)
}
