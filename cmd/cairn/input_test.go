package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
)

// rawNode is a node of its own for tests that send it bytes which no client sends.
func rawNode(t *testing.T, flags ...string) (*system, *server) {
	t.Helper()
	s := startSystem(t, systemConfig{nodes: 1, flags: smallNode(append([]string{"--max-block", "64KiB", "--vram", "0"}, flags...)...)})
	return s, s.nodes[0]
}

func rawConn(t *testing.T, n *server, text string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", n.addr, oneCall)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestDeclaredSizes declares arguments of a gigabyte, in many ways and many times,
// and sends none of it: the node must not make memory of a promise.
func TestDeclaredSizes(t *testing.T) {
	t.Parallel()
	_, n := rawNode(t)
	before, err := n.memory("VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	frames := []string{
		"*3\r\n$3\r\nSET\r\n$4\r\nname\r\n$1073741824\r\n",
		"*3\r\n$3\r\nSET\r\n$1073741824\r\n",
		"*2\r\n$1073741824\r\n",
		"*5\r\n$9\r\nCAIRN.PUT\r\n$16\r\n0123456789abcdef\r\n$1\r\n-\r\n$1\r\n-\r\n$1073741824\r\n",
		"*1073741824\r\n$3\r\nGET\r\n",
		"*3\r\n$3\r\nSET\r\n$4\r\nname\r\n$281474976710656\r\n",
	}
	for range 20 {
		var held []net.Conn
		for _, f := range frames {
			held = append(held, rawConn(t, n, f))
		}
		for _, c := range held {
			c.Close()
		}
	}
	// A reply proves that the declaration itself has been read.
	for _, f := range []string{"*1073741824\r\n", "*3\r\n$3\r\nSET\r\n$4\r\nname\r\n$9999999999999999\r\n", "$1073741824\r\n"} {
		line, err := bufio.NewReader(rawConn(t, n, f)).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "-ERR") {
			t.Errorf("%q was answered %q, %v", f, line, err)
		}
	}
	after, err := n.memory("VmHWM")
	if err != nil {
		t.Fatal(err)
	}
	const most = 64 << 20
	if grown := after - before; grown > most {
		t.Errorf("memory grew by %s, want at most %s", bytesText(grown), bytesText(most))
	}
	if err := pingNode(t.Context(), n.addr); err != nil {
		t.Error(err)
	}
	t.Logf("memory grew by %s at most", bytesText(after-before))
}

// TestHalfFrames breaks connections in the middle of payloads: the slots into which
// these were being received must come back.
func TestHalfFrames(t *testing.T) {
	t.Parallel()
	s, n := rawNode(t)
	const conns, size = 40, 64 << 10
	used := func() int64 { return tierStatus(s.status(n), block.Host).Used }
	before := used()
	var held []net.Conn
	for i := range conns {
		held = append(held, rawConn(t, n, fmt.Sprintf("*3\r\n$3\r\nSET\r\n$7\r\nhalf-%02d\r\n$%d\r\n%s", i, size, make([]byte, size/2))))
	}
	await(t, patience, "slots are taken", func() error {
		if now := used(); now < before+conns*size {
			return fmt.Errorf("%d bytes used, %d before", now, before)
		}
		return nil
	})
	for i, c := range held {
		if i%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset in place of an end
		}
		c.Close()
	}
	await(t, patience, "slots come back", func() error {
		if now := used(); now != before {
			return fmt.Errorf("%d bytes used, %d before", now, before)
		}
		return nil
	})
	cn := s.dial(n, client.Config{})
	for i := range conns {
		if _, err := cn.GetName(t.Context(), fmt.Sprintf("half-%02d", i), nil); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("half a value was stored: %v", err)
		}
	}
	if err := cn.PutName(t.Context(), "whole", make([]byte, size)); err != nil {
		t.Error(err)
	}
}

// TestGarbage sends what is no protocol at all, and checks that the node answers
// others meanwhile.
func TestGarbage(t *testing.T) {
	t.Parallel()
	_, n := rawNode(t)
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "*-7\r\n", "*3\r\n:1\r\n", "\r\n\r\n\r\n",
		"*2\r\n$3\r\nGET\r\n$-5\r\n", strings.Repeat("x", 1<<20), "*1\r\n$3\r\nGETxx", "*0\r\n*1\r\n$0\r\n\r\n",
	} {
		conn, err := net.DialTimeout("tcp", n.addr, oneCall)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(oneCall))
		_, _ = conn.Write([]byte(text)) // the node may hang up in the middle
		if err := pingNode(t.Context(), n.addr); err != nil {
			t.Errorf("while %.40q was sent: %v", text, err)
		}
		conn.Close()
	}
	if !n.running() || strings.Contains(n.out.String(), "panic") {
		t.Errorf("the node has crashed:\n%s", tail(n.out.String(), 40))
	}
}

// TestFullDisk fills the file system under a node. Writes that need no disk go on,
// durable ones fail with their reason, reads stay right, and all is well once
// there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m,mode=0700"); err != nil {
		t.Skipf("a file system of 24 MiB cannot be mounted here (it takes root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := startSystem(t, systemConfig{nodes: 0, flags: smallNode("--segment", "1MiB")})
	s.dir = dir
	n := s.newNode("full")
	n.start()
	t.Cleanup(n.kill) // before the unmount
	cn, ctx := s.dial(n, client.Config{}), t.Context()
	brim, half := filepath.Join(dir, "brim"), filepath.Join(dir, "half")
	if err := os.WriteFile(half, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(brim, make([]byte, 24<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the file system is not full: %v", err)
	}
	const blocks, size = 400, 60_000 // 24 MiB in all: host memory has 8, the file system at first 0, then 12
	put := func(set uint64, i int, opts ...client.PutOption) error {
		k, p := benchKey(set, i), make([]byte, size)
		replay.Fill(p, k)
		_, err := cn.Put(ctx, k, block.Key{}, p, opts...)
		return err
	}
	durable := client.WithPolicy(client.WriteThrough)

	for i := range blocks {
		if err := put(1, i); err != nil {
			t.Fatalf("put %d on a full disk: %v", i, err)
		}
	}
	if err := put(2, 0, durable); !errors.Is(err, client.ErrNoSpace) {
		t.Errorf("a durable put on a full disk gave %v, want %v", err, client.ErrNoSpace)
	}
	if st := s.status(n); !strings.Contains(st.Trouble, "space") {
		t.Errorf("status does not tell of the full disk: %q", st.Trouble)
	}
	inMemory := readBack(t, ctx, cn, 1, blocks)
	if inMemory < 50 {
		t.Errorf("only %d of %d blocks are left in memory", inMemory, blocks)
	}

	if err := os.Remove(brim); err != nil {
		t.Fatal(err)
	}
	tries := 0
	took := await(t, patience, "durable puts work again", func() error { tries++; return put(2, tries, durable) })
	for i := range blocks { // twice what there is room for: the oldest go
		if err := put(3, i, durable); err != nil {
			t.Fatalf("durable put %d with some room: %v", i, err)
		}
	}
	found := readBack(t, ctx, cn, 3, blocks)
	n.kill()
	n.start()
	after := readBack(t, ctx, s.dial(n, client.Config{}), 3, blocks)
	if found < 100 || after < 100 {
		t.Errorf("%d of %d durable blocks were there, and %d after a crash", found, blocks, after)
	}
	t.Logf("full disk: %d of %d blocks stayed in memory; durable puts work %v after there was room; then %d, after a crash %d, of %d are there",
		inMemory, blocks, took.Round(time.Millisecond), found, after, blocks)
}

// readBack verifies blocks 0…n-1 of a set and returns how many are there.
func readBack(t *testing.T, ctx context.Context, cn *client.Node, set uint64, n int) (found int) {
	t.Helper()
	for i := range n {
		k := benchKey(set, i)
		p, err := cn.Get(ctx, k, nil)
		switch {
		case errors.Is(err, client.ErrNotFound):
		case err != nil:
			t.Errorf("block %d: %v", i, err)
		default:
			found++
			if wrong, _ := replay.Check(p, k); wrong > 0 {
				t.Errorf("block %d: %d bytes are wrong", i, wrong)
			}
		}
	}
	return found
}

// TestDamagedDisk flips bytes in the segments of a node that is down: what is
// damaged must be missed, and nothing wrong be served.
func TestDamagedDisk(t *testing.T) {
	t.Parallel()
	s, n := rawNode(t)
	cn := s.dial(n, client.Config{})
	const blocks = 200
	buf := make([]byte, 40_000)
	for i := range blocks {
		k := benchKey(9, i)
		replay.Fill(buf, k)
		if _, err := cn.Put(t.Context(), k, block.Key{}, buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := cn.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.kill()
	files, err := filepath.Glob(filepath.Join(s.dir, n.id, "blocks", "*"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, path := range files {
		flipped += flip(t, path, 300_000)
	}
	if flipped == 0 {
		t.Fatalf("no file to damage among %v", files)
	}
	n.start()
	found := readBack(t, t.Context(), s.dial(n, client.Config{}), 9, blocks)
	if found == 0 || found >= blocks {
		t.Errorf("%d of %d blocks were found after %d bytes had been damaged", found, blocks, flipped)
	}
	t.Logf("%d bytes flipped: %d of %d blocks are still there, all right; %d reads found damage", flipped, found, blocks,
		tierStatus(s.status(n), block.Disk).Corrupt)
}

// flip inverts one byte every so many in a file of blocks.
func flip(t *testing.T, path string, every int) (flipped int) {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil || len(p) < every {
		return 0
	}
	q := slices.Clone(p)
	for i := every / 2; i < len(q); i += every {
		if q[i] != 0 || i+1 < len(q) && q[i+1] != 0 { // not what was never written
			q[i] = ^q[i]
			flipped++
		}
	}
	if err := os.WriteFile(path, q, 0o600); err != nil {
		t.Fatal(err)
	}
	return flipped
}
