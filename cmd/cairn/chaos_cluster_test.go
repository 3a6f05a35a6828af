package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/coherency"
	"cairn/internal/faultproxy"
	"cairn/node"

	"golang.org/x/sys/unix"
)

const (
	// chaosLease is far shorter than an election of NATS, so that leases end.
	chaosLease = 2 * time.Second
	// smallDisk is the file system of the node whose disk fills up.
	smallDisk = 96 << 20
	// mostStarts and startPause say how often a node is started that ends at once.
	mostStarts = 10
	startPause = time.Second
)

// The namespaces of a round.
const (
	spaceThrough = "wt"
	spaceAll     = "wa"
	spaceBack    = "wb"
	spaceCopies  = "rb" // write-back with two copies
	spaceLease   = "ls" // lease mode
)

var chaosSpaces = []string{spaceThrough, spaceAll, spaceBack, spaceCopies, spaceLease}

// chaosNamespaces are the namespaces as they should be; every version is on two homes.
var chaosNamespaces = map[string]node.Namespace{
	spaceThrough: {Name: spaceThrough, Policy: coherency.WriteThrough, Homes: 2},
	spaceAll:     {Name: spaceAll, Policy: coherency.WriteAll, Homes: 2},
	spaceBack:    {Name: spaceBack, Policy: coherency.WriteBack, Homes: 2},
	spaceCopies:  {Name: spaceCopies, Policy: coherency.WriteBack, Homes: 2, Copies: 2},
	spaceLease:   {Name: spaceLease, Policy: coherency.WriteThrough, Homes: 2, Lease: true},
}

// namespaceFlag is how a node is told of a namespace.
func namespaceFlag(ns node.Namespace) string {
	text := fmt.Sprintf("%s:%s:homes=%d", ns.Name, ns.Policy, ns.Homes)
	if ns.Copies > 0 {
		text += fmt.Sprintf(":copies=%d", ns.Copies)
	}
	if ns.Lease {
		text += ":lease"
	}
	return text
}

// chaosCluster is a cluster of real processes in which every connection between
// them passes through a proxy: three NATS servers with every stream kept three
// times, and three nodes.
type chaosCluster struct {
	t     testing.TB
	dir   string
	nats  []*server
	nodes []*chaosNode
	conn  *cluster.Conn // of the test, without a proxy
}

// chaosNode is a node and the ways to and from it.
type chaosNode struct {
	*server
	// life is odd while the process is down; it changes with every end and start.
	life atomic.Int64
	at   string // where clients reach it: the address of its first start, which it keeps
	// socket is where engines on its machine do, whatever becomes of the network.
	socket string
	data   *faultproxy.Proxy   // through which its peers reach it
	nats   []*faultproxy.Proxy // through which it reaches NATS
	disk   string              // where its file system can be filled; "" if it cannot
	said   string              // what its former processes wrote
}

// startChaos starts everything and returns when all nodes serve.
func startChaos(t testing.TB) *chaosCluster {
	t.Helper()
	c := &chaosCluster{t: t, dir: t.TempDir()}
	c.startNATS(3)
	for i := range 3 {
		c.nodes = append(c.nodes, c.newNode(i))
	}
	for _, n := range c.nodes { // one after the other: the first makes the streams
		if err := n.up(); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := cluster.Connect(t.Context(), cluster.ConnConfig{URLs: c.natsURLs(), Name: "chaos", ConnectTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c.conn = conn
	return c
}

// startNATS starts servers that know each other's places from the beginning. Where somebody
// took one of these meanwhile, it tries others.
func (c *chaosCluster) startNATS(n int) {
	c.t.Helper()
	for {
		err := c.tryNATS(n)
		if err == nil {
			return
		}
		if !portInUse.MatchString(err.Error()) || c.t.Context().Err() != nil {
			c.t.Fatal(err)
		}
		for _, s := range c.nats {
			s.kill()
		}
	}
}

func (c *chaosCluster) tryNATS(n int) error {
	c.t.Helper()
	c.nats = nil
	ports := chaosPorts(c.t, n)
	var routes []string
	for _, p := range ports {
		routes = append(routes, "nats://"+p)
	}
	for i := range n {
		name := fmt.Sprintf("s%d", i+1)
		s := &server{t: c.t, id: name, flag: "--nats-listen", says: natsSays, args: []string{"nats", "--nats-name", name,
			"--data", filepath.Join(c.dir, name), "--nats-cluster", ports[i], "--nats-routes", strings.Join(routes, ","), "--log-level", "error"}}
		s.process = cairn(c.t, nil, append(s.args, s.flag, "127.0.0.1:0")...)
		c.nats = append(c.nats, s)
	}
	for _, s := range c.nats {
		m, err := s.process.says(s.says)
		if err != nil {
			return err
		}
		s.addr = m[1]
	}
	return nil
}

func (c *chaosCluster) natsURLs() (urls []string) {
	for _, s := range c.nats {
		urls = append(urls, "nats://"+s.addr)
	}
	return urls
}

// chaosPorts finds addresses that nobody listens at.
func chaosPorts(t testing.TB, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// newNode makes the proxies around a node, and says how it is started.
func (c *chaosCluster) newNode(i int) *chaosNode {
	c.t.Helper()
	n := &chaosNode{socket: filepath.Join(c.dir, fmt.Sprintf("n%d.sock", i+1))}
	n.life.Store(1)
	proxy := func(target, mask string) *faultproxy.Proxy {
		p, err := faultproxy.ListenMasked(target, mask)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { p.Close() })
		return p
	}
	var urls []string
	for _, s := range c.nats {
		// Servers tell clients of each other, which would lead around the proxies.
		p := proxy(s.addr, `"connect_urls`)
		n.nats = append(n.nats, p)
		urls = append(urls, "nats://"+p.Addr())
	}
	n.data = proxy("", "")
	id := fmt.Sprintf("n%d", i+1)
	dir := filepath.Join(c.dir, id)
	if i == 2 {
		if small, err := smallFilesystem(c.t); err == nil {
			dir, n.disk = filepath.Join(small, id), small
		} else {
			c.t.Logf("no disk will fill up: %v", err)
		}
	}
	args := []string{"node", "--id", id, "--data", dir, "--nats", strings.Join(urls, ","), "--advertise", n.data.Addr(),
		"--lease", chaosLease.String(), "--unix", n.socket, "--log-level", "warn"}
	n.server = &server{t: c.t, id: id, flag: "--listen", says: nodeSays, args: append(args, chaosNodeFlags()...)}
	return n
}

// chaosNodeFlags are those of every node.
func chaosNodeFlags() []string {
	flags := []string{"--host", "64MiB", "--disk", "256MiB", "--segment", "1MiB", "--vram", "1MiB", "--classes", "4KiB,64KiB", "--fetch-timeout", "2s"}
	for _, space := range chaosSpaces {
		flags = append(flags, "--namespaces", namespaceFlag(chaosNamespaces[space]))
	}
	return flags
}

// smallFilesystem makes a file system in memory that is mounted nowhere: it is there
// through a descriptor of this process, and gone with it.
func smallFilesystem(t testing.TB) (string, error) {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", fmt.Sprint(smallDisk)); err != nil {
		return "", fmt.Errorf("fsconfig: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return "", fmt.Errorf("fsconfig: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("fsmount: %w", err)
	}
	t.Cleanup(func() { unix.Close(mount) })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), mount), nil
}

// up starts the process, again and again while it cannot: NATS may be away. A start
// waits for that itself, so there are few.
func (n *chaosNode) up() error {
	if n.process != nil {
		n.said += n.process.out.String()
	}
	err := n.again()
	for tries := 1; err != nil && tries < mostStarts && n.t.Context().Err() == nil; tries++ {
		select {
		case <-time.After(startPause):
			err = n.again()
		case <-n.t.Context().Done():
		}
	}
	if n.at == "" {
		n.at = n.addr
	}
	if err == nil {
		n.data.SetTarget(n.at)
		n.life.Add(1)
	}
	return err
}

// again starts a server in its place, and tells whether it serves.
func (s *server) again() error {
	err := s.tryStart()
	if err == nil {
		_, err = s.process.says(s.says)
	}
	return err
}

// heal takes back whatever was done to the ways from and to the node.
func (n *chaosNode) heal() {
	n.data.Heal()
	for _, p := range n.nats {
		p.Heal()
	}
}

// stepDown makes the leader of a stream another one.
func (c *chaosCluster) stepDown(stream string) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), oneCall)
	defer cancel()
	m, err := c.conn.NC.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
	if err == nil && !strings.Contains(string(m.Data), `"success":true`) {
		err = fmt.Errorf("step-down of %s: %s", stream, m.Data)
	}
	return err
}

// stop ends the nodes as an operator would.
func (c *chaosCluster) stop() {
	c.t.Helper()
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(n.stop)
	}
	all.Wait()
}

// compare asks the nodes what the log says, and compares with what it does say (I8).
func (c *chaosCluster) compare(facts *logFacts, states []node.CoherenceStatus) error {
	var errs []error
	for i, s := range states {
		at, known := facts.states[s.Applied]
		switch {
		case s.Alarm != "":
			errs = append(errs, fmt.Errorf("%s: %s", c.nodes[i].id, s.Alarm))
		case !known:
			errs = append(errs, fmt.Errorf("%s has applied %d, which is not in the log", c.nodes[i].id, s.Applied))
		case s.Digest != at.digest, s.Losses != at.losses:
			errs = append(errs, fmt.Errorf("%s at %d: digest %s and %d losses, the log gives %s and %d",
				c.nodes[i].id, s.Applied, s.Digest, s.Losses, at.digest, at.losses))
		}
	}
	return errors.Join(errs...)
}

// states is what the nodes say of the log.
func (c *chaosCluster) states() (list []node.CoherenceStatus, err error) {
	for _, n := range c.nodes {
		st, err := nodeStatus(c.t.Context(), n.at, oneCall)
		if err != nil {
			return nil, err
		}
		if st.Coherence == nil {
			return nil, fmt.Errorf("%s says nothing about the log", n.id)
		}
		list = append(list, *st.Coherence)
	}
	return list, nil
}
