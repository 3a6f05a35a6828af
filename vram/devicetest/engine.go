package devicetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"cairn/vram"
)

// engineVariable makes a test binary an engine.
const engineVariable = "CAIRN_DEVICETEST_ENGINE"

// request is what a test asks of an engine, and answer what it says. Each is a line of JSON on the
// engine's standard input and output.
type request struct {
	Op     string // import, unimport, alloc, free, fill, check
	Handle vram.Handle
	Addr   vram.Addr
	At, N  int // where in the allocation, and how many bytes
	Seed   int
}

type answer struct {
	Err    string
	Handle vram.Handle
	Addr   vram.Addr
	Size   int64
}

// Engine is called by the TestMain of a package that uses [RunShared], before anything else that prints. In
// a process that is to be an engine it serves until it is told to stop, and ends the process; else
// it does nothing.
func Engine(open func() (vram.Device, error)) {
	if os.Getenv(engineVariable) == "" {
		return
	}
	if err := serve(open); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(open func() (vram.Device, error)) error {
	dev, err := open()
	if err != nil {
		return err
	}
	d, ok := dev.(vram.Sharer)
	if !ok {
		return errors.New("this device does not share its memory")
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return dev.Close()
		} else if err != nil {
			return err
		}
		a, err := r.carryOut(d)
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (r request) carryOut(d vram.Sharer) (a answer, err error) {
	switch r.Op {
	case "import":
		a.Addr, a.Size, err = d.Import(r.Handle)
	case "unimport":
		err = d.Unimport(r.Addr)
	case "alloc":
		if a.Addr, err = d.Alloc(int64(r.N)); err == nil {
			a.Handle, err = d.Export(a.Addr)
		}
	case "free":
		err = d.Free(r.Addr)
	case "fill", "check":
		err = r.move(d)
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	return a, err
}

func (r request) move(d vram.Sharer) error {
	s, err := d.NewStream()
	if err != nil {
		return err
	}
	want, got := pattern(r.Seed, r.N), make([]byte, r.N)
	at := r.Addr + vram.Addr(r.At)
	if r.Op == "fill" {
		return errors.Join(copyAndWait(s, func() error { return s.CopyIn(at, want) }), s.Close())
	}
	err = errors.Join(copyAndWait(s, func() error { return s.CopyOut(got, at) }), s.Close())
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes at %d are not those that were written", r.N, r.At)
	}
	return err
}

// engine is a process that is one.
type engine struct {
	t    *testing.T
	cmd  *exec.Cmd
	to   io.WriteCloser
	out  *json.Encoder
	in   *json.Decoder
	over bool
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	e := &engine{t: t, cmd: exec.Command(exe, "-test.run=^$")}
	e.cmd.Env = append(os.Environ(), engineVariable+"=1")
	e.cmd.Stderr = os.Stderr
	e.to, err = e.cmd.StdinPipe()
	must(t, err)
	from, err := e.cmd.StdoutPipe()
	must(t, err)
	e.out, e.in = json.NewEncoder(e.to), json.NewDecoder(from)
	must(t, e.cmd.Start())
	t.Cleanup(func() {
		if !e.over {
			e.kill()
		}
	})
	return e
}

// ask returns what the engine answers.
func (e *engine) ask(r request) (a answer) {
	e.t.Helper()
	if err := errors.Join(e.out.Encode(r), e.in.Decode(&a)); err != nil {
		e.t.Fatalf("the engine does not answer to %s: %v", r.Op, err)
	}
	return a
}

// must is ask for what has to succeed.
func (e *engine) must(r request) answer {
	e.t.Helper()
	a := e.ask(r)
	if a.Err != "" {
		e.t.Fatalf("the engine's %s: %s", r.Op, a.Err)
	}
	return a
}

// stop ends the engine in good order.
func (e *engine) stop() {
	e.t.Helper()
	e.over = true
	must(e.t, e.to.Close())
	if err := e.cmd.Wait(); err != nil {
		e.t.Errorf("the engine ended with %v", err)
	}
}

// kill ends it with what it has mapped.
func (e *engine) kill() {
	e.over = true
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait() // says that it was killed
}
