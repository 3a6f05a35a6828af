package node

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/diskstore"
)

// watchedDisk is a disk tier that calls before with the key of each block that is put, and
// sync, if it is not nil, before each flush. It begins after the node's own record, which
// the node puts and flushes when it joins.
type watchedDisk struct {
	*diskstore.Store
	before func(block.Key)
	sync   func()
	joined chan struct{} // closed when the record is durable
}

func (d watchedDisk) Sync(ctx context.Context) error {
	select {
	case <-d.joined:
		if d.sync != nil {
			d.sync()
		}
	default:
		defer close(d.joined)
	}
	return d.Store.Sync(ctx)
}

func (d watchedDisk) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	if desc.Key != bornKey {
		d.before(desc.Key)
	}
	return d.Store.Put(ctx, desc, src)
}

func joinWatched(t *testing.T, before func(block.Key), sync func()) *Node {
	tiers := testTiers{host: 8 << 20, disk: 64 << 20}.open(t)
	joined := make(chan struct{})
	tiers.Disk = watchedDisk{tiers.Disk.(*diskstore.Store), before, sync, joined}
	n, _ := newMemCluster().join(t, "n1", tiers, func(c *Config) { c.OffloadWorkers = 1 }) // a block that comes waits for the one on its way
	<-joined
	return n
}

// flushBegins begins a flush, which must not end while a block is on its way, and does
// meanwhile, if it is not nil. What is returned gives the flush's end.
func flushBegins(t *testing.T, n *Node, meanwhile func()) <-chan error {
	t.Helper()
	flushed := make(chan error, 1)
	go func() { flushed <- n.Flush(t.Context()) }()
	if meanwhile != nil {
		meanwhile()
	}
	select {
	case err := <-flushed:
		t.Errorf("flushed (%v) while a block was on its way", err)
		flushed <- err
	case <-time.After(50 * time.Millisecond): // long enough to notice it nearly always
	}
	return flushed
}

// A flush waits for what came before it, not for a moment when nobody writes.
func TestFlushEndsUnderWrites(t *testing.T) {
	const blocks = 50_000
	var n *Node
	var last atomic.Int64
	n = joinWatched(t, func(k block.Key) { // there is always another block that waits
		i := int(last.Load())
		if k != key(i) || i == blocks {
			return
		}
		if _, err := n.Put(context.Background(), key(i+1), block.Key{}, content(i+1, 512), coherency.WriteBack); err != nil { // none leaves the disk
			t.Errorf("put %d: %v", i+1, err)
		}
		last.CompareAndSwap(int64(i), int64(i+1))
	}, nil)
	defer last.Store(blocks)
	put(t, n, 0, coherency.WriteBack)
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := n.Explain(key(0)); !s.Durable {
		t.Errorf("not durable after a flush: %+v", s)
	}
	if i := last.Load(); i == 0 || i == blocks {
		t.Errorf("%d blocks came meanwhile: the flush did not end before the writes", i)
	}
}

// A block that waits for its offload while somebody else already brings it home is not
// durable before that has ended.
func TestFlushWaitsForAnothersFlush(t *testing.T) {
	entered := make(chan struct{})
	gates := map[block.Key]chan struct{}{key(0): make(chan struct{}), key(1): make(chan struct{})}
	n := joinWatched(t, func(k block.Key) {
		if gate := gates[k]; gate != nil {
			entered <- struct{}{}
			<-gate
		}
	}, nil)
	put(t, n, 0, coherency.WriteBack)
	<-entered // the offload brings block 0 home, and block 1 waits
	put(t, n, 1, coherency.WriteBack)
	through := make(chan error, 1)
	go func() {
		_, err := n.Put(t.Context(), key(1), block.Key{}, content(1, testBlock), coherency.WriteThrough)
		through <- err
	}()
	<-entered // and that brings block 1 home
	flushed := flushBegins(t, n, func() { close(gates[key(0)]) })
	close(gates[key(1)])
	for _, ch := range []<-chan error{through, flushed} {
		if err := <-ch; err != nil {
			t.Error(err)
		}
	}
	if s := n.Explain(key(1)); !s.Durable {
		t.Errorf("not durable after a flush: %+v", s)
	}
	nothingLeft(t, n)
}

// A write-back put of a block that is there, and not durable, is a promise like any other:
// also when whoever put it first still waits, or when it came from a peer.
func TestFlushAfterPutOfWhatIsThere(t *testing.T) {
	t.Run("another's write-through", func(t *testing.T) {
		entered, gate := make(chan struct{}), make(chan struct{})
		n := joinWatched(t, func(k block.Key) {
			if k == key(1) {
				entered <- struct{}{}
				<-gate
			}
		}, nil)
		through := make(chan error, 1)
		go func() {
			_, err := n.Put(t.Context(), key(1), block.Key{}, content(1, testBlock), coherency.WriteThrough)
			through <- err
		}()
		<-entered // and that brings it home
		for range 2 {
			if placed := put(t, n, 1, coherency.WriteBack); !placed.Existed {
				t.Error("it was not there")
			}
		}
		flushed := flushBegins(t, n, nil)
		close(gate)
		for _, ch := range []<-chan error{through, flushed} {
			if err := <-ch; err != nil {
				t.Error(err)
			}
		}
		if s := n.Explain(key(1)); !s.Durable {
			t.Errorf("not durable after a flush: %+v", s)
		}
		nothingLeft(t, n)
	})
	t.Run("a peer's", func(t *testing.T) {
		c := newMemCluster()
		a, _ := c.join(t, "a", testTiers{host: 4 << 20, disk: 16 << 20}.open(t), nil)
		b, _ := c.join(t, "b", testTiers{host: 4 << 20, disk: 16 << 20}.open(t), func(c *Config) { c.KeepWithin = never })
		put(t, a, 1, coherency.WriteThrough)
		for range 2 { // then it stays
			want(t, b, 1, Cluster)
		}
		if s := b.Explain(key(1)); s.Durable {
			t.Fatalf("durable at a node that has only fetched it: %+v", s)
		}
		if placed := put(t, b, 1, coherency.WriteBack); !placed.Existed {
			t.Error("it was not there")
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := b.Explain(key(1)); !s.Durable {
			t.Errorf("not durable after a flush: %+v", s)
		}
		nothingLeft(t, b)
	})
}

// A block that is removed while it goes home, and put again, is owed anew.
func TestPutAgainDuringOffload(t *testing.T) {
	for name, again := range map[string]int{"the same": 0, "something else": 1} {
		t.Run(name, func(t *testing.T) {
			var n *Node
			var puts atomic.Int64
			n = joinWatched(t, func(k block.Key) {
				if k == key(0) {
					puts.Add(1)
				}
			}, func() {
				if !puts.CompareAndSwap(1, 2) {
					return
				}
				n.Remove(key(0))
				if _, err := n.Put(context.Background(), key(0), block.Key{}, content(again, testBlock), coherency.WriteBack); err != nil {
					t.Error(err)
				}
			})
			put(t, n, 0, coherency.WriteBack)
			if err := n.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s := n.Explain(key(0)); !s.Durable {
				t.Errorf("not durable after a flush: %+v", s)
			}
			n.host.Delete(key(0)) // leave what is at home
			n.dropped(block.Host, key(0))
			loans, _ := n.Read(t.Context(), []block.Key{key(0)}, Local)
			if loans[0] == nil {
				t.Fatal("not on the disk")
			}
			defer loans[0].Release()
			if !bytes.Equal(loans[0].Bytes, content(again, testBlock)) {
				t.Error("wrong bytes on the disk")
			}
		})
	}
}
