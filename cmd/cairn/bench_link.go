package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// loopback measures what the loopback carries: pieces of a size, over some connections.
type loopback struct {
	connections, pieces, size, batch int

	room []byte
}

// tcp sends the pieces over bare connections.
func (l *loopback) tcp(ctx context.Context) (r rate, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	defer listener.Close()
	senders := make([]net.Conn, l.connections)
	receivers := make([]net.Conn, l.connections)
	for i := range l.connections {
		if senders[i], err = new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String()); err != nil {
			return r, err
		}
		defer senders[i].Close()
		if receivers[i], err = listener.Accept(); err != nil {
			return r, err
		}
		defer receivers[i].Close()
	}
	errs := make([]error, 2*l.connections)
	var wg sync.WaitGroup
	watch := startWatch()
	for i := range l.connections {
		mine := l.pieces / l.connections
		if i < l.pieces%l.connections {
			mine++
		}
		wg.Go(func() {
			p := make([]byte, l.size)
			for range mine {
				if _, err := senders[i].Write(p); err != nil {
					errs[2*i] = err
					return
				}
			}
		})
		wg.Go(func() {
			p := make([]byte, l.size)
			for range mine {
				if _, err := io.ReadFull(receivers[i], p); err != nil {
					errs[2*i+1] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return watch.read(int64(l.pieces)), errors.Join(errs...)
}

// reads asks a node for blocks as a peer does: in batches, each block verified on arrival.
// Every block has memory of its own, which was touched before: what is measured does not
// stay in the processor's cache any more than what is onboarded.
func (l *loopback) reads(ctx context.Context, addr string, keys []block.Key) (r rate, err error) {
	conns := make([]*resp.Conn, l.connections)
	for i := range conns {
		conn, err := resp.Dial(ctx, "tcp", addr, resp.ClientConfig{})
		if err != nil {
			return r, err
		}
		defer conn.Close()
		conns[i] = conn
	}
	type piece struct {
		keys []block.Key
		into []byte
	}
	batches := make(chan piece, len(keys)/l.batch+1)
	into := l.memory()
	for rest := keys; len(rest) > 0; {
		n := min(l.batch, len(rest))
		batches <- piece{rest[:n], into[:n*l.size]}
		rest, into = rest[n:], into[n*l.size:]
	}
	close(batches)
	errs := make([]error, l.connections)
	var wg sync.WaitGroup
	watch := startWatch()
	for i, conn := range conns {
		wg.Go(func() {
			for b := range batches {
				if err := l.readBatch(ctx, conn, b.keys, b.into); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return watch.read(int64(l.pieces)), errors.Join(errs...)
}

// memory is room for all pieces, the same for each round.
func (l *loopback) memory() []byte {
	if l.room == nil {
		l.room = make([]byte, l.pieces*l.size)
		for i := 0; i < len(l.room); i += 4 << 10 {
			l.room[i] = 1
		}
	}
	return l.room
}

func (l *loopback) readBatch(ctx context.Context, conn *resp.Conn, keys []block.Key, p []byte) error {
	conn.Begin(ctx)
	defer conn.End()
	var d block.Descriptor
	var dst []byte
	good := 0
	err := wire.ReadBatch(conn, wire.Local, keys, len(keys), func(i int, next block.Descriptor) ([]byte, error) {
		d, dst = next, p[i*l.size:][:l.size]
		return dst, nil
	}, func(int) {
		if d.Matches(dst) {
			good++
		}
	})
	if err == nil && good < len(keys) {
		err = fmt.Errorf("%d of %d blocks arrived", good, len(keys))
	}
	return err
}

// stopwatch measures the time that passes, and that of the processors for this process.
type stopwatch struct {
	began time.Time
	cpu   time.Duration
}

func startWatch() stopwatch { return stopwatch{time.Now(), processCPU()} }

// read is what was done since the start.
func (s stopwatch) read(ops int64) rate {
	return rate{ops, time.Since(s.began), processCPU() - s.cpu}
}
