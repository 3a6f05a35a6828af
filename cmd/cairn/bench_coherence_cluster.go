package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/cluster"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"

	"github.com/alecthomas/kong"
)

const (
	// benchNodes is how many nodes the cluster has.
	benchNodes = 3
	// benchSpace is the namespace that is measured.
	benchSpace = "default"
	// benchStream is a stream configured as the coherence log is, for bare publishes.
	benchStream  = "CAIRN_BENCH"
	benchSubject = "cairn.bench."
)

// benchCluster is NATS and three nodes in this process, connected over loopback as
// processes of their own would be.
type benchCluster struct {
	servers []*cluster.Server
	nodes   []*benchNode
}

// benchNode is a node, and what uses it or publishes beside it: a connection to the
// same server.
type benchNode struct {
	*runningNode
	conn    *cluster.Conn
	client  *client.Node
	close   func() error
	subject string
	sent    atomic.Uint64
}

func startBenchCluster(a *app, dir string, replicas int) (_ *benchCluster, err error) {
	c := &benchCluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if err := c.startServers(dir, replicas); err != nil {
		return nil, err
	}
	for i := range benchNodes {
		n, err := startBenchNode(a, filepath.Join(dir, "n"+strconv.Itoa(i)), "n"+strconv.Itoa(i), c.servers[i%len(c.servers)].ClientURL())
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	if err := c.acquaint(a.ctx); err != nil {
		return nil, err
	}
	return c, c.makeBaseline(a.ctx)
}

// acquaint waits until every node reaches every other: the log knows of a node before
// the list of addresses does.
func (c *benchCluster) acquaint(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for _, n := range c.nodes {
		for {
			err := n.fill(ctx, "probe", 8*benchNodes, 1, coherency.WriteThrough) // some for each home
			if err == nil {
				break
			}
			if !errors.Is(err, protocol.ErrStage) || ctx.Err() != nil {
				return err
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return err
			}
		}
	}
	return nil
}

func (c *benchCluster) startServers(dir string, count int) error {
	ports, err := freePorts(count)
	if err != nil {
		return err
	}
	var routes []string
	for _, p := range ports {
		routes = append(routes, "nats://127.0.0.1:"+strconv.Itoa(p))
	}
	for i := range count {
		const free = -1 // NATS's word for a free port
		cfg := cluster.ServerConfig{Name: "s" + strconv.Itoa(i), StoreDir: filepath.Join(dir, "s"+strconv.Itoa(i)), Port: free}
		if count > 1 {
			cfg.ClusterPort, cfg.Routes = ports[i], routes
		}
		s, err := cluster.StartServer(cfg)
		if err != nil {
			return err
		}
		c.servers = append(c.servers, s)
	}
	return nil
}

// freePorts finds ports that nobody listens on now.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// nodeDefaults is the configuration of a node as its command line makes it.
func nodeDefaults(args ...string) (c nodeCmd, err error) {
	parser, err := kong.New(&c, kong.Name("node"), variables(), kong.ExplicitGroups(groups))
	if err == nil {
		_, err = parser.Parse(args)
	}
	return c, err
}

func startBenchNode(a *app, dir, id, natsURL string) (*benchNode, error) {
	cfg, err := nodeDefaults("--id", id, "--data", dir, "--listen", "127.0.0.1:0", "--nats", natsURL,
		"--host", "512MiB", "--disk", "4GiB", "--vram", "0",
		"--snapshot-records", strconv.Itoa(math.MaxInt)) // the bench says when a snapshot is kept
	if err != nil {
		return nil, err
	}
	r, err := startNode(a, cfg)
	if err != nil {
		return nil, err
	}
	n := &benchNode{runningNode: r, subject: benchSubject + id, close: r.stop}
	if n.conn, err = cluster.Connect(a.ctx, cluster.ConnConfig{URLs: []string{natsURL}, Name: "bench"}); err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.close = func() error { return errors.Join(n.conn.Close(), r.stop()) }
	addr := r.addr
	if r.unix != "" {
		addr = "unix:" + r.unix
	}
	cl, err := client.Open(a.ctx, client.Config{Nodes: []string{addr}})
	if err == nil {
		n.close = func() error { cl.Close(); return errors.Join(n.conn.Close(), r.stop()) }
		n.client, err = cl.Node(addr)
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// makeBaseline makes the stream for bare publishes.
func (c *benchCluster) makeBaseline(ctx context.Context) error {
	conn := c.nodes[0].conn
	log, err := conn.JS.Stream(ctx, cluster.CoherenceStream(0))
	if err != nil {
		return err
	}
	cfg := log.CachedInfo().Config
	cfg.Name, cfg.Subjects, cfg.Description, cfg.Metadata, cfg.RePublish = benchStream, []string{benchSubject + ">"}, "", nil, nil
	_, err = conn.JS.CreateStream(ctx, cfg)
	return err
}

// align has both streams led by one server, so that a bare publish goes the way of a
// message to the log.
func (c *benchCluster) align(ctx context.Context) error {
	conn := c.nodes[0].conn
	if len(c.servers) == 1 {
		return nil
	}
	for try := 0; ; try++ {
		log, err := leaderOf(ctx, conn, cluster.CoherenceStream(0))
		if err != nil {
			return err
		}
		bare, err := leaderOf(ctx, conn, benchStream)
		if err != nil || log == bare && log != "" {
			return err
		}
		if try == 100 {
			return fmt.Errorf("%s leads the log and %s the bare stream: they cannot be brought together", log, bare)
		}
		request, err := json.Marshal(map[string]any{"placement": map[string]string{"preferred": log}})
		if err != nil {
			return err
		}
		if _, err := conn.NC.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+benchStream, request); err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func leaderOf(ctx context.Context, conn *cluster.Conn, stream string) (leader string, err error) {
	err = conn.Retry(ctx, 2*time.Second, func(ctx context.Context) error {
		s, err := conn.JS.Stream(ctx, stream)
		if err == nil && s.CachedInfo().Cluster != nil {
			leader = s.CachedInfo().Cluster.Leader
		}
		return err
	})
	return leader, err
}

// publish is a bare publish, of a message with one record and an id.
func (n *benchNode) publish(ctx context.Context) error {
	number := n.sent.Add(1)
	name := []byte("bench")
	m := ledger.Message{Node: n.id, Incarnation: 1, Number: number, Records: []ledger.Record{{
		Kind: ledger.Commit, Key: block.NamedKey(benchSpace, name, 0), Namespace: benchSpace, Name: name,
		Value: ledger.Value{Object: block.NamedKey(benchSpace, name, 1), Length: 4096, Sum: 1, Homes: ledger.Homes{1}},
	}}}
	return n.conn.PublishBare(ctx, n.subject, n.id+"."+strconv.FormatUint(number, 10), m.Append(nil))
}

// stop ends the nodes together, so that none waits for another, and then the servers.
func (c *benchCluster) stop() error {
	errs := make([]error, len(c.nodes)+len(c.servers))
	var wg sync.WaitGroup
	for i, n := range slices.Backward(c.nodes) {
		wg.Go(func() { errs[i] = n.close() })
	}
	wg.Wait()
	for i, s := range c.servers {
		wg.Go(func() { errs[len(c.nodes)+i] = s.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
