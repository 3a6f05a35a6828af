//go:build cuda && cgo

package fakedriver

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// childArgument makes the test binary the other process of these tests: see child.
const childArgument = "fakedriver-child"

// child loads the fake driver at the first argument and makes calls that it is told on its
// input, one a line, answering with a line each.
func child(args []string) int {
	runtime.LockOSThread()
	c, err := Open(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	page, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	u := user{c, nil, page}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(u.obey(strings.Fields(lines.Text())))
	}
	return 0
}

// obey carries out one line. A call is its name and numbers, of which "out" is the address
// of a word that comes back, and "buffer" that of bytes that bytes sets and shows.
func (u user) obey(line []string) string {
	buffer := u.out[2048:3072]
	switch line[0] {
	case "misuse":
		return fmt.Sprintf("%q", u.Misuse())
	case "leaks":
		return fmt.Sprintf("%+v", u.Leaks())
	case "set":
		p, _ := hex.DecodeString(line[1])
		copy(buffer, p)
		return "0"
	case "show":
		n, _ := strconv.Atoi(line[1])
		return hex.EncodeToString(buffer[:n])
	case "open":
		h, _ := hex.DecodeString(line[1])
		copy(u.out[64:128], h)
		var p uint64
		return fmt.Sprint(u.openHandle(&p, u.out[64:128], 1), p)
	}
	clear(u.out[:8])
	var args []uint64
	for _, word := range line[1:] {
		n, _ := strconv.ParseUint(word, 0, 64)
		switch word {
		case "out":
			n = addr(u.out)
		case "buffer":
			n = addr(buffer)
		}
		args = append(args, n)
	}
	r, ok := u.lib.call(line[0], args...)
	if !ok {
		return "no such call"
	}
	return fmt.Sprint(r, *(*uint64)(unsafe.Pointer(&u.out[0])))
}

// openHandle opens a handle. By the platform's convention a structure of 64 bytes that is
// passed by value lies in memory, whose place the caller in library.go knows.
func (u user) openHandle(p *uint64, handle []byte, flags int) int {
	clear(u.out[:8])
	r := u.lib.open(addr(u.out), [64]byte(handle), flags)
	*p = *(*uint64)(unsafe.Pointer(&u.out[0]))
	return r
}

// process is a child.
type process struct {
	testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t testing.TB, env ...string) process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, childArgument, driver.path)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("child: %v: %s", err, stderr.Bytes())
		}
	})
	return process{t, in, bufio.NewReader(out)}
}

// say sends a line and returns the answer's words.
func (p process) say(format string, args ...any) []string {
	p.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.Fatal(err)
	}
	return strings.Fields(line)
}

// want makes a call that must give result, and returns the word that it has put out.
func (p process) want(result int, format string, args ...any) string {
	p.Helper()
	got := p.say(format, args...)
	if got[0] != fmt.Sprint(result) {
		p.Fatalf("child: "+format+" gave %v, want %d; misuse: %v", append(args, got, result, p.say("misuse"))...)
	}
	return got[len(got)-1]
}

func (p process) context() {
	p.Helper()
	p.want(0, "cuInit 0")
	p.want(0, "cuCtxSetCurrent %s", p.want(0, "cuDevicePrimaryCtxRetain out 0"))
}

func (u user) handle(a uint64) []byte {
	u.t.Helper()
	u.ok("cuIpcGetMemHandle", addr(u.out), a)
	return bytes.Clone(u.out[:64])
}

// TestShared: two processes read and write the same device memory.
func TestShared(t *testing.T) {
	u := opened(t, 0)
	const n = 2<<20 + 100_000
	host := hostMemory(t, 4096)
	copy(host, pattern(512, 6))
	a := u.alloc(n)
	u.ok("cuMemcpyHtoD_v2", a+n-512, addr(host), 512)
	h := u.handle(a)
	p := start(t)
	p.context()
	answer := p.say("open %x", h)
	if answer[0] != "0" {
		t.Fatalf("open gave %v; %v", answer, p.say("misuse"))
	}
	theirs := answer[1]
	base, _ := strconv.ParseUint(theirs, 10, 64)
	p.want(0, "cuMemcpyDtoH_v2 buffer %d 512", base+n-512)
	if got := p.say("show 512")[0]; got != hex.EncodeToString(host[:512]) {
		t.Error("the other process reads other bytes")
	}
	p.want(0, "set 0102030405")
	p.want(0, "cuMemcpyHtoD_v2 %d buffer 5", base+7)
	u.ok("cuMemcpyDtoH_v2", addr(host), a+7, 5)
	if !bytes.Equal(host[:5], []byte{1, 2, 3, 4, 5}) {
		t.Errorf("the other process wrote 1…5, and here is %v", host[:5])
	}
	if again := p.say("open %x", h); again[0] != "0" || again[1] != theirs {
		t.Errorf("opened again it is %v, want the same address %s", again, theirs)
	}
	p.want(InvalidValue, "cuMemcpyDtoH_v2 buffer %d 512", base+n-511)
	p.want(InvalidValue, "cuMemFree_v2 %s", theirs)
	p.want(0, "cuIpcCloseMemHandle %s", theirs)
	p.want(0, "cuMemcpyDtoH_v2 buffer %s 1", theirs)
	p.want(0, "cuIpcCloseMemHandle %s", theirs)
	p.want(InvalidValue, "cuIpcCloseMemHandle %s", theirs)
	if l := strings.Join(p.say("leaks"), " "); !strings.Contains(l, "Imports:0") {
		t.Errorf("the other process holds %s", l)
	}
	u.ok("cuMemFree_v2", a)
	u.misused()
	p.want(IllegalAddress, "cuMemcpyDtoH_v2 buffer %s 1", theirs)
}

// TestFreedWhileShared: both sides are told.
func TestFreedWhileShared(t *testing.T) {
	u := opened(t, 0)
	a := u.alloc(2 << 20)
	p := start(t)
	p.context()
	theirs := p.say("open %x", u.handle(a))[1]
	u.ok("cuMemFree_v2", a)
	u.misused("mapped 1 times by other processes")
	p.want(IllegalAddress, "cuMemcpyDtoH_v2 buffer %s 1", theirs)
	if m := strings.Join(p.say("misuse"), " "); !strings.Contains(m, "freed by the process that exported") {
		t.Errorf("the other process is told %s", m)
	}
}

func TestHandlesRefused(t *testing.T) {
	u := opened(t, 0)
	a, kept := u.alloc(4096), u.alloc(4096)
	h := u.handle(a)
	var q uint64
	if r := u.openHandle(&q, h, 1); r != invalidContext {
		t.Errorf("a handle of this process gave %d", r)
	}
	u.want(InvalidValue, "cuIpcGetMemHandle", addr(u.out), a+1)
	u.want(InvalidValue, "cuIpcGetMemHandle", addr(u.out), 1)
	p := start(t)
	p.context()
	u.ok("cuMemFree_v2", a)
	p.want(InvalidHandle, "open %x", h)
	p.want(InvalidHandle, "open %x", make([]byte, 64))
	other := u.handle(kept)
	for what, i := range map[string]int{"file": 12, "size": 16, "cookie": 24} {
		bad := bytes.Clone(other)
		bad[i] ^= 1
		if got := p.say("open %x", bad); got[0] != fmt.Sprint(InvalidHandle) {
			t.Errorf("a handle with another %s gave %v", what, got)
		}
	}
	if got := p.say("open %x", other); got[0] != "0" {
		t.Errorf("the right handle gave %v", got)
	}
}

// TestEnvironment: what tells a process that nobody reaches otherwise what to do.
func TestEnvironment(t *testing.T) {
	p := start(t, "CAIRN_FAKE_DEVICES=3", "CAIRN_FAKE_MEMORY=65536", "CAIRN_FAKE_FAIL=cuInit:2:100,cuMemAlloc:2:719:1")
	p.want(3, "cuDeviceGetCount out") // not initialized yet
	p.context()
	p.want(NoDevice, "cuInit 0")
	if n := p.want(0, "cuDeviceGetCount out"); n != "3" {
		t.Errorf("%s devices", n)
	}
	p.want(OutOfMemory, "cuMemAlloc_v2 out 65537")
	p.want(LaunchFailed, "cuMemAlloc_v2 out 1")
	p.want(LaunchFailed, "cuStreamCreate out 1")
}

// TestSmallShared: a handle of what shares its block with others is given out, and noted.
func TestSmallShared(t *testing.T) {
	u := opened(t, 0)
	a := u.alloc(2<<20 - 1)
	u.handle(a)
	u.misused("lies with others in a block")
	u.ok("cuMemFree_v2", a)
}
