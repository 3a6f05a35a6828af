package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/block"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptsWait is when a script that is still going must hang: well before the package's own
// time is up, and well beyond what all of them take under the race detector, beside the
// other packages, on two slow processors.
const scriptsWait = 8 * time.Minute

// scriptLease is the lease of the nodes of all scripts: none ends while a busy machine is
// slow, for scripts stop their nodes in good order.
const scriptLease = "1m"

// TestScript runs testdata/script. Scripts that name $NODE, $ROUTER or $NATS
// share one system of two nodes and a router; each has names and keys of its own. Those that
// start nodes have a NATS of their own: another member would change where the others find
// names and blocks.
func TestScript(t *testing.T) {
	t.Parallel()
	shared := sync.OnceValue(func() [3]string {
		s := startSystem(t, systemConfig{nodes: 2, flags: smallNode("--max-block", "64KiB", "--namespaces", "default,durable:write-through,scratch", "--lease", scriptLease)})
		r := s.router()
		r.ready(patience)
		r.awaitMembers(2)
		return [3]string{s.nodes[0].addr, r.addr, s.nats.addr}
	})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(scriptsWait),
		Setup: func(env *testscript.Env) error {
			addrs := shared()
			env.Setenv("NODE", addrs[0])
			env.Setenv("ROUTER", "http://"+addrs[1])
			env.Setenv("ROUTERADDR", addrs[1])
			env.Setenv("NATS", "nats://"+addrs[2])
			env.Setenv("NATSADDR", addrs[2])
			name := filepath.Base(env.WorkDir)
			switch name {
			case "script-drain":
				s := startSystem(t, systemConfig{nodes: 1, flags: smallNode("--lease", scriptLease)})
				env.Setenv("ALONE", "nats://"+s.nats.addr)
				env.Setenv("ALONENODE", s.nodes[0].addr)
			case "script-start":
				env.Setenv("OWNNATS", "nats://"+startSystem(t, systemConfig{}).nats.addr)
			}
			// With the race detector each command would sleep a second before it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("KEY", fmt.Sprintf("000001%026x", block.Checksum([]byte(name))))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expect": scriptExpect,
			"quick":  scriptQuick,
			"health": scriptHealth,
			"await":  scriptAwait,
			"says":   scriptSays,
			"bigfile": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), make([]byte, n), 0o600))
			},
		},
	})
}

// scriptExpect is "expect CODE args…": cairn must exit with CODE, say why unless
// that is 0, and look like no crash.
func scriptExpect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: expect EXITCODE [arg…]")
	}
	code := "0"
	if err := ts.Exec("cairn", args[1:]...); err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	stderr := ts.ReadFile("stderr")
	for _, crash := range []string{"panic", "goroutine ", "runtime error", ".go:"} {
		if strings.Contains(stderr, crash) {
			ts.Fatalf("cairn %s crashed:\n%s", strings.Join(args[1:], " "), stderr)
		}
	}
	if code != args[0] {
		ts.Fatalf("cairn %s: exit %s, want %s\n%s", strings.Join(args[1:], " "), code, args[0], stderr)
	}
	if code != "0" && strings.TrimSpace(stderr) == "" {
		ts.Fatalf("cairn %s: exit %s without a word", strings.Join(args[1:], " "), code)
	}
}

// scriptQuick is "quick DURATION CODE args…": cairn must end within the time.
func scriptQuick(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: quick DURATION EXITCODE [arg…]")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	began := time.Now()
	scriptExpect(ts, false, args[1:])
	if took := time.Since(began); took > limit {
		ts.Fatalf("cairn %s took %v, want at most %v", strings.Join(args[2:], " "), took, limit)
	}
}

// scriptHealth is "health ADDR": it waits until the server is healthy.
func scriptHealth(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: health ADDR")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := awaitErr(ctx, patience, func() error { return healthy(ctx, args[0]) }); err != nil {
		ts.Fatalf("%v", err)
	}
}

// scriptAwait is "await PATTERN args…": cairn is run again and again until it succeeds and its
// standard output matches. It may be unavailable until then, and nothing else.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await PATTERN arg…")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	_, err = awaitErr(context.Background(), patience, func() error {
		err := ts.Exec("cairn", args[1:]...)
		switch out := ts.ReadFile("stdout"); {
		case err != nil && err.Error() != fmt.Sprintf("exit status %d", exitUnavailable):
			ts.Fatalf("cairn %s: %v\n%s", strings.Join(args[1:], " "), err, ts.ReadFile("stderr"))
		case err != nil:
			return errors.New(ts.ReadFile("stderr"))
		case !re.MatchString(out):
			return fmt.Errorf("no %s in\n%s", re, out)
		}
		return nil
	})
	if err != nil {
		ts.Fatalf("cairn %s: not within %v: %v", strings.Join(args[1:], " "), patience, err)
	}
}

// scriptSays is "says FILE PATTERN": it waits until a process in the background has written
// that to its file.
func scriptSays(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: says FILE PATTERN")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	_, err = awaitErr(context.Background(), patience, func() error {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !re.Match(text) {
			err = fmt.Errorf("no %s in %q", re, text)
		}
		return err
	})
	if err != nil {
		ts.Fatalf("%s: not within %v: %v", args[0], patience, err)
	}
}
