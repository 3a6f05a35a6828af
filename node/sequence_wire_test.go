package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/resp"
	"cairn/sequence"
)

func dialNode(t *testing.T, addr string) *resp.Conn {
	t.Helper()
	conn, err := resp.Dial(t.Context(), "tcp", addr, resp.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.Begin(t.Context())
	return conn
}

// ask sends words and returns the reply as text, or the error's.
func ask(t *testing.T, conn *resp.Conn, words ...string) string {
	t.Helper()
	args := make([][]byte, len(words)-1)
	for i, w := range words[1:] {
		args[i] = []byte(w)
	}
	conn.Append(words[0], args...)
	v, err := conn.ReadReply()
	var reply resp.ServerError
	switch {
	case errors.As(err, &reply):
		return string(reply)
	case err != nil:
		t.Fatal(err)
	case v.Kind != resp.Array:
		return v.Text()
	}
	var b strings.Builder
	for _, e := range v.Elems {
		fmt.Fprint(&b, e.Text(), " ")
	}
	return strings.TrimSpace(b.String())
}

// An engine's request through the client: prompt, onboard, compute, generate, a
// speculation that was wrong, the end.
func TestSequenceThroughTheClient(t *testing.T) {
	c := newMemCluster()
	_, addr1 := c.join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	n2, addr2 := c.join(t, "n2", testTiers{vram: 4 << 20, host: 4 << 20, disk: 16 << 20}.open(t), nil)
	ctx := t.Context()
	cl, err := client.Open(ctx, client.Config{Nodes: []string{addr1}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	there, err := cl.Node(addr2)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]uint32, 22)
	for i := range tokens {
		tokens[i] = uint32(1000 + i)
	}
	prompt := func() *sequence.TokenSequence {
		q, err := sequence.New(4, sequence.Salt{}, nil)
		if err == nil {
			_, err = q.Extend(tokens)
		}
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	var parent block.Key
	for i, k := range prompt().Keys()[:3] {
		if _, err := cl.Put(ctx, k, parent, content(i, testBlock)); err != nil {
			t.Fatal(err)
		}
		parent = k
	}
	s, m, err := there.OpenSequence(ctx, prompt())
	if err != nil {
		t.Fatal(err)
	}
	if m != (client.Match{Prefix: 3}) || len(s.Keys()) != 5 {
		t.Errorf("matched %+v of %d blocks", m, len(s.Keys()))
	}
	got, err := s.Onboard(ctx, block.VRAM, sequence.Range{})
	if err != nil || got.Range != (sequence.Range{End: 3}) || got.From["peer"] != 3 || got.Missing != "absent" || got.Bytes != 3*testBlock || got.Elapsed <= 0 {
		t.Errorf("onboarded %+v, %v", got, err)
	}
	if stored, err := s.Commit(ctx, 3, [][]byte{content(3, testBlock), content(4, testBlock)}); err != nil || stored != 2 {
		t.Errorf("stored %d, %v", stored, err)
	}
	if r, err := s.Extend(ctx, []uint32{1, 2, 3, 4}); err != nil || r != (sequence.Range{Start: 5, End: 6}) {
		t.Errorf("extended by %v, %v", r, err)
	}
	if r, err := s.Extend(ctx, []uint32{5}); err != nil || !r.Empty() {
		t.Errorf("extended by %v, %v", r, err)
	}
	if stored, err := s.Commit(ctx, 5, [][]byte{content(5, 100)}); err != nil || stored != 1 { // small ones travel in another way
		t.Errorf("stored %d, %v", stored, err)
	}
	st, err := s.Status(ctx)
	if want := (client.SequenceStatus{Blocks: 6, Matched: client.Match{Prefix: 3}, VRAM: "[0,3)", Host: "[3,6)"}); err != nil || st != want {
		t.Errorf("status %+v, %v, want %+v", st, err, want)
	}
	if m, err := s.Match(ctx); err != nil || m != (client.Match{Prefix: 6, Local: 6}) {
		t.Errorf("matched %+v, %v", m, err)
	}
	read := make([][]byte, 5)
	found, err := s.Read(ctx, sequence.Range{Start: 1, End: 6}, func(i int, d block.Descriptor) []byte {
		read[i] = make([]byte, d.Length)
		return read[i]
	})
	for i, p := range read {
		if !bytes.Equal(p, content(1+i, len(p))) || !found[i] {
			t.Errorf("block %d read wrongly, %v", 1+i, err)
		}
	}
	if err := s.Unwind(ctx, 4); err != nil || len(s.Keys()) != 5 {
		t.Errorf("unwound to %d blocks, %v", len(s.Keys()), err)
	}
	if err := s.Truncate(ctx, 17); err != nil || len(s.Keys()) != 4 {
		t.Errorf("truncated to %d blocks, %v", len(s.Keys()), err)
	}
	if st, err = s.Status(ctx); err != nil || st.Host != "[3,4)" || st.Blocks != 4 {
		t.Errorf("status %+v, %v", st, err)
	}
	var length *sequence.LengthError
	if err := s.Unwind(ctx, 18); !errors.As(err, &length) {
		t.Errorf("unwound too far: %v", err)
	}
	if _, err := s.Commit(ctx, 4, [][]byte{content(4, testBlock)}); err == nil || !strings.Contains(err.Error(), "extend it first") {
		t.Errorf("committed beyond the end: %v", err)
	}
	if _, err := s.Commit(ctx, 3, [][]byte{content(9, testBlock)}); !errors.Is(err, client.ErrConflict) {
		t.Errorf("committed other bytes: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Match(ctx); !errors.Is(err, client.ErrSequence) {
		t.Errorf("after Close: %v", err)
	}
	if err := n2.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, n2, block.VRAM, 0)
	wantPinned(t, n2, block.Host, 0)
	checkDirectory(t, n2)
}

func TestSequenceCommands(t *testing.T) {
	c := newMemCluster()
	n, addr := c.join(t, "n1", testTiers{vram: 4 << 20, host: 4 << 20}.open(t), func(c *Config) {
		c.SequencesPerConnection, c.SequenceBlocks, c.SequencePins = 2, 8, 0.04
	})
	for i := range 4 {
		put(t, n, i, 0)
	}
	conn, other := dialNode(t, addr), dialNode(t, addr)
	k := func(i int) string { return key(i).String() }
	const ns = `{"model":"m","block_size":2}`
	for _, step := range []struct {
		conn *resp.Conn
		ask  string
		want string // its beginning
	}{
		{conn, "CAIRN.SEQ.OPEN KEYS " + k(0) + " " + k(1) + " " + k(2) + " " + k(3) + " " + k(4), "sequence 1 tokens 0 blocks 5 matched 4 local 4 vram  host  pending 5 busy 0"},
		{conn, "CAIRN.SEQ.ONBOARD 1 host 0 2", "tier host from 0 to 2 missing  vram 0 host 2 disk 0 peer 0 bytes 131072 microseconds"},
		{conn, "cairn.seq.onboard 1 VRAM 1 2", "tier vram from 1 to 2 missing  vram 0 host 1 disk 0 peer 0 bytes 65536"},
		{conn, "CAIRN.SEQ.ONBOARD 1 host", "PINNED too much pinned by sequences: 131072 of at most 167772 bytes of host, and 65536 more are needed: close or truncate"},
		{conn, "CAIRN.SEQ.STAT 1", "sequence 1 tokens 0 blocks 5 matched 4 local 4 vram [1,2) host [0,2) pending 3 busy 0"},
		{conn, "CAIRN.SEQ.ONBOARD 1 disk", "ERR no such tier for sequences: disk: want vram or host"},
		{conn, "CAIRN.SEQ.ONBOARD 1 tape", `ERR no such tier for sequences: "tape": want vram or host`},
		{conn, "CAIRN.SEQ.ONBOARD 1 host 0 6", "ERR position outside the sequence: blocks [0,6), its whole ones are [0,5)"},
		{conn, "CAIRN.SEQ.ONBOARD 1 host 0 1 2", "ERR wrong arguments: want CAIRN.SEQ.ONBOARD sequence vram|host [from [to]]"},
		{conn, "CAIRN.SEQ.ONBOARD 1 host x", `ERR from "x": want a number`},
		{conn, "CAIRN.SEQ.ONBOARD 1 host 0 x", `ERR to "x": want a number`},
		{conn, "CAIRN.SEQ.ONBOARD 1", "ERR wrong number of arguments for 'cairn.seq.onboard' command: want CAIRN.SEQ.ONBOARD sequence vram|host"},
		{conn, "cairn.seq.open words", "ERR wrong arguments: want CAIRN.SEQ.OPEN [AFTER token]"},
		{conn, "CAIRN.SEQ.ONBOARD 2 host", `NOSEQUENCE no such open sequence on this connection: "2"`},
		{other, "CAIRN.SEQ.ONBOARD 1 host", `NOSEQUENCE no such open sequence on this connection: "1": it belongs to another connection`},
		{other, "CAIRN.SEQ.CANCEL 1", "0"},
		{other, "CAIRN.SEQ.CANCEL 7", "NOSEQUENCE"},
		{conn, "CAIRN.SEQ.OPEN TOKENS " + ns + " 1 2 3 4 5", "sequence 2 tokens 5 blocks 2 matched 0"},
		{conn, "CAIRN.SEQ.EXTEND 2 TOKENS 6 7", "from 2 to 3"},
		{conn, "CAIRN.SEQ.EXTEND 2 PACKED abcdefgh", "from 3 to 4"},
		{conn, "CAIRN.SEQ.EXTEND 2 PACKED abc", "ERR packed tokens have 3 bytes"},
		{conn, "CAIRN.SEQ.EXTEND 2 TOKENS -1", `ERR token "-1"`},
		{conn, "CAIRN.SEQ.EXTEND 2 KEYS " + k(4), "ERR the sequence was opened with tokens"},
		{conn, "CAIRN.SEQ.EXTEND 1 TOKENS 1", "ERR the sequence was opened with keys"},
		{conn, "CAIRN.SEQ.EXTEND 2 WORDS a", "ERR wrong arguments: want CAIRN.SEQ.EXTEND sequence (KEYS"},
		{conn, "CAIRN.SEQ.EXTEND 2 TOKENS 1 2 3 4 5 6 7 8 9", "LIMIT limit of sequences: 9 blocks, max-sequence-blocks is 8"},
		{conn, "CAIRN.SEQ.COMMIT 2 0 - small", "stored 1 existed 0 token n1/"},
		{conn, "CAIRN.SEQ.COMMIT 2 0 - small", "stored 0 existed 1 token n1/"},
		{conn, "CAIRN.SEQ.COMMIT 2 0 - other", "CONFLICT block 0 of the sequence: block exists with other bytes"},
		{conn, "CAIRN.SEQ.COMMIT 2 4 - small", "ERR position outside the sequence: blocks [4,5), its whole ones are [0,4): extend it first"},
		{conn, "CAIRN.SEQ.COMMIT 2 first - small", `ERR position "first": want a number`},
		{conn, "CAIRN.SEQ.COMMIT 2 0 never small", "ERR"},
		{conn, "CAIRN.SEQ.STAT 2", "sequence 2 tokens 9 blocks 4 matched 0 local 0 vram  host [0,1) pending 3"},
		{conn, "CAIRN.SEQ.MATCH 2", "sequence 2 tokens 9 blocks 4 matched 1 local 1"},
		{conn, "CAIRN.SEQ.MATCH 2 NOW", "ERR wrong arguments: want CAIRN.SEQ.MATCH sequence [AFTER"},
		{conn, "CAIRN.SEQ.UNWIND 2 1", "sequence 2 tokens 8 blocks 4"},
		{conn, "CAIRN.SEQ.TRUNCATE 2 3", "sequence 2 tokens 3 blocks 1"},
		{conn, "CAIRN.SEQ.UNWIND 2 4", "ERR sequence: length out of range"},
		{conn, "CAIRN.SEQ.READ 2 0 2", "ERR position outside the sequence"},
		{conn, "CAIRN.SEQ.OPEN KEYS " + k(0), "LIMIT limit of sequences: this connection has 2 open"},
		{other, `CAIRN.SEQ.OPEN TOKENS {"model":"m","block_size":0} 1`, "ERR sequence: invalid namespace"},
		{other, `CAIRN.SEQ.OPEN TOKENS {"model":"m","blocksize":4} 1`, `ERR sequence: invalid namespace: unknown field "blocksize": want JSON such as`},
		{other, "CAIRN.SEQ.OPEN TOKENS " + ns + " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", "LIMIT limit of sequences: 9 blocks"},
		{other, "CAIRN.SEQ.OPEN KEYS " + k(1), "ERR position outside the sequence: key"},
		{other, "CAIRN.SEQ.OPEN KEYS", "sequence 3 tokens 0 blocks 0"},
		{other, "CAIRN.SEQ.EXTEND 3 KEYS " + k(0), "from 0 to 1"},
		{other, "CAIRN.SEQ.ONBOARD 3 vram", "tier vram from 0 to 1 missing "},
		{other, "RESET", "RESET"},
		{other, "CAIRN.SEQ.STAT 3", "NOSEQUENCE"},
		{conn, "CAIRN.SEQ.CLOSE 1", "OK"},
		{conn, "CAIRN.SEQ.CLOSE 1", "NOSEQUENCE"},
		{conn, "CAIRN.SEQ.CLOSE 2", "OK"},
	} {
		if got := ask(t, step.conn, strings.Split(step.ask, " ")...); !strings.HasPrefix(got, step.want) {
			t.Errorf("%s:\n got %s\nwant %s", step.ask, got, step.want)
		}
	}
	nothingPinned(t, n)
}

// Sequences that were closed because nobody used them do not count against a connection.
func TestForgottenSequencesOfAConnection(t *testing.T) {
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) {
		c.SequencesPerConnection, c.SequenceIdle = 1, time.Millisecond
	})
	conn := dialNode(t, addr)
	for _, id := range []string{"1", "2"} {
		if got := ask(t, conn, "CAIRN.SEQ.OPEN", "KEYS"); !strings.HasPrefix(got, "sequence "+id) {
			t.Fatalf("open %s: %s", id, got)
		}
		var number uint64
		fmt.Sscan(id, &number)
		if s, ok := n.sequences.find(number); ok {
			<-s.Done()
		}
	}
	for _, command := range []string{"STAT 2", "MATCH 2", "CLOSE 2"} {
		words := strings.Fields("CAIRN.SEQ." + command)
		if got := ask(t, conn, words...); !strings.HasPrefix(got, "NOSEQUENCE no such open sequence") {
			t.Errorf("%s: %s", command, got)
		}
	}
}

// Nor do those that are being closed.
func TestClosingSequencesOfAConnection(t *testing.T) {
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) { c.SequencesPerConnection = 1 })
	conn := dialNode(t, addr)
	ask(t, conn, "CAIRN.SEQ.OPEN", "KEYS")
	s, ok := n.sequences.find(1)
	if !ok {
		t.Fatal("it is not open")
	}
	_, done, err := s.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go s.Close()
	<-s.ended
	if got := ask(t, conn, "CAIRN.SEQ.STAT", "1"); !strings.HasPrefix(got, "NOSEQUENCE no such open sequence") {
		t.Errorf("what is being closed: %s", got)
	}
	if got := ask(t, conn, "CAIRN.SEQ.OPEN", "KEYS"); !strings.HasPrefix(got, "sequence 2") {
		t.Errorf("beside it: %s", got)
	}
	done()
	<-s.Done()
}

func nothingPinned(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, n, block.VRAM, 0)
	wantPinned(t, n, block.Host, 0)
}

// The reply of CAIRN.SEQ.READ is that of CAIRN.MGET.
func TestSequenceReadCommand(t *testing.T) {
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), nil)
	put(t, n, 0, 0)
	conn := dialNode(t, addr)
	ask(t, conn, "CAIRN.SEQ.OPEN", "KEYS", key(0).String(), key(1).String())
	conn.Append("CAIRN.SEQ.READ", []byte("1"), []byte("0"), []byte("2"))
	conn.Append("CAIRN.MGET", []byte("ANY"), []byte(key(0).String()), []byte(key(1).String()))
	a, err := conn.ReadReply()
	b, err2 := conn.ReadReply()
	if err != nil || err2 != nil || len(a.Elems) != 2 || !bytes.Equal(a.Elems[0].Bytes, b.Elems[0].Bytes) || !bytes.Equal(a.Elems[1].Bytes, content(0, testBlock)) {
		t.Errorf("%v, %v: %d elements", err, err2, len(a.Elems))
	}
}

// A connection that is dropped, idle or in the middle of an onboard, closes its sequences.
func TestDroppedConnectionReleases(t *testing.T) {
	for how, do := range map[string]func(g *gated, conn *resp.Conn, id []byte) error{
		"idle": func(g *gated, conn *resp.Conn, id []byte) error {
			conn.Append("CAIRN.SEQ.ONBOARD", id, []byte("vram"), []byte("0"), []byte("8"))
			_, err := conn.ReadReply()
			return err
		},
		"onboarding": func(g *gated, conn *resp.Conn, id []byte) error {
			conn.Append("CAIRN.SEQ.ONBOARD", id, []byte("vram"))
			err := conn.Flush()
			<-g.gate.reached
			return err
		},
		"onboarding, more to do": func(g *gated, conn *resp.Conn, id []byte) error {
			conn.Append("CAIRN.SEQ.ONBOARD", id, []byte("vram"))
			conn.Append("CAIRN.SEQ.ONBOARD", id, []byte("host"))
			err := conn.Flush()
			<-g.gate.reached
			return err
		},
	} {
		t.Run(how, func(t *testing.T) {
			g := newGated(t, 40, 20)
			conn := dialNode(t, g.addr2)
			words := []string{"CAIRN.SEQ.OPEN", "KEYS"}
			for _, k := range seqKeys(40) {
				words = append(words, k.String())
			}
			id := strings.Fields(ask(t, conn, words...))[1]
			s, ok := g.n2.sequences.find(1)
			if id != "1" || !ok {
				t.Fatalf("sequence %s is not open", id)
			}
			if err := do(g, conn, []byte(id)); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			<-s.Done()
			close(g.gate.open)
			nothingLeft(t, g.n2)
		})
	}
}

// A call whose context ends leaves the sequence as it was; another goes on.
func TestClientCancelsAnOnboard(t *testing.T) {
	g := newGated(t, 40, 20)
	cl, err := client.Open(t.Context(), client.Config{Nodes: []string{g.addr2}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	node, err := cl.Node(g.addr2)
	if err != nil {
		t.Fatal(err)
	}
	s, m, err := node.OpenSequenceKeys(t.Context(), seqKeys(40))
	if err != nil || m.Prefix != 40 {
		t.Fatal(m, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-g.gate.reached
		cancel()
	}()
	if got, err := s.Onboard(ctx, block.VRAM, sequence.Range{}); !errors.Is(err, context.Canceled) || !got.Range.Empty() {
		t.Errorf("onboarded %+v, %v", got, err)
	}
	close(g.gate.open)
	nothingLeft(t, g.n2)
	if got, err := s.Onboard(t.Context(), block.VRAM, sequence.Range{}); err != nil || got.Range.End != 40 {
		t.Errorf("onboarded %+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, g.n2)
}

// A context that has ended before the node has begun ends the call as well.
func TestClientCancelsBeforeAnOnboardBegins(t *testing.T) {
	for range 10 {
		g := newGated(t, 4, 2)
		cl, err := client.Open(t.Context(), client.Config{Nodes: []string{g.addr2}})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		node, err := cl.Node(g.addr2)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := node.OpenSequenceKeys(t.Context(), seqKeys(4))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := s.Onboard(ctx, block.VRAM, sequence.Range{}); !errors.Is(err, context.Canceled) || !got.Range.Empty() {
			t.Errorf("onboarded %+v, %v", got, err)
		}
		close(g.gate.open)
		nothingLeft(t, g.n2)
		if got, err := s.Onboard(t.Context(), block.VRAM, sequence.Range{}); err != nil || got.Range.End != 4 {
			t.Errorf("afterwards: %+v, %v", got, err)
		}
	}
}
