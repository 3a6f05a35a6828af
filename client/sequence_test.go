package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/sequence"
)

func tokensOf(tb testing.TB, n int) *sequence.TokenSequence {
	tb.Helper()
	q, err := sequence.New(4, sequence.Salt{}, nil)
	if err == nil {
		_, err = q.Extend(make([]uint32, n))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return q
}

// openSeq opens a client of one server, and a sequence there.
func openSeq(t *testing.T, tokens int) (*server, *client.Client, *client.Sequence) {
	t.Helper()
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	q, m, err := c.OpenSequence(t.Context(), tokensOf(t, tokens))
	if err != nil || m != (client.Match{}) {
		t.Fatal(m, err)
	}
	t.Cleanup(func() { q.Close() })
	return s, c, q
}

// Tokens that do not complete a block are not worth a round trip.
func TestSequenceAsksOnlyForWholeBlocks(t *testing.T) {
	s, _, q := openSeq(t, 6)
	ctx := t.Context()
	for i, want := range []sequence.Range{{Start: 1, End: 1}, {Start: 1, End: 2}, {Start: 2, End: 2}} {
		if r, err := q.Extend(ctx, []uint32{uint32(i)}); err != nil || r != want {
			t.Errorf("token %d completes %v, %v, want %v", i, r, err, want)
		}
	}
	if n := s.count("CAIRN.SEQ.EXTEND"); n != 1 {
		t.Errorf("the node was told %d times", n)
	}
	if err := q.Unwind(ctx, 1); err != nil { // 8 tokens are left: no block goes
		t.Fatal(err)
	}
	if err := q.Unwind(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if n := s.count("CAIRN.SEQ.TRUNCATE"); n != 1 || len(q.Keys()) != 1 {
		t.Errorf("the node was told %d times, %d blocks are left", n, len(q.Keys()))
	}
}

func TestSequenceSeesWhatTheClientPut(t *testing.T) {
	s, c, q := openSeq(t, 8)
	if _, err := c.Put(t.Context(), q.Keys()[0], block.Key{}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if m, err := q.Match(t.Context()); err != nil || m.Prefix != 1 {
		t.Errorf("matched %+v, %v", m, err)
	}
	if call := s.last("CAIRN.SEQ.MATCH"); len(call) != 4 || call[2] != "AFTER" || call[3] != "n1/1/1" {
		t.Errorf("asked %q", call)
	}
}

func TestSequenceErrors(t *testing.T) {
	s, _, q := openSeq(t, 8)
	ctx := t.Context()
	if _, err := q.ExtendKeys(ctx, []block.Key{key(2)}); err == nil || errors.Is(err, client.ErrUnavailable) {
		t.Errorf("keys for a sequence of tokens: %v", err)
	}
	var length *sequence.LengthError
	if err := q.Truncate(ctx, -1); !errors.As(err, &length) {
		t.Errorf("truncated to -1: %v", err)
	}
	if _, err := q.Read(ctx, sequence.Range{Start: 1, End: 3}, nil); err == nil {
		t.Error("read beyond the end")
	}
	s.on("CAIRN.SEQ.EXTEND", refuse)
	if r, err := q.Extend(ctx, make([]uint32, 4)); !errors.Is(err, client.ErrUnavailable) || !r.Empty() || len(q.Keys()) != 2 {
		t.Errorf("refused: %v, %v, %d blocks", r, err, len(q.Keys()))
	}
	s.setFault(nil)
	if _, err := q.Extend(ctx, make([]uint32, 4)); err != nil { // the sequence is as before
		t.Error(err)
	}
	s.on("CAIRN.SEQ.MATCH", hangUp)
	if _, err := q.Match(ctx); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("hung up: %v", err)
	}
	if _, err := q.Match(ctx); !errors.Is(err, client.ErrSequence) {
		t.Errorf("afterwards: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Errorf("close of a broken one: %v", err)
	}
}

func TestSequenceThatTheNodeHasClosed(t *testing.T) {
	s, c, _ := openSeq(t, 8)
	n, err := c.Node(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	q, _, err := n.OpenSequenceKeys(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := q.ExtendKeys(t.Context(), nil); err != nil || !r.Empty() {
		t.Errorf("extended by nothing: %v, %v", r, err)
	}
	s.restart(t)
	if _, err := q.Match(t.Context()); err == nil {
		t.Error("the node has restarted")
	}
	if _, err := q.Onboard(t.Context(), block.VRAM, sequence.Range{}); !errors.Is(err, client.ErrSequence) {
		t.Errorf("onboard: %v", err)
	}
}

// An engine brings what is cached of a prompt into GPU memory, computes and commits the
// rest, and goes on by what it generates.
func ExampleClient_OpenSequence() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	salt, err := sequence.Namespace{Model: "llama-3.1-8b", BlockSize: 4}.Salt()
	if err != nil {
		log.Fatal(err)
	}
	request := func(prompt []uint32, generated ...uint32) {
		tokens, err := sequence.New(4, salt, nil)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := tokens.Extend(prompt); err != nil {
			log.Fatal(err)
		}
		s, _, err := c.OpenSequence(ctx, tokens)
		if err != nil {
			log.Fatal(err)
		}
		defer s.Close()
		got, err := s.Onboard(ctx, block.VRAM, sequence.Range{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("blocks %v need not be computed\n", got.Range)
		if _, err := s.Extend(ctx, generated); err != nil {
			log.Fatal(err)
		}
		var computed [][]byte
		for i := range s.Keys()[got.Range.End:] {
			computed = append(computed, fmt.Appendf(nil, "state of block %d", got.Range.End+i))
		}
		stored, err := s.Commit(ctx, got.Range.End, computed)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d blocks were computed\n", stored)
	}
	request([]uint32{1, 2, 3, 4, 5, 6, 7, 8, 9}, 10, 11, 12)
	request([]uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	// Output:
	// blocks [0,0) need not be computed
	// 3 blocks were computed
	// blocks [0,3) need not be computed
	// 1 blocks were computed
}
