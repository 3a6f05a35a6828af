package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/vram"
	"cairn/vram/emulated"
)

// memoryServer is a server with GPU memory, and a device that an engine opens it with.
func memoryServer(t *testing.T) (s *server, d *client.Device, dev *emulated.Device) {
	t.Helper()
	s = newServer("n1")
	there, dev := emulatedDevice(t), emulatedDevice(t)
	if err := s.withMemory(there); err != nil {
		t.Fatal(err)
	}
	s.start(t, "tcp", "")
	d, err := nodeAt(t, s).OpenDevice(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return s, d, dev
}

func emulatedDevice(t *testing.T) *emulated.Device {
	t.Helper()
	dev, err := emulated.New(emulated.Config{Memory: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

func nodeAt(t *testing.T, s *server) *client.Node {
	t.Helper()
	c, err := client.Open(t.Context(), client.Config{Nodes: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	n, err := c.Node(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDevice(t *testing.T) {
	t.Parallel()
	s, d, dev := memoryServer(t)
	ctx := t.Context()
	info, err := d.Info(ctx)
	if err != nil || info.Kind != "emulated" || info.Bytes != 16*fakeSlotSize {
		t.Errorf("%+v, %v", info, err)
	}
	slots, err := d.Reserve(ctx, 5, 6)
	if err != nil || len(slots) != 2 || slots[0].Len() != 5 || slots[0].Addr() == slots[1].Addr() {
		t.Fatal(slots, err)
	}
	if none, err := d.Reserve(ctx); err != nil || none != nil {
		t.Errorf("no slots: %v, %v", none, err)
	}
	stream, err := dev.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.CopyIn(slots[0].Addr(), []byte("hello")), stream.CopyIn(slots[1].Addr(), []byte("newest")), stream.Synchronize()); err != nil {
		t.Fatal(err)
	}
	view, stored, err := slots[0].CommitView(ctx, key(0), block.Key{}, client.WithPolicy(client.WriteThrough))
	if err != nil || !stored || view == nil || view.Addr() != slots[0].Addr() || view.Len() != 5 || view.Checksum() != block.Checksum([]byte("hello")) {
		t.Fatalf("%+v, %v, %v", view, stored, err)
	}
	if got := s.last("CAIRN.DEVICE.COMMIT"); fmt.Sprint(got[2:]) != fmt.Sprintf("[KEY %s - POLICY write-through PIN]", key(0)) {
		t.Errorf("asked %q", got)
	}
	if v, err := slots[1].CommitName(ctx, "name", client.IfAbsent(), client.WithPolicy(client.WriteBack)); err != nil || v == 0 {
		t.Errorf("version %v, %v", v, err)
	}
	if got := s.last("CAIRN.DEVICE.COMMIT"); fmt.Sprint(got[2:]) != "[NAME name EXPECT 0 POLICY write-back]" {
		t.Errorf("asked %q", got)
	}
	if _, err := slots[1].CommitName(ctx, "name"); !errors.Is(err, client.ErrSlot) {
		t.Errorf("committed again: %v", err)
	}
	for _, opts := range [][]client.PutOption{{client.IfPresent()}, {client.WithTTL(1)}, {client.IfAbsent(), client.ExpectVersion(1)}} {
		if _, err := slots[1].CommitName(ctx, "name", opts...); err == nil || errors.Is(err, client.ErrSlot) {
			t.Errorf("options that mean nothing: %v", err)
		}
	}
	views, err := d.View(ctx, []block.Key{key(7), key(0)})
	if err != nil || len(views) != 2 || views[0] != nil || views[1].Addr() != view.Addr() || views[1].Key() != key(0) {
		t.Fatal(views, err)
	}
	for range 2 {
		if err := views[1].Release(ctx); err != nil {
			t.Error(err)
		}
	}
	if n, err := d.Reclaim(ctx); n != 3 || err != nil {
		t.Errorf("reclaimed %d, %v", n, err)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := view.Release(ctx); !errors.Is(err, client.ErrDeviceClosed) {
		t.Errorf("release after the end: %v", err)
	}
}

func TestDeviceOfAnotherKind(t *testing.T) {
	t.Parallel()
	s := newServer("n1")
	if err := s.withMemory(emulatedDevice(t)); err != nil {
		t.Fatal(err)
	}
	s.start(t, "tcp", "")
	n := nodeAt(t, s)
	for name, dev := range map[string]vram.Device{"another kind": otherKind{emulatedDevice(t)}, "no sharer": struct{ vram.Device }{emulatedDevice(t)}} {
		if _, err := n.OpenDevice(t.Context(), dev); !errors.Is(err, client.ErrNoDevice) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.mu.Lock()
	s.memory.handle = vram.Handle("emulated:/proc/1/fd/1?offset=0&size=1&cookie=1")
	s.mu.Unlock()
	if _, err := n.OpenDevice(t.Context(), emulatedDevice(t)); !errors.Is(err, vram.ErrInvalidHandle) {
		t.Errorf("a handle of nothing: %v", err)
	}
}

type otherKind struct{ *emulated.Device }

func (otherKind) Identity() (kind, id string) { return "other", "7" }

// A connection that breaks ends the Device; what may have happened is said to be unknown.
func TestDeviceLosesItsConnection(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{lost, hangUp} {
		s, d, _ := memoryServer(t)
		ctx := t.Context()
		slots, err := d.Reserve(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		s.on("CAIRN.DEVICE.COMMIT", f)
		if _, err := slots[0].CommitName(ctx, "name"); !errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("a change whose answer is lost: %v", err)
		}
		if _, err := slots[0].CommitName(ctx, "name"); !errors.Is(err, client.ErrDeviceClosed) || errors.Is(err, client.ErrUnknownOutcome) {
			t.Errorf("after it: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	s, d, _ := memoryServer(t)
	s.on("CAIRN.DEVICE.MAP", hang)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		s.awaitCalls(t, "CAIRN.DEVICE.MAP", 1)
		cancel()
	}()
	if _, err := d.View(ctx, []block.Key{key(0)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := d.Info(t.Context()); !errors.Is(err, client.ErrDeviceClosed) {
		t.Errorf("after it: %v", err)
	}
}

// A context that has ended already takes nothing away: the usual way to let go is deferred,
// when the context of the request is over.
func TestDeviceOutlivesAContext(t *testing.T) {
	t.Parallel()
	s, d, _ := memoryServer(t)
	slots, err := d.Reserve(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // it must not be left to chance either
		if err := slots[0].Abort(ended); !errors.Is(err, context.Canceled) {
			t.Fatalf("with a context that has ended: %v", err)
		}
		if _, err := slots[0].CommitName(ended, "name"); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnknownOutcome) {
			t.Fatalf("a change with a context that has ended: %v", err)
		}
	}
	if n := s.count("CAIRN.DEVICE.ABORT") + s.count("CAIRN.DEVICE.COMMIT"); n != 0 {
		t.Errorf("%d commands were sent", n)
	}
	if err := slots[0].Abort(t.Context()); err != nil {
		t.Errorf("the slot is gone: %v", err)
	}
	if views, err := d.View(t.Context(), nil); err != nil || len(views) != 0 {
		t.Errorf("view of no keys: %v, %v", views, err)
	}
}

func ExampleNode_OpenDevice() {
	addr, stop := exampleMemory() // in earnest: unix:/path/to/node.sock
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{addr}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	node, err := c.Node(addr)
	if err != nil {
		log.Fatal(err)
	}
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20}) // the engine's own GPU
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	stream, err := dev.NewStream()
	if err != nil {
		log.Fatal(err)
	}
	memory, err := node.OpenDevice(ctx, dev)
	if err != nil {
		log.Fatal(err)
	}
	defer memory.Close()

	slots, err := memory.Reserve(ctx, 9)
	if err != nil {
		log.Fatal(err)
	}
	err = stream.CopyIn(slots[0].Addr(), []byte("KV values")) // a kernel writes there
	if err := errors.Join(err, stream.Synchronize()); err != nil {
		log.Fatal(err)
	}
	view, stored, err := slots[0].CommitView(ctx, key(0), block.Key{})
	if err != nil || view == nil {
		log.Fatal(err)
	}
	p := make([]byte, view.Len())
	err = stream.CopyOut(p, view.Addr()) // and another reads there
	if err := errors.Join(err, stream.Synchronize(), view.Release(ctx)); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("stored: %v, in place: %s\n", stored, p)
	// Output:
	// stored: true, in place: KV values
}

// exampleMemory is a node with GPU memory that ends with the example.
func exampleMemory() (addr string, stop func()) {
	dev, err := emulated.New(emulated.Config{Memory: 2 << 20})
	if err != nil {
		log.Fatal(err)
	}
	s := newServer("n1")
	if err := errors.Join(s.withMemory(dev), s.serve("tcp", "")); err != nil {
		log.Fatal(err)
	}
	return s.addr, func() { s.stop(); dev.Close() }
}
