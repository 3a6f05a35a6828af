package faultproxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// patience bounds what must happen; soon is how long we look at what must not.
const (
	patience = time.Minute
	soon     = 50 * time.Millisecond
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func start(t *testing.T, word string) *Proxy {
	t.Helper()
	p, err := ListenMasked(echo(t), word)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a line, and reads one back within so long after that.
func exchange(c net.Conn, line string, within time.Duration) (string, error) {
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

// once is exchange through a connection of its own.
func once(p *Proxy, line string) (string, error) {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return "", err
	}
	defer c.Close()
	return exchange(c, line, patience)
}

func TestForwards(t *testing.T) {
	p := start(t, "")
	c := dial(t, p)
	data := bytes.Repeat([]byte("0123456789"), 1<<19)
	go func() {
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c) // ends because the end of the stream passes as well
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back: %v", len(got), len(data), err)
	}
}

func TestCut(t *testing.T) {
	p := start(t, "")
	c := dial(t, p)
	if _, err := exchange(c, "before", patience); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if _, err := exchange(c, "during", patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("through a cut connection: %v", err)
	}
	if _, err := once(p, "during"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("through a new connection while cut: %v", err)
	}
	p.Heal()
	if got, err := once(p, "after"); got != "after\n" {
		t.Fatalf("after Heal: %q, %v", got, err)
	}
}

func TestHang(t *testing.T) {
	p := start(t, "")
	c := dial(t, p)
	if _, err := exchange(c, "before", patience); err != nil {
		t.Fatal(err)
	}
	p.Hang()
	if got, err := exchange(c, "during", soon); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("through a hung connection: %q, %v", got, err)
	}
	p.Heal()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(c).ReadString('\n'); got != "during\n" {
		t.Fatalf("what was sent meanwhile: %q, %v", got, err)
	}
}

func TestDelay(t *testing.T) {
	p := start(t, "")
	c := dial(t, p)
	const d = 30 * time.Millisecond
	p.Delay(d)
	began := time.Now()
	if _, err := exchange(c, "slow", patience); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*d {
		t.Fatalf("there and back took %v, want %v at least", took, 2*d)
	}
}

func TestMask(t *testing.T) {
	p := start(t, `"urls"`)
	c := dial(t, p)
	for in, want := range map[string]string{
		`{"urls":1}`: `{"urlsX:1}`, `""urls""urls"`: `""urlsX"urlsX`, `"url"urls`: `"url"urls`,
	} {
		if got, err := exchange(c, in, patience); got != want+"\n" {
			t.Errorf("%s became %q (%v), want %s", in, got, err, want)
		}
	}
	m := masker{word: []byte("abc")}
	one, two := []byte("xa"), []byte("bc")
	m.apply(one)
	m.apply(two)
	if string(one)+string(two) != "xabX" {
		t.Errorf("across chunks: %s%s", one, two)
	}
}

func TestNoTarget(t *testing.T) {
	p, err := Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := once(p, "nobody"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("without a target: %v", err)
	}
	p.SetTarget(echo(t))
	if _, err := once(p, "somebody"); err != nil {
		t.Fatal(err)
	}
}

// TestClose: nothing is left, whatever state the connections are in.
func TestClose(t *testing.T) {
	p := start(t, "")
	c := dial(t, p)
	if _, err := exchange(c, "before", patience); err != nil {
		t.Fatal(err)
	}
	p.Hang()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := p.Open(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}
