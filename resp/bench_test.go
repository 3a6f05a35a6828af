package resp

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
)

// staticHandler receives every payload into the connection's own memory and
// answers every GET from one block, so that only the protocol is measured.
type staticHandler struct{ slot, block []byte }

func (h *staticHandler) Payload(_ [][]byte, _, n int) ([]byte, error) {
	if n > len(h.slot) {
		return nil, fmt.Errorf("%d bytes", n)
	}
	return h.slot[:n], nil
}

func (h *staticHandler) Do(_ context.Context, w *Writer, cmd *Command) {
	switch string(cmd.Args[0]) {
	case "GET", "get":
		n := len(h.block)
		if len(cmd.Args) > 1 {
			if v, err := strconv.Atoi(string(cmd.Args[1])); err == nil && v <= n {
				n = v
			}
		}
		w.BulkRef(h.block[:n], nil)
	case "SET", "set":
		w.Status("OK")
	case "PING":
		w.Status("PONG")
	default:
		w.Error("ERR unknown command")
	}
}

func (h *staticHandler) Dropped(*Command) {}
func (h *staticHandler) Close()           {}

// serveStatic starts a server of static memory on network.
func serveStatic(b *testing.B, network string) string {
	block := pattern(8 << 20)
	_, addr := serve(b, network, ServerConfig{NewHandler: func(ConnInfo) Handler {
		return &staticHandler{slot: make([]byte, 8<<20), block: block}
	}}, nil)
	return addr
}

// BenchmarkTransfer moves values of one size between clients and a server in
// the same process, one command a round trip unless said otherwise.
func BenchmarkTransfer(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		for _, op := range []string{"get", "set", "get8"} {
			for _, size := range []int{64 << 10, 512 << 10, 2 << 20} {
				for _, clients := range []int{1, 8} {
					b.Run(fmt.Sprintf("%s/%s/%dKiB/%d", network, op, size>>10, clients), func(b *testing.B) {
						transfer(b, network, op, size, clients)
					})
				}
			}
		}
	}
}

func transfer(b *testing.B, network, op string, size, clients int) {
	addr := serveStatic(b, network)
	key := []byte(strconv.Itoa(size))
	conns := make([]*Conn, clients)
	bufs := make([][]byte, clients)
	for i := range conns {
		conns[i] = chainOf(b, network, addr, ClientConfig{Timeout: -1})
		bufs[i] = make([]byte, size)
	}
	work := make(chan struct{}, 1024)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			for range work {
				if err := once(c, op, key, bufs[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	step := 1
	if op == "get8" {
		step = 8
	}
	for n := 0; n < b.N; n += step {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

// once is one round trip.
func once(c *Conn, op string, key, buf []byte) error {
	switch op {
	case "set":
		c.Append("SET", key, buf)
		_, err := c.ReadStatus()
		return err
	case "get":
		c.Append("GET", key)
		_, err := c.ReadBulkInto(buf)
		return err
	}
	for range 8 {
		c.Append("GET", key)
	}
	for range 8 {
		if _, err := c.ReadBulkInto(buf); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkPing is the cost of a command without a payload, 100 in a chain.
func BenchmarkPing(b *testing.B) {
	addr := serveStatic(b, "unix")
	c := chainOf(b, "unix", addr, ClientConfig{Timeout: -1})
	b.ReportAllocs()
	for n := 0; n < b.N; n += 100 {
		for range 100 {
			c.Append("PING")
		}
		for range 100 {
			if _, err := c.ReadStatus(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
