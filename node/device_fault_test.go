package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/hostcache"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// faultyDevice is tiers whose GPU memory fails as fault says.
func faultyDevice(t *testing.T, fault func(emulated.Call) error) Tiers {
	t.Helper()
	host, err := hostcache.Open(hostcache.Config{Capacity: 4 << 20, Classes: []int{4 << 10, testBlock}, SlabSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	dev, err := emulated.New(emulated.Config{Memory: 2 << 20, Hook: fault})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := vram.Open(dev, vram.Config{Capacity: 1 << 20, Classes: []int{testBlock}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close(); dev.Close() })
	return Tiers{Host: host, VRAM: pool}
}

var errFault = errors.New("injected")

// A copy that fails leaves the slot with the engine, and nothing else behind.
func TestCopyFailsWhileASlotIsCommitted(t *testing.T) {
	var broken atomic.Bool
	c := newMemCluster()
	n, _ := c.join(t, "n1", faultyDevice(t, func(call emulated.Call) error {
		if broken.Load() && (call.Op == emulated.CopyOut || call.Op == emulated.CopyDevice) && call.Queued {
			return errFault
		}
		return nil
	}), nil)
	_, d, dev := engineOf(t, serveUnix(t, n))
	ctx := t.Context()
	slots, err := d.Reserve(ctx, 50_000, 50_000)
	if err != nil {
		t.Fatal(err)
	}
	p := content(1, 50_000)
	for _, s := range slots {
		fill(t, dev, s.Addr(), p)
	}
	at, err := dev.Alloc(50_000)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Import(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if _, err := slots[0].Commit(ctx, key(1), block.Key{}); err == nil || n.Holds(key(1)) {
		t.Errorf("committed although the copy failed: %v", err)
	}
	if _, err := slots[1].CommitName(ctx, "name"); err == nil {
		t.Error("a name was committed although the copy failed")
	}
	if _, err := r.Store(ctx, 0, 50_000, key(2), block.Key{}); err == nil || n.Holds(key(2)) {
		t.Errorf("stored although the copy failed: %v", err)
	}
	if st := n.devices.status(); st.Slots != 2 || n.host.Stats().Objects != 0 {
		t.Errorf("%+v, %d objects in host memory", st, n.host.Stats().Objects)
	}
	broken.Store(false)
	if _, err := slots[0].Commit(ctx, key(1), block.Key{}); err != nil {
		t.Error(err)
	}
	if _, err := slots[1].CommitName(ctx, "name"); err != nil {
		t.Error(err)
	}
	wantBytes(t, n, 1, p)
	wantName(t, n, "name", string(p))
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	nothingHeld(t, n)
	checkDirectory(t, n)
}

// The device is lost while engines have slots and views: they learn it by a typed error,
// and the node goes on with what is in host memory.
func TestDeviceLostUnderEngines(t *testing.T) {
	var lost atomic.Bool
	c := newMemCluster()
	n, _ := c.join(t, "n1", faultyDevice(t, func(emulated.Call) error {
		if lost.Load() {
			return tier.ErrDeviceLost
		}
		return nil
	}), nil)
	_, d, dev := engineOf(t, serveUnix(t, n))
	ctx := t.Context()
	slots, err := d.Reserve(ctx, 50_000, 50_000, 50_000)
	if err != nil {
		t.Fatal(err)
	}
	p := content(1, 50_000)
	fill(t, dev, slots[0].Addr(), p)
	view, _, err := slots[0].CommitView(ctx, key(1), block.Key{})
	if err != nil {
		t.Fatal(err)
	}
	lost.Store(true)
	for range 2 {
		if _, err := slots[1].Commit(ctx, key(2), block.Key{}); !errors.Is(err, client.ErrNoDevice) {
			t.Errorf("commit: %v", err)
		}
	}
	if _, err := d.Reserve(ctx, 1); !errors.Is(err, client.ErrNoDevice) {
		t.Errorf("reserve: %v", err)
	}
	if err := view.Release(ctx); !errors.Is(err, client.ErrNoDevice) {
		t.Errorf("release: %v", err)
	}
	d.Close()
	n.devices.release(func(*quarantined) bool { return true }) // what the end of this process would do
	await(t, n, func() bool { st := n.devices.status(); return st.Held == 0 && st.Slots == 0 || st.Quarantined > 0 })
	n.devices.release(func(*quarantined) bool { return true })
	if st := n.devices.status(); st.Held != 0 || st.Slots+st.Pinned != 0 {
		t.Errorf("%+v", st)
	}
	wantBytes(t, n, 1, p)
	if e, _ := n.dir.get(key(1)); e.state.Has(block.VRAM) {
		t.Error("a copy on a lost device counts")
	}
}

// Many engines at once write blocks and names, read in place, and lose their connections,
// while the cache evicts and users delete. No byte is ever wrong, and nothing stays held.
func TestEnginesTogether(t *testing.T) {
	nodes, addrs := deviceCluster(t, 2, testTiers{vram: 2 << 20, host: 4 << 20, disk: 32 << 20}, nil)
	n := nodes[0]
	const engines, rounds, blocks = 4, 25, 40
	var good sync.Map // names: the newest value acknowledged is at least this round
	work := func(ctx context.Context, who int) error {
		cl, err := client.Open(ctx, client.Config{Nodes: []string{addrs[0]}})
		if err != nil {
			return err
		}
		defer cl.Close()
		cn, err := cl.Node(addrs[0])
		if err != nil {
			return err
		}
		dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
		if err != nil {
			return err
		}
		defer dev.Close()
		s, err := dev.NewStream()
		if err != nil {
			return err
		}
		random := rand.New(rand.NewPCG(uint64(who), 7))
		var d *client.Device
		defer func() {
			if d != nil {
				d.Close()
			}
		}()
		for round := range rounds {
			if d == nil {
				if d, err = cn.OpenDevice(ctx, dev); err != nil {
					return err
				}
			}
			slots, err := d.Reserve(ctx, 40_000, 40_000)
			if errors.Is(err, client.ErrPinned) || errors.Is(err, client.ErrFull) { // by views that it has kept, or others have
				d.Close()
				d = nil
				continue
			}
			if err != nil {
				return err
			}
			i := random.IntN(blocks)
			value := content(1000*who+round, 40_000)
			if err := errors.Join(s.CopyIn(slots[0].Addr(), content(i, 40_000)), s.CopyIn(slots[1].Addr(), value), s.Synchronize()); err != nil {
				return err
			}
			if _, err := slots[0].Commit(ctx, key(i), block.Key{}); err != nil {
				return fmt.Errorf("commit: %w", err)
			}
			name := fmt.Sprint("name", who)
			if _, err := slots[1].CommitName(ctx, name); err != nil {
				return fmt.Errorf("commit a name: %w", err)
			}
			good.Store(who, round)
			keys := []block.Key{key(random.IntN(blocks)), key(random.IntN(blocks))}
			views, err := d.View(ctx, keys)
			if errors.Is(err, client.ErrPinned) {
				continue
			}
			if err != nil {
				return fmt.Errorf("view: %w", err)
			}
			mine, _, err := d.ViewName(ctx, name, client.Strict())
			if errors.Is(err, client.ErrPinned) || errors.Is(err, client.ErrFull) {
				continue
			}
			if err != nil {
				return fmt.Errorf("view a name: %w", err)
			}
			for _, v := range append(views, mine) {
				if v == nil {
					continue
				}
				p := make([]byte, v.Len())
				if err := errors.Join(s.CopyOut(p, v.Addr()), s.Synchronize()); err != nil {
					return err
				}
				if block.Checksum(p) != v.Checksum() || v == mine && !bytes.Equal(p, value) {
					return fmt.Errorf("wrong bytes in place, of %s", v.Key())
				}
				if random.IntN(3) > 0 {
					if err := v.Release(ctx); err != nil {
						return fmt.Errorf("release: %w", err)
					}
				}
			}
			if random.IntN(6) == 0 {
				d.Close() // with what it holds
				d = nil
			}
		}
		return nil
	}
	var running sync.WaitGroup
	for who := range engines {
		running.Go(func() {
			if err := work(t.Context(), who); err != nil {
				t.Errorf("engine %d: %v", who, err)
			}
		})
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() { // a peer reads, a user deletes
		random := rand.New(rand.NewPCG(99, 7))
		for {
			select {
			case <-stop:
				return
			default:
			}
			i := random.IntN(blocks)
			if random.IntN(8) == 0 {
				n.Remove(key(i))
				continue
			}
			loans, _ := nodes[1].Read(t.Context(), []block.Key{key(i)}, Cluster)
			if loans[0] != nil {
				if !bytes.Equal(loans[0].Bytes, content(i, 40_000)) {
					t.Errorf("a peer reads wrong bytes of block %d", i)
				}
				loans[0].Release()
			}
		}
	})
	running.Wait()
	close(stop)
	others.Wait()
	for who := range engines {
		last, _ := good.Load(who)
		if last != nil {
			if got, _ := readAt(t, nodes[1], fmt.Sprint("name", who), ReadOptions{Level: ReadStrict}); got != string(content(1000*who+last.(int), 40_000)) {
				t.Errorf("name %d is not what was acknowledged last", who)
			}
		}
	}
	await(t, n, func() bool { return n.devices.status().Pinned == 0 })
	n.devices.release(func(*quarantined) bool { return true })
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.stop() // a promotion on its way would be in a tier and not yet in the directory
	n.working.Wait()
	nothingHeld(t, n)
	checkDirectory(t, n)
}
