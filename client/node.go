package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// Node is one node of a cluster. All methods may be called in parallel.
type Node struct {
	c               *Client
	addr            string
	network, target string // addr as net.Dial takes it
	pool            *resp.Pool

	downUntil atomic.Int64 // nanoseconds since 1970
}

// Addr is the node's address as the client was given it.
func (n *Node) Addr() string { return n.addr }

func (n *Node) failed() { n.downUntil.Store(time.Now().Add(n.c.cfg.Cooldown).UnixNano()) }

func (n *Node) resting(now time.Time) bool { return now.UnixNano() < n.downUntil.Load() }

// chain runs f with a connection. A connection that was idle may have been closed
// by a node that restarted: such a failure is tried once more on a new one. What
// has run out of time is not, it would only do so again.
func (n *Node) chain(ctx context.Context, op string, f func(*resp.Conn) error) error {
	err, broke := n.try(ctx, f)
	if broke && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		err, _ = n.try(ctx, f)
	}
	return translate(ctx, op, n.addr, err, false)
}

// once is chain for what must not be done twice.
func (n *Node) once(ctx context.Context, op string, f func(*resp.Conn) error) error {
	err, broke := n.try(ctx, f)
	return translate(ctx, op, n.addr, err, broke)
}

// try runs f with a connection; broke tells that it broke on the way.
func (n *Node) try(ctx context.Context, f func(*resp.Conn) error) (err error, broke bool) {
	conn, err := n.pool.Get(ctx)
	if errors.Is(err, resp.ErrPoolClosed) {
		err = ErrClosed
	}
	if err != nil {
		return err, false
	}
	defer n.pool.Put(conn)
	err = f(conn)
	return err, err != nil && !conn.Usable()
}

// Ping asks whether the node answers.
func (n *Node) Ping(ctx context.Context) error {
	return n.command(ctx, "ping", "PING")
}

// Get reads a block into dst, which grows if it is too short, and returns the
// block's bytes.
func (n *Node) Get(ctx context.Context, key block.Key, dst []byte) ([]byte, error) {
	found, err := n.GetBatch(ctx, []block.Key{key}, func(_ int, d block.Descriptor) []byte {
		if cap(dst) < int(d.Length) {
			dst = make([]byte, d.Length)
		}
		dst = dst[:d.Length]
		return dst
	})
	if err == nil && !found[0] {
		err = fmt.Errorf("cairn: get %s at %s: %w", key, n.addr, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return dst, nil
}

// GetBatch reads blocks, in as few round trips as Config.Window allows. place is
// called, in the order of keys, with the index and the descriptor of each block that
// is about to arrive, and returns memory of the block's length for it; nil skips
// the block. found[i] tells that keys[i] arrived with the right checksum. A block
// that the cluster does not have is not an error. When a connection breaks the batch
// is asked for once more, and place called again.
func (n *Node) GetBatch(ctx context.Context, keys []block.Key, place func(i int, d block.Descriptor) []byte) (found []bool, err error) {
	var corrupt error
	err = n.chain(ctx, "get", func(conn *resp.Conn) error {
		found, corrupt, err = readBatch(conn, n, keys, place)
		return err
	})
	if err == nil {
		err = corrupt
	}
	return found, err
}

// readBatch is GetBatch by one connection. corrupt says that a block arrived damaged, err that
// the batch did not arrive.
func readBatch(conn *resp.Conn, n *Node, keys []block.Key, place func(i int, d block.Descriptor) []byte) (found []bool, corrupt, err error) {
	type arrival struct {
		d   block.Descriptor
		dst []byte
	}
	placed := make([]arrival, len(keys))
	found = make([]bool, len(keys))
	err = wire.ReadBatch(conn, wire.Any, keys, n.c.cfg.Window,
		func(i int, d block.Descriptor) ([]byte, error) {
			dst := place(i, d)
			if len(dst) != int(d.Length) {
				return nil, errSkipped
			}
			placed[i] = arrival{d, dst}
			return dst, nil
		},
		func(i int) {
			// Right after its arrival, while the bytes are in the processor's cache.
			if found[i] = placed[i].d.Matches(placed[i].dst); !found[i] {
				corrupt = fmt.Errorf("cairn: get %s at %s: %w", keys[i], n.addr, ErrCorrupt)
			}
		})
	return found, corrupt, err
}

var errSkipped = errors.New("skipped by the caller")

// Put stores p, which it only reads, as the block key, the successor of parent in
// its sequence (zero: the first). stored tells that the node did not have it yet.
// Other bytes under the same key are ErrConflict.
func (n *Node) Put(ctx context.Context, key, parent block.Key, p []byte, opts ...PutOption) (stored bool, err error) {
	o := options(opts)
	err = n.chain(ctx, "put", func(conn *resp.Conn) error {
		conn.AppendHeader(5)
		conn.AppendString("CAIRN.PUT")
		conn.AppendArg(key[:])
		if parent.IsZero() {
			conn.AppendString("-")
		} else {
			conn.AppendArg(parent[:])
		}
		conn.AppendString(orDash(o.policy))
		conn.AppendArg(p)
		if _, err := conn.ReadArrayLen(); err != nil {
			return err
		}
		new, err := conn.ReadInt()
		if err != nil {
			return err
		}
		text, err := conn.ReadReply()
		if err != nil {
			return err
		}
		token, err := wire.ParseToken(text.Text())
		if err != nil {
			return err
		}
		n.c.remember(token)
		stored = new == 1
		return nil
	})
	return stored, err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Match is what a node knows of a sequence of blocks.
type Match struct {
	// Prefix is how many leading blocks the cluster has.
	Prefix int
	// Local is how many leading blocks the node asked has itself.
	Local int
}

// Match returns the longest prefix of keys that is cached. It sees everything
// that this Client has put before, at whichever node.
func (n *Node) Match(ctx context.Context, keys []block.Key) (m Match, err error) {
	tokens := n.c.newest()
	err = n.chain(ctx, "match", func(conn *resp.Conn) error {
		conn.AppendHeader(2 + 2*len(tokens) + len(keys))
		conn.AppendString("CAIRN.MATCH")
		for _, t := range tokens {
			conn.AppendString("AFTER")
			conn.AppendString(t.String())
		}
		conn.AppendString("KEYS")
		for i := range keys {
			conn.AppendArg(keys[i][:])
		}
		if _, err := conn.ReadArrayLen(); err != nil {
			return err
		}
		prefix, err := conn.ReadInt()
		if err != nil {
			return err
		}
		local, err := conn.ReadInt()
		m = Match{Prefix: int(prefix), Local: int(local)}
		return err
	})
	return m, err
}

// Exists tells whether the node or its peers have the block.
func (n *Node) Exists(ctx context.Context, key block.Key) (bool, error) {
	m, err := n.Match(ctx, []block.Key{key})
	return m.Prefix == 1, err
}

// Flush returns when all is durable that the node has acknowledged before and still has. What
// its disk refused earlier is tried again. [ErrNoSpace], or another error of the disk, says that
// blocks are in memory only, and may be evicted there.
func (n *Node) Flush(ctx context.Context) error {
	return n.command(ctx, "flush", "CAIRN.FLUSH")
}

// command sends a command that answers with a status.
func (n *Node) command(ctx context.Context, op, name string, args ...[]byte) error {
	return n.chain(ctx, op, func(conn *resp.Conn) error {
		conn.Append(name, args...)
		_, err := conn.ReadStatus()
		return err
	})
}

// Status is the node's own report, as JSON (docs/protocol.md).
func (n *Node) Status(ctx context.Context) (json.RawMessage, error) {
	return n.text(ctx, "status", "CAIRN.STAT")
}

// Explain says where a block is, as JSON (docs/protocol.md). what is a key in
// hexadecimal or a name.
func (n *Node) Explain(ctx context.Context, what string) (json.RawMessage, error) {
	return n.text(ctx, "explain", "CAIRN.EXPLAIN", []byte(what))
}

// text sends a command whose reply is a bulk string. The command is about names
// where it names something.
func (n *Node) text(ctx context.Context, op, command string, args ...[]byte) (p []byte, err error) {
	err = n.chain(ctx, op, func(conn *resp.Conn) error {
		return n.within(conn, "", func() { conn.Append(command, args...) }, func() error {
			v, err := conn.ReadReply()
			p = []byte(v.Text())
			return err
		})
	})
	return p, err
}

// Scan yields the names of the namespace, and then the keys of the node's sealed
// blocks with "block:" in front, that match a pattern of Redis's SCAN. A name may
// come twice. After an error nothing more comes.
func (n *Node) Scan(ctx context.Context, pattern string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		cursor := "0"
		for {
			page, next, err := n.scanPage(ctx, cursor, pattern)
			if err != nil {
				yield("", err)
				return
			}
			for _, name := range page {
				if !yield(name, nil) {
					return
				}
			}
			if cursor = next; cursor == "0" {
				return
			}
		}
	}
}

// scanCount is how many keys one SCAN looks at, about.
const scanCount = "1000"

func (n *Node) scanPage(ctx context.Context, cursor, pattern string) (page []string, next string, err error) {
	ask := func(conn *resp.Conn) {
		conn.Append("SCAN", []byte(cursor), []byte("MATCH"), []byte(pattern), []byte("COUNT"), []byte(scanCount))
	}
	err = n.chain(ctx, "scan", func(conn *resp.Conn) error {
		return n.within(conn, "", func() { ask(conn) }, func() error {
			if _, err := conn.ReadArrayLen(); err != nil {
				return err
			}
			v, err := conn.ReadReply()
			if err != nil {
				return err
			}
			next = v.Text()
			list, err := conn.ReadReply()
			page = nil
			for _, e := range list.Elems {
				page = append(page, e.Text())
			}
			return err
		})
	})
	return page, next, err
}
