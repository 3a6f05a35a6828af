package hostcache

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// locker notes what Config.Lock and its unlock were called with and when.
type locker struct {
	t        *testing.T
	mem      []byte
	unlocked int
	mapped   bool // the memory was still there when unlock ran
	err      error
}

func (l *locker) lock(mem []byte) (func() error, error) {
	l.mem = mem
	return func() error {
		l.unlocked++
		l.mapped = isMapped(l.t, l.mem)
		return l.err
	}, nil
}

// isMapped looks for an arena at the address of mem, which it does not touch.
func isMapped(t *testing.T, mem []byte) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprintf("%08x-", uintptr(unsafe.Pointer(&mem[0])))
	for line := range strings.Lines(string(maps)) {
		if strings.HasPrefix(line, start) && strings.Contains(line, "memfd:"+arenaName) {
			return true
		}
	}
	return false
}

func TestLockGetsTheArena(t *testing.T) {
	l := locker{t: t}
	c, err := Open(Config{Capacity: 1 << 20, Lock: l.lock})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.mem) != 1<<20 {
		t.Errorf("%d bytes were shown, want all %d", len(l.mem), 1<<20)
	}
	put(t, c, 1, 5000)
	v, err := c.View(keyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	first, at := uintptr(unsafe.Pointer(&l.mem[0])), uintptr(unsafe.Pointer(&v.Bytes[0]))
	if at < first || at >= first+uintptr(len(l.mem)) {
		t.Error("a block lies outside the memory that was shown")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if l.unlocked != 0 {
		t.Error("unlocked while a view is out")
	}
	v.Release()
	if l.unlocked != 1 || !l.mapped {
		t.Errorf("unlocked %d times, memory mapped: %v; want once, while mapped", l.unlocked, l.mapped)
	}
	if isMapped(t, l.mem) {
		t.Error("the memory is still mapped after the last release")
	}
}

func TestLockRefuses(t *testing.T) {
	refused := errors.New("no more page-locked memory")
	var mem []byte
	_, err := Open(Config{Capacity: 1 << 20, Lock: func(m []byte) (func() error, error) {
		mem = m
		return nil, refused
	}})
	if !errors.Is(err, refused) {
		t.Errorf("Open gave %v, want the error of Lock", err)
	}
	if isMapped(t, mem) {
		t.Error("the arena is still mapped")
	}
}

func TestUnlockFails(t *testing.T) {
	l := locker{t: t, err: errors.New("device is gone")}
	c, err := Open(Config{Capacity: 1 << 20, Lock: l.lock})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); !errors.Is(err, l.err) {
		t.Errorf("Close gave %v, want the error of unlock", err)
	}
	if isMapped(t, l.mem) {
		t.Error("the arena is still mapped")
	}
	if err := c.Close(); err != nil || l.unlocked != 1 {
		t.Errorf("second Close gave %v, unlocked %d times", err, l.unlocked)
	}
}

func TestLockWithoutUnlock(t *testing.T) {
	c := openTest(t, Config{Capacity: 1 << 20, Lock: func([]byte) (func() error, error) { return nil, nil }})
	put(t, c, 1, 5000)
}
