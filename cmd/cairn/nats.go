package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"cairn/cluster"
)

// natsClient says which NATS a process uses.
type natsClient struct {
	NATS         []string `name:"nats" help:"URLs of an external NATS; without one, an embedded server is started." placeholder:"URL" group:"nats"`
	NATSCreds    string   `name:"nats-creds" help:"Credentials file." type:"existingfile" placeholder:"FILE" group:"nats"`
	NATSUser     string   `name:"nats-user" help:"User, with --nats-password." group:"nats"`
	NATSPassword string   `name:"nats-password" help:"Password." group:"nats"`
	NATSToken    string   `name:"nats-token" help:"Token." group:"nats"`
	NATSCA       string   `name:"nats-ca" help:"Certificates that verify the server." type:"existingfile" placeholder:"FILE" group:"nats"`
	NATSCert     string   `name:"nats-cert" help:"Certificate of this client, with --nats-key." type:"existingfile" placeholder:"FILE" group:"nats"`
	NATSKey      string   `name:"nats-key" help:"Its key." type:"existingfile" placeholder:"FILE" group:"nats"`
	Replicas     int      `name:"nats-replicas" help:"Copies of each stream: 1, 3 or 5; by default 3 in a NATS cluster, else 1." group:"nats"`
}

// natsServer says how an embedded server runs.
type natsServer struct {
	NATSListen      string   `name:"nats-listen" help:"Address for NATS clients; port 0 takes a free one." default:"127.0.0.1:4222" group:"nats"`
	NATSName        string   `name:"nats-name" help:"Name of this server, unique in its NATS cluster." default:"cairn" group:"nats"`
	NATSClusterName string   `name:"nats-cluster-name" help:"Name of the NATS cluster." default:"cairn" group:"nats"`
	NATSCluster     string   `name:"nats-cluster" help:"Address for the other NATS servers; makes this one part of a cluster." placeholder:"HOST:PORT" group:"nats"`
	NATSRoutes      []string `name:"nats-routes" help:"Cluster addresses of the others, nats://host:port." placeholder:"URL" group:"nats"`
	NATSMonitor     int      `name:"nats-monitor-port" help:"Port for NATS's own monitoring over HTTP; 0 is off." group:"nats"`
	NATSSync        bool     `name:"nats-sync-always" help:"Make every message durable before it is acknowledged." group:"nats"`
	NATSMaxStore    size     `name:"nats-max-store" help:"Most disk for streams." default:"16GiB" group:"nats"`
	NATSMaxMemory   size     `name:"nats-max-memory" help:"Most memory for streams." default:"256MiB" group:"nats"`
}

func (s natsServer) start(a *app, dir string, auth natsClient) (*cluster.Server, error) {
	host, port, err := hostPort("--nats-listen", s.NATSListen)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = -1 // NATS's word for a free port
	}
	cfg := cluster.ServerConfig{
		Name: s.NATSName, StoreDir: dir, Host: host, Port: port,
		User: auth.NATSUser, Password: auth.NATSPassword, Token: auth.NATSToken,
		MaxMemory: int64(s.NATSMaxMemory), MaxStore: int64(s.NATSMaxStore), SyncAlways: s.NATSSync, MonitorPort: s.NATSMonitor,
		Logger: a.log,
	}
	if s.NATSCluster != "" {
		if cfg.ClusterHost, cfg.ClusterPort, err = hostPort("--nats-cluster", s.NATSCluster); err != nil {
			return nil, err
		}
		cfg.ClusterName, cfg.Routes = s.NATSClusterName, s.NATSRoutes
	} else if len(s.NATSRoutes) > 0 {
		return nil, usage("--nats-routes goes with --nats-cluster, the address where the other servers reach this one")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	server, err := cluster.StartServer(cfg)
	if errors.Is(err, cluster.ErrPortInUse) && s.NATSMonitor == 0 && s.NATSCluster == "" {
		return nil, fmt.Errorf("--nats-listen %s: %w: give another port (0 takes a free one), or use the server that runs there: --nats nats://%[1]s",
			s.NATSListen, cluster.ErrPortInUse)
	}
	return server, err
}

// defaultNATS is asked when none is named: the server that a node embeds.
const defaultNATS = "nats://127.0.0.1:4222"

// dial connects a command that starts no server.
func (c natsClient) dial(a *app, name string) (*cluster.Conn, error) {
	if len(c.NATS) == 0 {
		c.NATS = []string{defaultNATS}
	}
	cfg := c.config(a, name)
	if err := cfg.Validate(); err != nil {
		return nil, usageError{err}
	}
	return cluster.Connect(a.ctx, cfg)
}

func (c natsClient) config(a *app, name string) cluster.ConnConfig {
	return cluster.ConnConfig{
		URLs: c.NATS, Name: name, Replicas: c.Replicas, CredsFile: c.NATSCreds, User: c.NATSUser, Password: c.NATSPassword,
		Token: c.NATSToken, CAFile: c.NATSCA, CertFile: c.NATSCert, KeyFile: c.NATSKey, Logger: a.log,
	}
}

// connect joins the NATS that the flags name, or starts one in dir. The server is
// nil when it is not ours.
func (c natsClient) connect(ctx context.Context, a *app, s natsServer, dir, name string) (*cluster.Conn, *cluster.Server, error) {
	cfg := c.config(a, name)
	if err := cfg.Validate(); err != nil {
		return nil, nil, usageError{err}
	}
	var server *cluster.Server
	if len(c.NATS) == 0 {
		var err error
		if server, err = s.start(a, filepath.Join(dir, "nats"), c); err != nil {
			return nil, nil, err
		}
		cfg.InProcess = server
	}
	conn, err := cluster.Connect(ctx, cfg)
	if err == nil {
		if err = cluster.Ensure(ctx, conn, cluster.Layout{}); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		if server != nil {
			server.Close()
		}
		return nil, nil, err
	}
	return conn, server, nil
}

func hostPort(flag, addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, usage("%s %q: want host:port", flag, addr)
	}
	return host, port, nil
}

type natsCmd struct {
	natsServer
	Data     string `help:"Directory for the streams." default:"cairn-data/nats" type:"path"`
	User     string `help:"User asked of every client, with --password."`
	Password string `help:"Password."`
	Token    string `help:"Token asked of every client."`
}

func (c *natsCmd) Run(a *app) error {
	server, err := c.start(a, c.Data, natsClient{NATSUser: c.User, NATSPassword: c.Password, NATSToken: c.Token})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "cairn: NATS at %s, streams in %s\n", server.ClientURL(), c.Data)
	<-a.ctx.Done()
	return server.Close()
}
