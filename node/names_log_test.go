package node

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"

	"cairn/block"
)

// slowLog is a log of names whose readers can be held back, each by itself, and
// nodes whose index of blocks can be blind: what happens in a cluster where
// events take their time.
type slowLog struct {
	c *memCluster

	mu       sync.Mutex
	last     map[block.Key]uint64
	sequence uint64
	readers  map[string]*slowReader
}

type slowReader struct {
	node *Node
	asks chan string // ids that Peer was asked for, if not nil

	mu    sync.Mutex // held while changes are applied, which keeps their order
	held  bool
	blind bool
	queue []Name
}

func newSlowLog() *slowLog {
	return &slowLog{c: newMemCluster(), last: map[block.Key]uint64{}, readers: map[string]*slowReader{}}
}

// slowPort is what one node sees of it.
type slowPort struct {
	port
	log *slowLog
	r   *slowReader
}

func (p slowPort) Append(_ context.Context, n Name, expect *uint64) (uint64, error) {
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if expect != nil && l.last[n.Key] != *expect {
		return 0, ErrNameConflict
	}
	l.sequence++
	n.Sequence, n.Name = l.sequence, slices.Clone(n.Name)
	l.last[n.Key] = n.Sequence
	for _, r := range l.readers {
		r.mu.Lock()
		if r.queue = append(r.queue, n); !r.held {
			r.deliver()
		}
		r.mu.Unlock()
	}
	return n.Sequence, nil
}

func (r *slowReader) deliver() {
	for _, n := range r.queue {
		r.node.ApplyName(n)
	}
	r.queue = nil
}

// hold keeps changes from the node until release.
func (r *slowReader) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

func (r *slowReader) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	r.deliver()
}

// setBlind makes the node's index know no holders of anything.
func (r *slowReader) setBlind(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blind = on
}

func (p slowPort) Locate(keys []block.Key) [][]Holder {
	p.r.mu.Lock()
	blind := p.r.blind
	p.r.mu.Unlock()
	if blind {
		return make([][]Holder, len(keys))
	}
	return p.port.Locate(keys)
}

func (p slowPort) Peer(id string) (Holder, bool) {
	if p.r.asks != nil {
		select {
		case p.r.asks <- id:
		default:
		}
	}
	return p.port.Peer(id)
}

// forget drops a name's record, as age does.
func (l *slowLog) forget(key block.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, key)
}

// leave takes a node out of the cluster, as if it had died.
func (l *slowLog) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.readers, id)
	l.c.leave(id)
}

// join starts a node whose names come through the log.
func (l *slowLog) join(t *testing.T, id string) (*Node, *slowReader) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &slowReader{asks: make(chan string, 16)}
	p := slowPort{port: port{l.c, id}, log: l, r: r}
	l.c.mu.Lock()
	l.c.nodes[id] = &member{addr: listener.Addr().String()}
	l.c.mu.Unlock()
	n, err := New(Config{ID: id, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))},
		testTiers{host: 8 << 20}.open(t), Ports{Announcer: p, Peers: p, Names: p, Router: p})
	if err != nil {
		t.Fatal(err)
	}
	r.node = n
	l.mu.Lock()
	l.readers[id] = r
	l.mu.Unlock()
	serve(t, n, listener)
	return n, r
}
