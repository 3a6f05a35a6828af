package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of these tests for something that should come.
const patience = time.Minute

// poll is how often a condition is looked at that nothing announces.
const poll = 10 * time.Millisecond

// await looks at a condition until it holds, and returns how long that took.
// cond returns what is missing, or nil.
func await(t testing.TB, within time.Duration, what string, cond func() error) time.Duration {
	t.Helper()
	took, err := awaitErr(t.Context(), within, cond)
	if err != nil {
		t.Fatalf("%s: not within %v: %v", what, within, err)
	}
	return took
}

func awaitErr(ctx context.Context, within time.Duration, cond func() error) (time.Duration, error) {
	began := time.Now()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := cond()
		if took := time.Since(began); err == nil || took > within {
			return took, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Since(began), errors.Join(err, ctx.Err())
		}
	}
}

// output collects what a process writes, and wakes who waits for a line of it.
type output struct {
	// mu guards what follows.
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed at the next write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	text, _ := o.look()
	return text
}

func (o *output) look() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.text.String(), o.changed
}

// process is cairn with some arguments.
type process struct {
	t    testing.TB
	args []string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed at its end; err is set before
	err  error
}

// cairn starts a process, which ends with the test at the latest.
func cairn(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	leash, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, args: args, cmd: exec.Command(exe, args...), done: make(chan struct{})}
	p.cmd.Env = slices.Concat(cleanEnv(), []string{childEnv + "=1", leashEnv + "=1"}, env)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.ExtraFiles = []*os.File{leash}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	leash.Close()
	go func() {
		p.err = p.cmd.Wait()
		held.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("cairn %s (%v):\n%s", strings.Join(args, " "), p.err, tail(p.out.String(), 40))
		}
	})
	return p
}

// cleanEnv is the environment without anything that cairn would take for a flag.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "CAIRN_") })
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// says waits until the process has written what re matches, and returns the
// groups.
func (p *process) says(re *regexp.Regexp) ([]string, error) {
	timeout := time.After(patience)
	for {
		text, changed := p.out.look()
		if m := re.FindStringSubmatch(text); m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-p.done:
			if m := re.FindStringSubmatch(p.out.String()); m != nil {
				return m, nil
			}
			return nil, fmt.Errorf("cairn %s ended (%v):\n%s", p.args[0], p.err, p.out.String())
		case <-timeout:
			return nil, fmt.Errorf("cairn %s did not say %s within %v:\n%s", p.args[0], re, patience, p.out.String())
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%v to cairn %s: %v", s, p.args[0], err)
	}
}

// kill ends the process as a crash would.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop ends the process as an operator would, and fails the test unless it ends
// well and in time.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("cairn %s: stop: %v\n%s", p.args[0], p.err, tail(p.out.String(), 20))
		}
	case <-time.After(patience):
		p.t.Errorf("cairn %s did not stop within %v\n%s", p.args[0], patience, tail(p.out.String(), 20))
		p.kill()
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
