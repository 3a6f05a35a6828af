package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/client"
	"cairn/cluster"
	"cairn/node"
)

// system is a cluster of real processes: one NATS, nodes, routers.
type system struct {
	t     testing.TB
	dir   string
	flags []string // of every node
	nats  *server
	nodes []*server
}

// server is a process that can be killed and started again in its place: with the
// same arguments, data and address.
type server struct {
	t    testing.TB
	id   string
	args []string // without the address
	flag string   // that takes the address
	says *regexp.Regexp
	addr string // known after the first start
	*process
}

var (
	nodeSays   = regexp.MustCompile(`node \S+ serves (127\.0\.0\.1:\d+)`)
	routerSays = regexp.MustCompile(`router at http://(127\.0\.0\.1:\d+)/`)
	natsSays   = regexp.MustCompile(`NATS at nats://(127\.0\.0\.1:\d+)`)

	// portInUse is what a server says that does not get its address.
	portInUse = regexp.MustCompile(`address already in use|port is in use`)
)

// start starts the server at the address that it had, if any. Where somebody took
// the port meanwhile (an outgoing connection may), it tries until the port is free.
func (s *server) start() {
	s.t.Helper()
	if err := s.tryStart(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) tryStart() error {
	addr := s.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	_, err := awaitErr(s.t.Context(), patience, func() error {
		s.process = cairn(s.t, nil, append(s.args, s.flag, addr)...)
		m, err := s.process.says(s.says)
		if err != nil && portInUse.MatchString(s.process.out.String()) {
			return err
		}
		if err == nil {
			s.addr = m[1]
		}
		return nil
	})
	if err == nil && s.addr == "" {
		err = fmt.Errorf("%s did not start:\n%s", s.id, s.process.out.String())
	}
	return err
}

// config says what a system is made of; every node gets flags.
type systemConfig struct {
	nodes int
	flags []string
}

// smallNode are tiers that a test fills in a moment.
func smallNode(more ...string) []string {
	return append([]string{"--host", "8MiB", "--disk", "64MiB", "--segment", "4MiB", "--vram", "2MiB", "--classes", "4KiB,64KiB",
		"--lease", "2s", "--log-level", "warn"}, more...)
}

// startSystem starts NATS and the nodes, and returns when every node has joined.
func startSystem(t testing.TB, cfg systemConfig) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), flags: cfg.flags}
	s.nats = &server{t: t, id: "nats", flag: "--nats-listen", says: natsSays,
		args: []string{"nats", "--data", filepath.Join(s.dir, "nats"), "--log-level", "warn"}}
	s.nats.start()
	for i := range cfg.nodes {
		s.nodes = append(s.nodes, s.newNode(fmt.Sprintf("n%d", i+1)))
	}
	for _, n := range s.nodes { // all start at a time
		n.process = cairn(t, nil, append(n.args, n.flag, "127.0.0.1:0")...)
	}
	for _, n := range s.nodes {
		m, err := n.process.says(n.says)
		if err != nil {
			t.Fatal(err)
		}
		n.addr = m[1]
	}
	return s
}

func (s *system) newNode(id string) *server {
	args := []string{"node", "--id", id, "--data", filepath.Join(s.dir, id), "--nats", "nats://" + s.nats.addr}
	return &server{t: s.t, id: id, flag: "--listen", says: nodeSays, args: append(args, s.flags...)}
}

// stop ends the nodes as an operator would: each must leave in good order, also
// after what the test did to it.
func (s *system) stop() {
	s.t.Helper()
	for _, n := range s.nodes {
		n.stop()
	}
}

// router starts a router, which ends with the test.
func (s *system) router() *server {
	s.t.Helper()
	r := &server{t: s.t, id: "router", flag: "--listen", says: routerSays,
		args: []string{"router", "--nats", "nats://" + s.nats.addr, "--log-level", "warn"}}
	r.start()
	return r
}

// ready waits until the router knows all members and what they hold.
func (r *server) ready(within time.Duration) time.Duration {
	r.t.Helper()
	return await(r.t, within, "router is healthy", func() error { return healthyHTTP(r.t.Context(), "http://"+r.addr+"/healthz") })
}

// members are the ids and store ids that the router names.
func (r *server) members() (map[string]cluster.Member, error) {
	var list []cluster.Member
	if err := getJSON(r.t.Context(), "http://"+r.addr+"/v1/members", &list); err != nil {
		return nil, err
	}
	byID := map[string]cluster.Member{}
	for _, m := range list {
		byID[m.ID] = m
	}
	return byID, nil
}

// awaitMembers waits until the router names exactly so many members.
func (r *server) awaitMembers(n int) {
	r.t.Helper()
	await(r.t, patience, fmt.Sprintf("%d members", n), func() error {
		m, err := r.members()
		if err == nil && len(m) != n {
			err = fmt.Errorf("%d members", len(m))
		}
		return err
	})
}

// oneCall bounds a single question of the harness.
const oneCall = 20 * time.Second

func getJSON(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return doJSON(req, into)
}

func postJSON(ctx context.Context, url string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	return doJSON(req, into)
}

func doJSON(req *http.Request, into any) error {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(text))
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// dial makes a client of one node, which ends with the test.
func (s *system) dial(n *server, cfg client.Config) *client.Node {
	s.t.Helper()
	cfg.Nodes = []string{n.addr}
	cl, err := client.Open(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cl.Close() })
	cn, err := cl.Node(n.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	return cn
}

func (s *system) status(n *server) node.Status {
	s.t.Helper()
	st, err := nodeStatus(s.t.Context(), n.addr, oneCall)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// memory reads a figure such as VmRSS of a process, in bytes.
func (p *process) memory(what string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), what+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no " + what)
}
