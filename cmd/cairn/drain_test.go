package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/node"
)

// drainBlock is the size of the blocks that these tests put, in bytes.
const drainBlock = 8 << 10

// drainKey is block i of a conversation; the first of all conversations is the same.
func drainKey(conversation, i int) block.Key {
	if i == 0 {
		conversation = 0
	}
	key, err := block.NewKey(i, [block.HashSize]byte{byte(conversation), byte(conversation >> 8), 0xd7, byte(i)})
	if err != nil {
		panic(err)
	}
	return key
}

func drainBytes(key block.Key) []byte {
	return bytes.Repeat(key[:], drainBlock/block.KeySize)
}

// putConversations puts blocks at a node, parents first, and returns their keys.
func putConversations(t *testing.T, n *client.Node, from, to int) (keys []block.Key) {
	t.Helper()
	for conversation := from; conversation < to; conversation++ {
		var parent block.Key
		for i := range 3 + conversation%5 {
			key := drainKey(conversation, i)
			if _, err := n.Put(t.Context(), key, parent, drainBytes(key)); err != nil {
				t.Fatal(err)
			}
			if i > 0 || conversation == 0 {
				keys = append(keys, key)
			}
			parent = key
		}
	}
	return keys
}

// wantAll reads every block at a node, which may ask its peers, and checks each byte.
func wantAll(t *testing.T, n *client.Node, keys []block.Key) {
	t.Helper()
	await(t, patience, fmt.Sprintf("%d blocks at %s", len(keys), n.Addr()), func() error {
		for _, key := range keys {
			got, err := n.Get(t.Context(), key, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			if !bytes.Equal(got, drainBytes(key)) {
				t.Fatalf("%s has other bytes", key)
			}
		}
		return nil
	})
}

// wantNames reads the names as fresh as can be.
func wantNames(t *testing.T, n *client.Node, names int) {
	t.Helper()
	for i := range names {
		got, err := n.GetName(t.Context(), fmt.Sprint("name", i), nil, client.Strict())
		if err != nil || !bytes.Equal(got.Value, drainBytes(drainKey(i, 1))) {
			t.Errorf("name%d at %s: %v, or another value", i, n.Addr(), err)
		}
	}
}

// ran waits for the end of a process and returns its exit code.
func ran(t *testing.T, p *process) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("cairn %v did not end within %v:\n%s", p.args, patience, p.out.String())
		return 0
	}
}

// TestDrainThenKill drains a node through the binary, while blocks are still being put there, kills it
// without mercy, and finds every block at the others. Then it drains one of these.
func TestDrainThenKill(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 3, flags: smallNode("--disk", "128MiB", "--handover-rate", "8MiB")})
	url := "nats://" + s.nats.addr
	var at []*client.Node
	for _, n := range s.nodes {
		at = append(at, s.dial(n, client.Config{}))
	}
	keys := putConversations(t, at[0], 0, 60)
	const names = 40
	for i := range names {
		if err := at[i%3].PutName(t.Context(), fmt.Sprint("name", i), drainBytes(drainKey(i, 1)), client.WithPolicy(client.WriteThrough)); err != nil {
			t.Fatal(err)
		}
	}
	p := cairn(t, nil, "drain", "n1", "--no-wait", "--nats", url)
	if code := ran(t, p); code != 0 {
		t.Fatalf("exit %d: %s", code, p.out.String())
	}
	keys = append(keys, putConversations(t, at[0], 60, 80)...)
	p = cairn(t, nil, "drain", "n1", "--nats", url)
	if code := ran(t, p); code != 0 {
		t.Fatalf("exit %d: %s", code, p.out.String())
	}
	t.Logf("%s", p.out.String())
	s.nodes[0].kill()
	for _, n := range at[1:] {
		wantAll(t, n, keys)
		wantNames(t, n, names)
	}
	var held []int64
	for _, n := range s.nodes[1:] {
		st := s.status(n)
		held = append(held, st.Taken)
		if disk := tierStatus(st, block.Disk); disk.Objects < int64(len(keys))/4 || disk.Evictions > 0 {
			t.Errorf("%s has %d of %d blocks on its disk, and evicted %d", n.id, disk.Objects, len(keys), disk.Evictions)
		}
	}
	t.Logf("%d blocks, taken over: %v", len(keys), held)

	// The dead node does not count as one that could take anything.
	p = cairn(t, nil, "drain", "n2", "--nats", url)
	if code := ran(t, p); code != 0 {
		t.Fatalf("exit %d: %s", code, p.out.String())
	}
	s.nodes[1].kill()
	wantAll(t, at[2], keys)
	wantNames(t, at[2], names)
	// The last one has nobody left.
	p = cairn(t, nil, "drain", "n3", "--nats", url)
	if code := ran(t, p); code != exitUnavailable {
		t.Errorf("exit %d: %s", code, p.out.String())
	}
	s.nodes = s.nodes[2:]
	s.stop()
}

// TestDrainInterrupted: the command's end is not the drain's, which takes some twenty seconds.
func TestDrainInterrupted(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 2, flags: smallNode("--handover-rate", "50KiB")})
	cn := s.dial(s.nodes[0], client.Config{})
	keys := putConversations(t, cn, 0, 30)
	p := cairn(t, nil, "drain", "n1", "--nats", "nats://"+s.nats.addr)
	status := func() node.HandoverStatus { return s.status(s.nodes[0]).Handover }
	await(t, patience, "the drain has begun", func() error {
		if st := status(); st.Blocks == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	p.signal(syscall.SIGINT)
	if code := ran(t, p); code != exitFailure || !strings.Contains(p.out.String(), "n1 goes on draining") {
		t.Errorf("exit %d: %s", code, p.out.String())
	}
	before := status()
	if before.LeftBlocks == 0 || !before.Draining {
		t.Errorf("after the interruption: %+v", before)
	}
	await(t, patience, "the drain goes on", func() error {
		if st := status(); st.Blocks <= before.Blocks {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	undo := cairn(t, nil, "drain", "n1", "--undo", "--nats", "nats://"+s.nats.addr)
	if code := ran(t, undo); code != 0 || status().Draining {
		t.Errorf("exit %d: %s", code, undo.out.String())
	}
	wantAll(t, cn, keys)
	s.stop()
}

// TestDrainUnanswered interrupts the command when the node has begun to drain and has not
// answered yet: it says what it finds then, and what to do where it finds nothing.
func TestDrainUnanswered(t *testing.T) {
	t.Parallel()
	url := natstest.Server(t, cluster.ServerConfig{}).ClientURL()
	conn, err := cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for id, want := range map[string]string{"drains": "node drains goes on draining", "refuses": "asked again, node refuses does not drain", "mute": "node mute has not answered"} {
		t.Run(id, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			asked := make(chan struct{}) // whether it drains, after the interruption
			var once sync.Once
			pub, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: id, Incarnation: 1})
			if err != nil {
				t.Fatal(err)
			}
			svc, err := cluster.StartNodeService(conn, pub, cluster.NodeServiceConfig{
				Node: id, Status: func() any { return nil },
				Drain: func(q cluster.DrainRequest) (node.HandoverStatus, error) {
					switch {
					case !q.Look:
						interrupt()
						<-asked
					case ctx.Err() != nil:
						once.Do(func() { close(asked) })
						if id == "mute" {
							return node.HandoverStatus{}, fmt.Errorf("no answer")
						}
						return node.HandoverStatus{Draining: id == "drains"}, nil
					}
					return node.HandoverStatus{}, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer svc.Stop()
			if err := conn.NC.Flush(); err != nil { // the server has heard of the service
				t.Fatal(err)
			}
			c := &drainCmd{natsClient: natsClient{NATS: []string{url}}, Node: id, Wait: true}
			err = c.Run(&app{ctx: ctx, out: io.Discard, err: io.Discard, log: slog.New(slog.DiscardHandler)})
			if err == nil || exitCode(err) != exitFailure || !strings.Contains(err.Error(), want) {
				t.Errorf("exit code %d: %v; want %q", exitCode(err), err, want)
			}
		})
	}
}
