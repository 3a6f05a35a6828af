package node

import (
	"context"
	"sync"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// dialer keeps connections to the peers' data planes.
type dialer struct {
	cfg Config

	// mu guards pools.
	mu    sync.Mutex
	pools map[string]*resp.Pool
}

func newDialer(cfg Config) *dialer { return &dialer{cfg: cfg, pools: map[string]*resp.Pool{}} }

func (d *dialer) pool(addr string) (*resp.Pool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.pools[addr]; ok {
		return p, nil
	}
	p, err := resp.NewPool("tcp", addr, resp.PoolConfig{MaxActive: d.cfg.PeerConnections})
	if err != nil {
		return nil, err
	}
	d.pools[addr] = p
	return p, nil
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pools {
		p.Close()
	}
	clear(d.pools)
}

// fetch asks the node at addr for blocks that it holds itself; see
// wire.ReadBatch.
func (d *dialer) fetch(ctx context.Context, addr string, keys []block.Key, place wire.Place, arrived func(i int)) error {
	pool, err := d.pool(addr)
	if err != nil {
		return err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return err
	}
	defer pool.Put(conn)
	return wire.ReadBatch(conn, wire.Local, keys, d.cfg.MaxBatch, place, arrived)
}

// take has the node at addr take over blocks of this node, which is called self; see
// Node.Take.
func (d *dialer) take(ctx context.Context, addr, self string, evict bool, keys []block.Key) (Taken, error) {
	pool, err := d.pool(addr)
	if err != nil {
		return Taken{}, err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return Taken{}, err
	}
	defer pool.Put(conn)
	conn.AppendHeader(3 + len(keys))
	conn.AppendString("CAIRN.TAKE")
	conn.AppendString(self)
	conn.AppendString(takeMode(evict))
	for i := range keys {
		conn.AppendArg(keys[i][:])
	}
	return readTaken(conn)
}

// drop makes the node at addr forget a block, and reports whether it had it.
func (d *dialer) drop(ctx context.Context, addr string, key block.Key) (bool, error) {
	pool, err := d.pool(addr)
	if err != nil {
		return false, err
	}
	conn, err := pool.Get(ctx)
	if err != nil {
		return false, err
	}
	defer pool.Put(conn)
	conn.Append("CAIRN.DROP", key[:])
	n, err := conn.ReadInt()
	return n > 0, err
}
