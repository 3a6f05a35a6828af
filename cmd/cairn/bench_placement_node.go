package main

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"sync"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/node"
	"cairn/wire"
)

const (
	// placementChain is how many blocks a sequence of the benchmark has, and
	// placementCall how many changes are announced at once: what a node has landed of a
	// request, or evicted.
	placementChain = 64
	placementCall  = 16
	// placementTier is where they are.
	placementTier = block.Host
)

// placementSpan is what an announcer holds: sequences of placementChain blocks, numbered 0, 1,
// 2…, of which the blocks up to Added have been stored, first block first, and up to
// Removed have been removed again, last block first: so it is prefix-closed at any time.
type placementSpan struct {
	Node    string `json:"node"`
	Number  int    `json:"number"` // of the node; part of its keys
	Added   uint64 `json:"added"`
	Removed uint64 `json:"removed"`
}

// key is a block of a sequence.
func (s *placementSpan) key(chain uint64, position int) block.Key {
	var hash [block.HashSize]byte
	h := (chain*placementChain+uint64(position))*1024 + uint64(s.Number) + 1
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	binary.BigEndian.PutUint64(hash[:], h^h>>31)
	binary.BigEndian.PutUint32(hash[8:], uint32(s.Number))
	k, err := block.NewKey(position, hash)
	if err != nil {
		panic(err) // not reached: the position is small
	}
	return k
}

// added and removed are the blocks that are stored and removed as number n.
func (s *placementSpan) added(n uint64) block.Key {
	return s.key(n/placementChain, int(n%placementChain))
}

func (s *placementSpan) removed(n uint64) block.Key {
	return s.key(n/placementChain, placementChain-1-int(n%placementChain))
}

// holds tells whether a block is there.
func (s *placementSpan) holds(chain uint64, position int) bool {
	first := chain * placementChain
	return first+uint64(position) < s.Added && first+placementChain-1-uint64(position) >= s.Removed
}

// chains are the sequences of which something is there, as first and end.
func (s *placementSpan) chains() (first, end uint64) {
	return s.Removed / placementChain, (s.Added + placementChain - 1) / placementChain
}

// announcer is a node as far as placement goes: a directory that moves no bytes, the
// publisher and the service of a real one, and a lease.
type announcer struct {
	conn  *cluster.Conn
	lease *cluster.Lease
	pub   *cluster.Publisher
	svc   *cluster.NodeService
	stop  func()

	// mu orders changes of span with their announcements.
	mu      sync.Mutex
	span    placementSpan
	at      uint64        // position of the newest change
	changes []node.Change // of one call
}

// placementLease is long: what is measured is not how a machine that is short of
// processors renews leases.
const placementLease = time.Minute

func startAnnouncer(ctx context.Context, url string, number, blocks int) (_ *announcer, err error) {
	id := "n" + strconv.Itoa(number)
	n := &announcer{span: placementSpan{Node: id, Number: number, Added: uint64(blocks)}, stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.conn, err = cluster.Connect(ctx, cluster.ConnConfig{URLs: []string{url}, Name: id, ConnectTimeout: startWait}); err != nil {
		return nil, err
	}
	n.lease, err = cluster.Join(ctx, n.conn, cluster.Member{ID: id, Addr: id + ":1", StoreID: id}, cluster.LeaseConfig{TTL: placementLease})
	if err != nil {
		return nil, err
	}
	n.pub, err = cluster.NewPublisher(n.conn, cluster.PublisherConfig{Node: id, Incarnation: n.lease.Member().Incarnation})
	if err != nil {
		return nil, err
	}
	n.svc, err = cluster.StartNodeService(n.conn, n.pub, cluster.NodeServiceConfig{Node: id, Status: func() any { return n.pub.Stats() }})
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.pub.Run(run, n.walk) // it ends with its context
	}()
	n.stop = func() { cancel(); <-done }
	return n, nil
}

// close stops the node; its lease ends by itself.
func (n *announcer) close() error {
	n.stop()
	var errs []error
	if n.svc != nil {
		errs = append(errs, n.svc.Stop())
	}
	if n.conn != nil {
		errs = append(errs, n.conn.Close())
	}
	return errors.Join(errs...)
}

// walk is the node's cluster.Walk.
func (n *announcer) walk(yield func(block.Key, block.TierMask) bool) uint64 {
	covered := n.pub.Announce(nil)
	span, _ := n.now()
	for chain, end := span.chains(); chain < end; chain++ {
		for i := range placementChain {
			if span.holds(chain, i) && !yield(span.key(chain, i), block.MaskOf(placementTier)) {
				return covered
			}
		}
	}
	return covered
}

// now is what the node holds, and a token for all that it has announced.
func (n *announcer) now() (placementSpan, wire.Token) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.span, wire.Token{Node: n.span.Node, Incarnation: n.lease.Member().Incarnation, Position: n.at}
}

// change stores placementCall blocks, or removes as many of the oldest.
func (n *announcer) change(store bool) wire.Token {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes = n.changes[:0]
	for range placementCall {
		c := node.Change{Tier: placementTier, Stored: store}
		if store {
			c.Key = n.span.added(n.span.Added)
			n.span.Added++
		} else {
			c.Key = n.span.removed(n.span.Removed)
			n.span.Removed++
		}
		n.changes = append(n.changes, c)
	}
	n.at = n.pub.Announce(n.changes)
	return wire.Token{Node: n.span.Node, Incarnation: n.lease.Member().Incarnation, Position: n.at}
}

// work announces rate changes a second, stores and removals in turn, until ctx ends. Every
// so often it has sample told when a call was made, and what it has returned.
func (n *announcer) work(ctx context.Context, rate float64, every time.Duration, sample func(wire.Token, time.Time)) {
	began := time.Now()
	sampled := began
	gap := time.Duration(placementCall / rate * float64(time.Second))
	for i := 0; ctx.Err() == nil; i++ {
		if early := time.Until(began.Add(time.Duration(i) * gap)); early > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(early):
			}
		}
		now := time.Now()
		token := n.change(i%2 == 0)
		if now.Sub(sampled) >= every {
			sampled = now
			sample(token, now)
		}
	}
}
