package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"

	"cairn/block"
	"cairn/resp"
)

func TestTokenRoundTrip(t *testing.T) {
	for _, token := range []Token{{"n1", 1, 0}, {"a-b_c", 1<<64 - 1, 1<<64 - 1}} {
		got, err := ParseToken(token.String())
		if err != nil || got != token {
			t.Errorf("%s came back as %v, %v", token, got, err)
		}
	}
	for _, s := range []string{"", "n1", "n1/1", "/1/1", "n1/x y/1", "n1/1/-1", "n1/1/1/1", "n1/10000000000000000/1"} {
		if token, err := ParseToken(s); err == nil {
			t.Errorf("ParseToken(%q) = %v, want an error", s, token)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("n1/18c/7")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token {
			t.Errorf("%q: %v is read back as %v, %v", s, token, again, err)
		}
	})
}

// answerer replies to every CAIRN.MGET with what reply writes.
type answerer struct {
	asked *[]int // number of keys in each request
	reply func(w *resp.Writer, keys []block.Key)
}

func (a answerer) Payload([][]byte, int, int) ([]byte, error) { return nil, nil }
func (a answerer) Dropped(*resp.Command)                      {}
func (a answerer) Close()                                     {}

func (a answerer) Do(_ context.Context, w *resp.Writer, cmd *resp.Command) {
	var keys []block.Key
	for _, arg := range cmd.Args[2:] {
		keys = append(keys, block.Key(arg))
	}
	*a.asked = append(*a.asked, len(keys))
	a.reply(w, keys)
}

// dial serves the replies on a free port and connects to it.
func dial(t *testing.T, reply func(*resp.Writer, []block.Key)) (*resp.Conn, *[]int) {
	t.Helper()
	asked := &[]int{}
	server, err := resp.NewServer(resp.ServerConfig{NewHandler: func(resp.ConnInfo) resp.Handler { return answerer{asked, reply} }})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(context.Background(), l) }()
	conn, err := resp.Dial(t.Context(), "tcp", l.Addr().String(), resp.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	conn.Begin(t.Context())
	t.Cleanup(func() {
		conn.End()
		conn.Close()
		server.Shutdown(context.Background())
		<-done
	})
	return conn, asked
}

func testKeys(n int) []block.Key {
	keys := make([]block.Key, n)
	for i := range keys {
		keys[i] = block.Key{0, 0, byte(i), 0xca}
	}
	return keys
}

func content(k block.Key) []byte { return bytes.Repeat([]byte{k[2] + 1}, 100+int(k[2])) }

func TestReadBatch(t *testing.T) {
	const room = 3 // blocks that one reply has room for
	conn, asked := dial(t, func(w *resp.Writer, keys []block.Key) {
		h := NewBatchHeader(len(keys))
		var found [][]byte
		for _, k := range keys {
			switch {
			case len(found) == room:
				h.Deferred()
			case k[2]%5 == 4:
				h.Absent()
			default:
				p := content(k)
				h.Found(block.Describe(k, block.Key{9}, p))
				found = append(found, p)
			}
		}
		w.Array(1 + len(found))
		w.Bulk(h)
		for _, p := range found {
			w.Bulk(p)
		}
	})
	keys := testKeys(20)
	got := make([][]byte, len(keys))
	arrived := map[int]bool{}
	err := ReadBatch(conn, Any, keys, 8, func(i int, d block.Descriptor) ([]byte, error) {
		if i == 7 {
			return nil, errors.New("not wanted")
		}
		if d.Key != keys[i] || d.Parent != (block.Key{9}) {
			t.Errorf("block %d: descriptor %v", i, d)
		}
		got[i] = make([]byte, d.Length)
		return got[i], nil
	}, func(i int) { arrived[i] = true })
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		want := i%5 != 4 && i != 7
		if arrived[i] != want {
			t.Errorf("block %d: arrived %v, want %v", i, arrived[i], want)
		}
		if want && !bytes.Equal(got[i], content(k)) {
			t.Errorf("block %d has wrong bytes", i)
		}
	}
	for _, n := range *asked {
		if n > 8 {
			t.Errorf("%d blocks in one request, the window is 8", n)
		}
	}
}

func TestReadBatchRefusesWhatIsNoBatch(t *testing.T) {
	for name, reply := range map[string]func(w *resp.Writer, keys []block.Key){
		"short header": func(w *resp.Writer, _ []block.Key) { w.Array(1); w.Bulk([]byte("short")) },
		"more found than sent": func(w *resp.Writer, keys []block.Key) {
			h := NewBatchHeader(len(keys))
			for _, k := range keys {
				h.Found(block.Describe(k, block.Key{}, []byte("x")))
			}
			w.Array(1)
			w.Bulk(h)
		},
		"larger than any block": func(w *resp.Writer, keys []block.Key) {
			h := NewBatchHeader(len(keys))
			for range keys {
				h.Found(block.Descriptor{Length: block.MaxLength + 1})
			}
			w.Array(1 + len(keys))
			w.Bulk(h)
			for range keys {
				w.Bulk([]byte("x"))
			}
		},
		"all deferred": func(w *resp.Writer, keys []block.Key) {
			h := NewBatchHeader(len(keys))
			for range keys {
				h.Deferred()
			}
			w.Array(1)
			w.Bulk(h)
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _ := dial(t, reply)
			err := ReadBatch(conn, Local, testKeys(2), 8,
				func(_ int, d block.Descriptor) ([]byte, error) { return make([]byte, d.Length), nil }, func(int) {})
			if !errors.Is(err, ErrBatch) {
				t.Errorf("got %v, want ErrBatch", err)
			}
		})
	}
}

// A node that has no room to send one block puts an error in its place; the
// others arrive.
func TestReadBatchSkipsARefusedBlock(t *testing.T) {
	conn, _ := dial(t, func(w *resp.Writer, keys []block.Key) {
		h := NewBatchHeader(len(keys))
		for _, k := range keys {
			h.Found(block.Describe(k, block.Key{}, content(k)))
		}
		w.Array(1 + len(keys))
		w.Bulk(h)
		for i, k := range keys {
			if i == 1 {
				w.Error("BUSY try again")
				continue
			}
			w.Bulk(content(k))
		}
	})
	var arrived []int
	err := ReadBatch(conn, Local, testKeys(3), 8,
		func(_ int, d block.Descriptor) ([]byte, error) { return make([]byte, d.Length), nil },
		func(i int) { arrived = append(arrived, i) })
	if err != nil || len(arrived) != 2 {
		t.Errorf("arrived %v, %v", arrived, err)
	}
}
