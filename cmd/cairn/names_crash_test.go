package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/client"
)

// TestNamesOverACrash counts with Client.Update from several clients while a node is
// killed and comes back. Every count that was acknowledged is there exactly once, one
// whose outcome is unknown at most once; a Watch misses neither the end nor goes back.
func TestNamesOverACrash(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 3, flags: smallNode("--vram", "0")})
	var addrs []string
	for _, n := range s.nodes {
		addrs = append(addrs, n.addr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	open := func(first int) *client.Client {
		c, err := client.Open(ctx, client.Config{Nodes: append(addrs[first:len(addrs):len(addrs)], addrs[:first]...)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	const clients, each = 3, 40
	var acked, unknown atomic.Int64
	count := func(c *client.Client) {
		err := c.Update(ctx, "", "crash-counter", func(old []byte) ([]byte, error) {
			n, err := strconv.Atoi("0" + string(old))
			return strconv.AppendInt(nil, int64(n+1), 10), err
		}, client.WithPolicy(client.WriteThrough))
		switch {
		case err == nil:
			acked.Add(1)
		case errors.Is(err, client.ErrUnknownOutcome):
			unknown.Add(1)
		default:
			t.Errorf("update: %v", err)
		}
	}
	var last atomic.Uint64 // version that the watch has told
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watcher := open(0)
	watch.Go(func() {
		for ev, err := range watcher.Watch(watching, "", "crash-counter") {
			if err != nil {
				t.Errorf("watch: %v", err)
			}
			if before := last.Swap(uint64(ev.Version)); before >= uint64(ev.Version) {
				t.Errorf("the watch went from version %s to %s", client.Version(before), ev.Version)
			}
		}
	})
	var counting sync.WaitGroup
	for i := range clients {
		c := open(i)
		counting.Go(func() {
			for range each {
				count(c)
			}
		})
	}
	await(t, patience, "counting has begun", func() error {
		if acked.Load() < each/2 {
			return errors.New("it has not")
		}
		return nil
	})
	s.nodes[0].kill()
	s.nodes[0].start()
	counting.Wait()

	v, err := open(1).GetName(ctx, "crash-counter", nil, client.Strict())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseInt(string(v.Value), 10, 64)
	if n < acked.Load() || n > acked.Load()+unknown.Load() {
		t.Errorf("counted to %d: %d updates were acknowledged, and of %d the outcome is unknown", n, acked.Load(), unknown.Load())
	}
	await(t, patience, "the watch tells of the last version", func() error {
		if last.Load() != uint64(v.Version) {
			return errors.New("at " + client.Version(last.Load()).String() + ", not " + v.Version.String())
		}
		return nil
	})
	stop()
	watch.Wait()
	t.Logf("counted to %d: %d acknowledged, %d unknown", n, acked.Load(), unknown.Load())
}
