package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptsWait is when a script that is still going must hang: well before the package's own
// time is up, and well beyond what all of them take under the race detector, beside the
// other packages, on two slow processors.
const scriptsWait = 8 * time.Minute

// TestScript runs testdata/script. Scripts that name $NODE, $ROUTER or $NATS
// share one system of two nodes and a router; each has names and keys of its own.
func TestScript(t *testing.T) {
	t.Parallel()
	shared := sync.OnceValue(func() [3]string {
		s := startSystem(t, systemConfig{nodes: 2, flags: smallNode("--max-block", "64KiB", "--namespaces", "default,durable:write-through,scratch")})
		r := s.router()
		r.ready(patience)
		r.awaitMembers(2)
		return [3]string{s.nodes[0].addr, r.addr, s.nats.addr}
	})
	alone := func() [2]string { // of the one script that drains its only node
		s := startSystem(t, systemConfig{nodes: 1, flags: smallNode()})
		return [2]string{"nats://" + s.nats.addr, s.nodes[0].addr}
	}
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
			if strings.HasSuffix(env.WorkDir, "script-drain") {
				addrs := alone()
				env.Setenv("ALONE", addrs[0])
				env.Setenv("ALONENODE", addrs[1])
			}
			// With the race detector each command would sleep a second before it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("KEY", fmt.Sprintf("000001%026x", len(env.WorkDir)+int(time.Now().UnixNano()&0xffffff)))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expect": scriptExpect,
			"quick":  scriptQuick,
			"health": scriptHealth,
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
