package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/coherency"
	"cairn/resp"
	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
	"cairn/wire"
)

// deviceCluster is nodes with GPU memory, each also on a unix socket; addrs are those.
func deviceCluster(t *testing.T, count int, tt testTiers, change func(*Config)) (nodes []*Node, addrs []string) {
	t.Helper()
	c := newMemCluster()
	for i := range count {
		n, _ := c.join(t, fmt.Sprint("n", i+1), tt.open(t), change)
		nodes, addrs = append(nodes, n), append(addrs, serveUnix(t, n))
	}
	return nodes, addrs
}

// serveUnix serves a node on a unix socket as well, until the test ends.
func serveUnix(t *testing.T, n *Node) (addr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := resp.NewServer(resp.ServerConfig{NewHandler: n.NewHandler})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		server.Shutdown(context.Background())
		<-served
	})
	return "unix:" + path
}

// engineOf opens the GPU memory of a node as an engine does.
func engineOf(t *testing.T, addr string) (*client.Node, *client.Device, *emulated.Device) {
	t.Helper()
	cl, err := client.Open(t.Context(), client.Config{Nodes: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	cn, err := cl.Node(addr)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	d, err := cn.OpenDevice(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return cn, d, dev
}

// onStream carries out copies of an engine and waits for them.
func onStream(t *testing.T, dev *emulated.Device, queue func(vram.Stream) error) {
	t.Helper()
	s, err := dev.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(queue(s), s.Synchronize()); err != nil {
		t.Fatal(err)
	}
}

func fill(t *testing.T, dev *emulated.Device, at vram.Addr, p []byte) {
	t.Helper()
	onStream(t, dev, func(s vram.Stream) error { return s.CopyIn(at, p) })
}

func peek(t *testing.T, dev *emulated.Device, at vram.Addr, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	onStream(t, dev, func(s vram.Stream) error { return s.CopyOut(p, at) })
	return p
}

// nothingHeld checks that engines hold nothing of a node's GPU memory.
func nothingHeld(t *testing.T, n *Node) {
	t.Helper()
	await(t, n, func() bool { return n.devices.status().Held == 0 })
	st := n.devices.status()
	if st.Pinned+st.Slots+st.Regions+st.Quarantined != 0 || n.stores[block.VRAM].Stats().Pinned != 0 {
		t.Errorf("engines hold %+v, the tier %+v", st, n.stores[block.VRAM].Stats())
	}
}

// wantBytes checks that a node has block i with bytes that an engine wrote.
func wantBytes(t *testing.T, n *Node, i int, p []byte) {
	t.Helper()
	loans, _ := n.Read(t.Context(), []block.Key{key(i)}, Local)
	if loans[0] == nil || !bytes.Equal(loans[0].Bytes, p) {
		t.Fatalf("block %d is not what the engine wrote", i)
	}
	loans[0].Release()
}

var deviceTiers = testTiers{vram: 1 << 20, host: 4 << 20, disk: 16 << 20}

func TestEngineCommitsASealedBlock(t *testing.T) {
	nodes, addrs := deviceCluster(t, 2, deviceTiers, nil)
	_, d, dev := engineOf(t, addrs[0])
	for i, policy := range []string{client.WriteBack, client.WriteThrough, client.WriteAll} {
		slots, err := d.Reserve(t.Context(), 50_000)
		if err != nil {
			t.Fatal(err)
		}
		p := content(i, 50_000)
		fill(t, dev, slots[0].Addr(), p)
		if nodes[0].Holds(key(i)) {
			t.Error("visible before it is committed")
		}
		stored, err := slots[0].Commit(t.Context(), key(i), block.Key{}, client.WithPolicy(policy))
		if err != nil || !stored {
			t.Fatalf("%s: stored %v, %v", policy, stored, err)
		}
		e, _ := nodes[0].dir.get(key(i))
		if !e.state.Has(block.VRAM) || !e.state.Has(block.Host) || policy != client.WriteBack && !e.state.Durable() {
			t.Errorf("%s: %+v", policy, nodes[0].Explain(key(i)))
		}
		if _, err := slots[0].Commit(t.Context(), key(i), block.Key{}); !errors.Is(err, client.ErrSlot) {
			t.Errorf("committed again: %v", err)
		}
		loans, _ := nodes[1].Read(t.Context(), []block.Key{key(i)}, Cluster)
		if loans[0] == nil || !bytes.Equal(loans[0].Bytes, p) {
			t.Fatal("a peer does not get the block byte-exact")
		}
		loans[0].Release()
	}
	// The same block again, and the same key with other bytes.
	slots, err := d.Reserve(t.Context(), 50_000, 50_000)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, dev, slots[0].Addr(), content(0, 50_000))
	if stored, err := slots[0].Commit(t.Context(), key(0), block.Key{}); err != nil || stored {
		t.Errorf("a block that is there: stored %v, %v", stored, err)
	}
	fill(t, dev, slots[1].Addr(), content(9, 50_000))
	if _, err := slots[1].Commit(t.Context(), key(0), block.Key{}); !errors.Is(err, client.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := slots[1].Commit(t.Context(), key(10), key(9)); err != nil { // the slot is still the engine's
		t.Error(err)
	}
	if err := slots[1].Abort(t.Context()); !errors.Is(err, client.ErrSlot) {
		t.Errorf("abort after commit: %v", err)
	}
	nothingHeld(t, nodes[0])
	if err := nodes[0].Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkDirectory(t, nodes[0])
}

// What an engine writes to a slot after it has committed it never reaches anybody but who
// reads in place.
func TestWriteAfterCommit(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, func(c *Config) { c.PromoteAfter = 0 })
	n := nodes[0]
	_, d, dev := engineOf(t, addrs[0])
	slots, err := d.Reserve(t.Context(), 50_000)
	if err != nil {
		t.Fatal(err)
	}
	p := content(1, 50_000)
	fill(t, dev, slots[0].Addr(), p)
	at := slots[0].Addr()
	if _, err := slots[0].Commit(t.Context(), key(1), block.Key{}, client.WithPolicy(client.WriteThrough)); err != nil {
		t.Fatal(err)
	}
	fill(t, dev, at, content(2, 50_000))
	n.host.Delete(key(1))
	n.dropped(block.Host, key(1))
	loan, err := n.readLocal(t.Context(), key(1))
	for err != nil { // the bad copy was found out and dropped
		loan, err = n.readLocal(t.Context(), key(1))
	}
	defer loan.Release()
	if !bytes.Equal(loan.Bytes, p) {
		t.Fatal("the node gave what an engine wrote over a committed block")
	}
	if e, _ := n.dir.get(key(1)); e.state.Has(block.VRAM) {
		t.Error("the damaged copy still counts")
	}
}

func TestEngineCommitsAName(t *testing.T) {
	nodes, addrs := deviceCluster(t, 2, deviceTiers, func(c *Config) { c.PromoteAfter = 0 })
	cn, d, dev := engineOf(t, addrs[0])
	ctx := t.Context()
	for round, policy := range []string{client.WriteBack, client.WriteThrough, client.WriteAll} {
		name := "weights-" + policy
		mustSet(t, nodes[0], name, "old")
		if err := nodes[0].Flush(ctx); err != nil {
			t.Fatal(err)
		}
		slots, err := d.Reserve(ctx, 60_000)
		if err != nil {
			t.Fatal(err)
		}
		p := content(round, 60_000)
		fill(t, dev, slots[0].Addr(), p)
		v, err := slots[0].CommitName(ctx, name, client.WithPolicy(policy))
		if err != nil || v == 0 {
			t.Fatalf("%s: version %v, %v", policy, v, err)
		}
		for _, n := range nodes {
			if got, _ := readAt(t, n, name, ReadOptions{Level: ReadStrict}); got != string(p) {
				t.Errorf("%s: %s reads %d bytes that are not what the engine wrote", policy, n.ID(), len(got))
			}
		}
		// In place, by its name.
		view, found, err := d.ViewName(ctx, name, client.Strict())
		if err != nil || found != v || !bytes.Equal(peek(t, dev, view.Addr(), view.Len()), p) {
			t.Errorf("%s: version %v in place, want %v: %v", policy, found, v, err)
		}
		if err := view.Release(ctx); err != nil {
			t.Error(err)
		}
		// With an expected version.
		slots, err = d.Reserve(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, dev, slots[0].Addr(), []byte("0123456789"))
		var conflict *client.ConflictError
		if _, err := slots[0].CommitName(ctx, name, client.ExpectVersion(v-1)); !errors.As(err, &conflict) || conflict.Version != v {
			t.Errorf("%s: with another version: %v", policy, err)
		}
		if next, err := slots[0].CommitName(ctx, name, client.ExpectVersion(v)); err != nil || next <= v {
			t.Errorf("%s: version %v after %v: %v", policy, next, v, err)
		}
		if got, err := cn.GetName(ctx, name, nil, client.Session()); err != nil || string(got.Value) != "0123456789" {
			t.Errorf("%s: %q, %v", policy, got.Value, err)
		}
	}
	// A name that is elsewhere only.
	mustSet(t, nodes[1], "far", "away")
	view, _, err := d.ViewName(ctx, "far", client.Strict())
	if err != nil || string(peek(t, dev, view.Addr(), view.Len())) != "away" {
		t.Errorf("a name of another node: %v", err)
	}
	if _, _, err := d.ViewName(ctx, "nobody", client.Strict()); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a name that is not there: %v", err)
	}
	mustSet(t, nodes[1], "far", "away again")
	await(t, nodes[0], func() bool {
		got, _ := readAt(t, nodes[0], "far", ReadOptions{Level: ReadStrict})
		return got == "away again"
	})
	if string(peek(t, dev, view.Addr(), view.Len())) != "away" {
		t.Error("the bytes changed under a view")
	}
	if err := view.Release(ctx); err != nil {
		t.Error(err)
	}
	nothingHeld(t, nodes[0])
	for _, n := range nodes {
		checkDirectory(t, n)
	}
}

func TestViewsPin(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, func(c *Config) { c.PromoteAfter = 0; c.DeviceHolds = 4 })
	n := nodes[0]
	ctx := t.Context()
	_, d, dev := engineOf(t, addrs[0])
	keys := make([]block.Key, 3)
	for i := range keys {
		keys[i] = key(i)
		put(t, n, i, coherency.WriteAll)
	}
	keys = append(keys, key(99)) // not there
	views, err := d.View(ctx, keys)
	if err != nil || len(views) != 4 || views[3] != nil {
		t.Fatalf("%v, %v", views, err)
	}
	for i := 10; i < 60; i++ { // three times the tier
		put(t, n, i, coherency.WriteAll)
	}
	for i, v := range views[:3] {
		p := peek(t, dev, v.Addr(), v.Len())
		if e, _ := n.dir.get(keys[i]); !e.state.Has(block.VRAM) || v.Key() != keys[i] || block.Checksum(p) != v.Checksum() {
			t.Errorf("block %d did not stay", i)
		}
	}
	if _, err := d.View(ctx, []block.Key{key(59), key(58), key(57)}); !errors.Is(err, client.ErrLimit) {
		t.Errorf("more than one connection may hold: %v", err)
	}
	if st := n.devices.status(); st.Pinned != 3 {
		t.Errorf("after a refusal: %+v", st)
	}
	n.Remove(keys[0]) // by a user
	if p := peek(t, dev, views[0].Addr(), views[0].Len()); block.Checksum(p) != views[0].Checksum() {
		t.Error("bytes changed under a view of a removed block")
	}
	if err := views[0].Release(ctx); err != nil {
		t.Error(err)
	}
	if err := views[0].Release(ctx); err != nil { // does nothing
		t.Error(err)
	}
	d.Close()
	nothingHeld(t, n)
	if err := views[1].Release(ctx); !errors.Is(err, client.ErrDeviceClosed) {
		t.Errorf("release after the connection: %v", err)
	}
	checkDirectory(t, n)
}

func TestShareOfEngines(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, func(c *Config) { c.DevicePins = 0.25; c.DeviceRegions = 1; c.DeviceRegionBytes = 100_000 })
	ctx := t.Context()
	_, d, dev := engineOf(t, addrs[0])
	slots, err := d.Reserve(ctx, 1, testBlock, testBlock) // a slot counts with what it takes
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reserve(ctx, 1, 1); !errors.Is(err, client.ErrPinned) {
		t.Errorf("more than the share: %v", err)
	}
	if st := nodes[0].devices.status(); st.Slots != 3 || st.Held != 3*testBlock || st.Limit != 4*testBlock {
		t.Errorf("%+v", st)
	}
	if _, err := d.Reserve(ctx, 2<<20); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	for _, s := range slots {
		if err := s.Abort(ctx); err != nil {
			t.Error(err)
		}
	}
	at, err := dev.Alloc(80_000)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Import(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Import(ctx, at); !errors.Is(err, client.ErrLimit) {
		t.Errorf("a second region: %v", err)
	}
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	big, err := dev.Alloc(200_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Import(ctx, big); !errors.Is(err, client.ErrLimit) {
		t.Errorf("a large region: %v", err)
	}
	nothingHeld(t, nodes[0])
}

func TestRegionOfAnEngine(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, nil)
	n := nodes[0]
	ctx := t.Context()
	_, d, dev := engineOf(t, addrs[0])
	at, err := dev.Alloc(200_000)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Import(ctx, at)
	if err != nil || r.Size() < 200_000 {
		t.Fatal(err)
	}
	p := content(5, 50_000)
	fill(t, dev, at+1000, p)
	if stored, err := r.Store(ctx, 1000, len(p), key(5), block.Key{}); err != nil || !stored {
		t.Fatalf("stored %v, %v", stored, err)
	}
	wantBytes(t, n, 5, p)
	if _, err := r.StoreName(ctx, 1000, len(p), "in-place"); err != nil {
		t.Fatal(err)
	}
	wantName(t, n, "in-place", string(p))
	length, err := r.Load(ctx, 100_000, 60_000, key(5))
	if err != nil || length != len(p) || !bytes.Equal(peek(t, dev, at+100_000, length), p) {
		t.Errorf("loaded %d bytes: %v", length, err)
	}
	if _, err := r.Load(ctx, 100_000, 49_999, key(5)); err == nil {
		t.Error("into less than the block")
	}
	if _, err := r.Load(ctx, 0, 1, key(77)); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a block that is not there: %v", err)
	}
	if _, err := r.Store(ctx, r.Size()-10, 11, key(6), block.Key{}); err == nil {
		t.Error("from beyond the region")
	}
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(ctx, 0, 60_000, key(5)); !errors.Is(err, client.ErrSlot) {
		t.Errorf("a region that is closed: %v", err)
	}
	nothingHeld(t, n)
}

// A connection that breaks leaves its slots in quarantine while its process lives, which
// is this one; until it says that nothing of it writes any more.
func TestQuarantine(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, nil)
	n := nodes[0]
	_, d, _ := engineOf(t, addrs[0])
	slots, err := d.Reserve(t.Context(), testBlock, testBlock)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	await(t, n, func() bool { return n.devices.status().Quarantined == 2 })
	if err := slots[0].Abort(t.Context()); !errors.Is(err, client.ErrDeviceClosed) {
		t.Errorf("a slot after its connection: %v", err)
	}
	for i := range 40 {
		put(t, n, i, coherency.WriteAll)
	}
	if st := n.stores[block.VRAM].Stats(); st.Objects != 14 {
		t.Errorf("%d objects beside two slots in quarantine, of 16", st.Objects)
	}
	_, again, _ := engineOf(t, addrs[0])
	if freed, err := again.Reclaim(t.Context()); err != nil || freed != 2 {
		t.Errorf("%d slots reclaimed, %v", freed, err)
	}
	nothingHeld(t, n)
	if st := n.devices.status(); st.Released != 2 {
		t.Errorf("%+v", st)
	}
}

// The end of a process ends the quarantine of its slots.
func TestQuarantineEndsWithTheProcess(t *testing.T) {
	nodes, _ := deviceCluster(t, 1, deviceTiers, nil)
	n := nodes[0]
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.devices.reserve(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	n.devices.isolate(p, []tier.DeviceSlot{s})
	if st := n.devices.status(); st.Quarantined != 1 || st.Slots != 1 {
		t.Errorf("%+v", st)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	await(t, n, func() bool { return n.devices.status().Released == 1 })
	nothingHeld(t, n)
}

// An engine that is silent for too long loses its pins at once; its slots go into
// quarantine.
func TestIdleEngine(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, func(c *Config) { c.DeviceIdle = 1 })
	n := nodes[0]
	put(t, n, 1, coherency.WriteAll)
	_, d, _ := engineOf(t, addrs[0])
	slots, err := d.Reserve(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	await(t, n, func() bool { return n.devices.status().Quarantined == 1 })
	if _, err := slots[0].Commit(t.Context(), key(2), block.Key{}); !errors.Is(err, client.ErrSlot) {
		t.Errorf("commit of what was taken away: %v", err)
	}
	views, err := d.View(t.Context(), []block.Key{key(1)})
	if err != nil {
		t.Fatal(err)
	}
	await(t, n, func() bool { return n.devices.status().Pinned == 0 })
	if err := views[0].Release(t.Context()); !errors.Is(err, client.ErrSlot) {
		t.Errorf("a pin that was taken away while something may have read: %v", err)
	}
}

// An end of the idle time that comes late, when a command has come and gone since, takes
// nothing away.
func TestIdleEndsLate(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, nil)
	n := nodes[0]
	conn, err := net.Dial("unix", strings.TrimPrefix(addrs[0], "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := &session{n: n, conn: resp.ConnInfo{Conn: conn}} // its peer is this process as well
	c, err := s.device()
	if err != nil {
		t.Fatal(err)
	}
	defer s.closeDevice()
	c.begin()
	if _, _, err := c.reserve(t.Context(), []int{1000}); err != nil {
		t.Error(err)
	}
	c.end()
	c.expire()
	if st := n.devices.status(); st.Slots != 1 || st.Quarantined != 0 {
		t.Errorf("%+v after a use", st)
	}
	c.begin()
	c.abort(slices.Collect(maps.Keys(c.slots)))
	c.end()
}

// A host tier without room is a typed error, and the slot can be committed later.
func TestCommitWithoutRoomInHostMemory(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, testTiers{vram: 1 << 20, host: 1 << 20, disk: 16 << 20}, func(c *Config) { c.PutWait = 1 })
	n := nodes[0]
	_, d, dev := engineOf(t, addrs[0])
	slots, err := d.Reserve(t.Context(), 60_000)
	if err != nil {
		t.Fatal(err)
	}
	p := content(1, 60_000)
	fill(t, dev, slots[0].Addr(), p)
	var taken []*Incoming
	for {
		in, err := n.Reserve(t.Context(), 60_000)
		if err != nil {
			break
		}
		taken = append(taken, in)
	}
	if _, err := slots[0].Commit(t.Context(), key(1), block.Key{}); !errors.Is(err, client.ErrFull) {
		t.Errorf("without room: %v", err)
	}
	if _, err := slots[0].CommitName(t.Context(), "name"); !errors.Is(err, client.ErrFull) {
		t.Errorf("a name without room: %v", err)
	}
	for _, in := range taken {
		in.Abort()
	}
	if _, err := slots[0].Commit(t.Context(), key(1), block.Key{}); err != nil {
		t.Error(err)
	}
	wantBytes(t, n, 1, p)
	nothingHeld(t, n)
}

func TestDeviceIsForEnginesOnThisMachine(t *testing.T) {
	c := newMemCluster()
	n, addr := c.join(t, "n1", deviceTiers.open(t), nil)
	if got := ask(t, dialNode(t, addr), "CAIRN.DEVICE.INFO"); !bytes.HasPrefix([]byte(got), []byte(wire.CodeDevice)) {
		t.Errorf("over TCP: %q", got)
	}
	without, _ := c.join(t, "n2", testTiers{host: 4 << 20}.open(t), nil)
	cl, err := client.Open(t.Context(), client.Config{Nodes: []string{serveUnix(t, without)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	cn, err := cl.Node(serveUnix(t, without))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	if _, err := cn.OpenDevice(t.Context(), dev); !errors.Is(err, client.ErrNoDevice) {
		t.Errorf("at a node without GPU memory: %v", err)
	}
	nothingHeld(t, n)
}

// Everything that is no command is refused without harm.
func TestDeviceCommandsRefuse(t *testing.T) {
	nodes, addrs := deviceCluster(t, 1, deviceTiers, nil)
	conn, err := resp.Dial(t.Context(), "unix", addrs[0][len("unix:"):], resp.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.Begin(t.Context())
	slot := ""
	{
		conn.Append("CAIRN.DEVICE.RESERVE", []byte("100"))
		v, err := conn.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		slot = strconv.FormatInt(v.Elems[0].Elems[0].Int, 10)
	}
	k := key(1).String()
	for _, c := range []struct{ command, code string }{
		{"RESERVE 0", "ERR"}, {"RESERVE -1", "ERR"}, {"RESERVE x", "ERR"}, {"RESERVE 10 0", "ERR"}, {"RESERVE 99999999999", "TOOLARGE"},
		{"MAP", "ERR"}, {"MAP KEYS", "ERR"}, {"MAP KEYS x", "ERR"}, {"MAP BLOCKS " + k, "ERR"}, {"MAP NAME n FRESH", "ERR"},
		{"UNMAP x", "NOSLOT"}, {"ABORT -1", "NOSLOT"},
		{"COMMIT 999 KEY " + k + " -", "NOSLOT"}, {"COMMIT " + slot + " KEY x -", "ERR"}, {"COMMIT " + slot + " KEY " + k, "ERR"},
		{"COMMIT " + slot + " KEY " + k + " - POLICY", "ERR"}, {"COMMIT " + slot + " KEY " + k + " - POLICY never", "ERR"},
		{"COMMIT " + slot + " KEY " + k + " - EXPECT 1", "ERR"}, {"COMMIT " + slot + " KEY ffffff00000000000000000000000001 -", "ERR"},
		{"COMMIT " + slot + " NAME n EXPECT x", "ERR"}, {"COMMIT " + slot + " THING n", "ERR"},
		{"COMMIT " + slot + " NAME block:" + k, "ERR"}, {"MAP NAME block:" + k, "ERR"},
		{"IMPORT something", "NOHANDLE"}, {"UNIMPORT 1", "NOSLOT"}, {"STORE 1 0 10 KEY " + k + " -", "NOSLOT"}, {"LOAD 1 0 10 " + k, "NOSLOT"},
	} {
		words := strings.Fields("CAIRN.DEVICE." + c.command)
		if got := ask(t, conn, words...); len(got) <= len(c.code) || got[:len(c.code)+1] != c.code+" " {
			t.Errorf("%s: %q, want %s", c.command, got, c.code)
		}
	}
	if got := ask(t, conn, "CAIRN.DEVICE.UNMAP", "12345"); got != "0" {
		t.Errorf("unmap of what is not pinned: %q", got)
	}
	if got := ask(t, conn, "CAIRN.DEVICE.ABORT", slot, slot); got != "1" {
		t.Errorf("abort: %q", got)
	}
	if got := ask(t, conn, "RESET"); got != "RESET" {
		t.Errorf("reset: %q", got)
	}
	nothingHeld(t, nodes[0])
}
