// Package natstest runs embedded NATS servers for tests: one, or a cluster of
// three in this process whose members can be stopped and started again.
package natstest

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cairn/cluster"
)

// setupTimeout bounds what a test waits for its servers: three of them elect
// leaders in 0.4 s typically and 7 s at worst on a busy machine.
const setupTimeout = 60 * time.Second

// Run starts one server that only this process reaches, creates the layout and
// connects. Everything ends with the test.
func Run(t testing.TB) *cluster.Conn {
	t.Helper()
	srv := Server(t, cluster.ServerConfig{DontListen: true})
	conn := Connect(t, cluster.ConnConfig{InProcess: srv})
	Ensure(t, conn)
	return conn
}

// Server starts a standalone server that ends with the test. An empty StoreDir
// becomes a temporary one, and port 0 a free one.
func Server(t testing.TB, cfg cluster.ServerConfig) *cluster.Server {
	t.Helper()
	if cfg.StoreDir == "" {
		cfg.StoreDir = t.TempDir()
	}
	if cfg.Port == 0 {
		cfg.Port = -1
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = setupTimeout
	}
	srv, err := cluster.StartServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

// Connect connects until the test ends.
func Connect(t testing.TB, cfg cluster.ConnConfig) *cluster.Conn {
	t.Helper()
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = setupTimeout
	}
	conn, err := cluster.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// Ensure creates the layout.
func Ensure(t testing.TB, conn *cluster.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	if err := cluster.Ensure(ctx, conn, cluster.Layout{}); err != nil {
		t.Fatal(err)
	}
}

// Cluster is a NATS cluster in this process.
type Cluster struct {
	t    testing.TB
	cfgs []cluster.ServerConfig

	mu      sync.Mutex
	servers []*cluster.Server // nil: stopped
}

// RunCluster starts n clustered servers, creates the layout with min(n, 3)
// replicas and returns when it stands. Everything ends with the test.
func RunCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	var ports []int // of the routes, and of the clients
	for range 2 * n {
		ports = append(ports, Port(t))
	}
	var routes []string
	for _, p := range ports[:n] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	dir := t.TempDir()
	c := &Cluster{t: t, servers: make([]*cluster.Server, n)}
	for i := range n {
		c.cfgs = append(c.cfgs, cluster.ServerConfig{
			Name:        fmt.Sprintf("s%d", i),
			StoreDir:    filepath.Join(dir, fmt.Sprint(i)),
			Port:        ports[n+i],
			ClusterPort: ports[i],
			Routes:      routes,

			StartTimeout: setupTimeout,
		})
	}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { c.Stop(i) })
		}
		wg.Wait()
	})
	for i := range n {
		c.Start(i)
	}
	conn := c.Connect(0)
	Ensure(t, conn)
	return c
}

// Connect connects to server i until the test ends. When that server stops, the
// connection moves to another.
func (c *Cluster) Connect(i int) *cluster.Conn {
	c.t.Helper()
	return Connect(c.t, cluster.ConnConfig{
		URLs:     []string{fmt.Sprintf("nats://127.0.0.1:%d", c.cfgs[i].Port)},
		Replicas: min(len(c.cfgs), 3),
	})
}

// Start starts server i again on its old ports and store; it does nothing where
// the server runs.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.servers[i] != nil {
		return
	}
	srv, err := cluster.StartServer(c.cfgs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.servers[i] = srv
}

// Stop stops server i as an operator would; it does nothing where it is down.
func (c *Cluster) Stop(i int) {
	c.mu.Lock()
	srv := c.servers[i]
	c.servers[i] = nil
	c.mu.Unlock()
	if srv == nil {
		return
	}
	if err := srv.Close(); err != nil {
		c.t.Error(err)
	}
}
