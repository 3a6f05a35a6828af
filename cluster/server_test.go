package cluster_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/cluster"
	"cairn/internal/natstest"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

func ctxFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantError(t *testing.T, err, want error, texts ...string) {
	t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not mention %q", err, text)
		}
	}
}

func TestServerKeepsStreamsOverRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := ctxFor(t, 20*time.Second)
	subject := cluster.CoherenceSubject(0, "a")
	for round := range 2 {
		srv, err := cluster.StartServer(cluster.ServerConfig{StoreDir: dir, DontListen: true})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := cluster.Connect(ctx, cluster.ConnConfig{InProcess: srv})
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			natstest.Ensure(t, conn)
			if _, err := conn.JS.Publish(ctx, subject, []byte("state")); err != nil {
				t.Fatal(err)
			}
		} else {
			s, err := conn.JS.Stream(ctx, cluster.CoherenceStream(0))
			if err != nil {
				t.Fatal(err)
			}
			if m, err := s.GetLastMsgForSubject(ctx, subject); err != nil || string(m.Data) != "state" {
				t.Errorf("after the restart: %v, %v", m, err)
			}
			natstest.Ensure(t, conn) // over what exists
		}
		if err := errors.Join(conn.Close(), srv.Close(), conn.Close(), srv.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerRefusals(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	standalone, clustered := t.TempDir(), t.TempDir()
	clusteredCfg := func(dir string, port int) cluster.ServerConfig {
		return cluster.ServerConfig{Name: "a", StoreDir: dir, Port: -1, ClusterPort: port, Routes: []string{"nats://127.0.0.1:1"}}
	}
	held := natstest.Server(t, cluster.ServerConfig{StoreDir: standalone, DontListen: true})
	if held.ClientURL() != "" || held.MonitorURL() != "" {
		t.Errorf("a server that does not listen names %q, %q", held.ClientURL(), held.MonitorURL())
	}

	_, err = cluster.StartServer(cluster.ServerConfig{StoreDir: t.TempDir(), Port: taken})
	wantError(t, err, cluster.ErrPortInUse, "choose another port")
	_, err = cluster.StartServer(cluster.ServerConfig{StoreDir: t.TempDir(), Port: -1, MonitorPort: taken})
	wantError(t, err, cluster.ErrPortInUse)
	_, err = cluster.StartServer(clusteredCfg(clustered, taken))
	wantError(t, err, cluster.ErrPortInUse)

	_, err = cluster.StartServer(cluster.ServerConfig{StoreDir: standalone, DontListen: true})
	wantError(t, err, cluster.ErrStoreInUse, standalone)
	_, err = cluster.StartServer(clusteredCfg(standalone, 1))
	wantError(t, err, cluster.ErrStoreMode, filepath.Join(standalone, "standalone"), "move")

	// The failed clustered start has left its store: the other way round is refused too.
	_, err = cluster.StartServer(cluster.ServerConfig{StoreDir: clustered, DontListen: true})
	wantError(t, err, cluster.ErrStoreMode, "clustered")

	_, err = cluster.StartServer(cluster.ServerConfig{Port: 70000, Routes: []string{"x"}, MaxStore: -1})
	wantError(t, err, nil, "StoreDir", "70000", "Routes", "MaxStore")
}

func TestServerAsksForCredentials(t *testing.T) {
	t.Parallel()
	srv := natstest.Server(t, cluster.ServerConfig{User: "u", Password: "p", MonitorPort: -1})
	if !strings.HasPrefix(srv.MonitorURL(), "http://127.0.0.1:") {
		t.Errorf("monitor at %q", srv.MonitorURL())
	}
	_, err := cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{srv.ClientURL()}})
	wantError(t, err, nil, srv.ClientURL(), "check the credentials")
	natstest.Connect(t, cluster.ConnConfig{URLs: []string{srv.ClientURL()}, User: "u", Password: "p"})
	natstest.Connect(t, cluster.ConnConfig{InProcess: srv, User: "u", Password: "p"})
}

// TestMinorityIsExplained: one server of three has no leader to speak to.
func TestMinorityIsExplained(t *testing.T) {
	t.Parallel()
	srv := natstest.Server(t, cluster.ServerConfig{Name: "a", ClusterPort: natstest.Port(t),
		Routes: []string{"nats://127.0.0.1:1", "nats://127.0.0.1:2"}})
	var err error
	for limit := 500 * time.Millisecond; ; limit *= 2 {
		_, err = cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{srv.ClientURL()}, ConnectTimeout: limit})
		if !errors.Is(err, cluster.ErrUnreachable) || limit > patience { // a busy machine may need longer to answer at all
			break
		}
	}
	wantError(t, err, cluster.ErrNoJetStream, "majority")
}

func TestConnectErrors(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, url := range []string{"nats://user:secret@127.0.0.1:1", "nats://" + l.Addr().String()} {
		begin := time.Now()
		_, err := cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{url}, ConnectTimeout: 500 * time.Millisecond})
		wantError(t, err, cluster.ErrUnreachable, "nats-server", "127.0.0.1")
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: the error came after %v", url, took)
		}
	}
	_, err = cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{"http://x", "nats://a:b c"}, Replicas: 2,
		User: "u", Token: "t", CertFile: "c"})
	wantError(t, err, nil, "NATS url 1 of 2", "http", "NATS url 2 of 2 cannot be read", "Replicas 2", "choose one", "KeyFile")
	for _, url := range []string{"user:secret@127.0.0.1:4222", "127.0.0.1:4222", "host", "user:secret@host", // without nats://
		"nats://user:secret/@127.0.0.1:4222", "nats://user:%secret@127.0.0.1:4222"} {
		_, err = cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{url}})
		wantError(t, err, nil, "want nats://host:4222")
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestClusterSurvivesLossOfOneServer(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t, 3)
	conn := c.Connect(1)
	ctx := ctxFor(t, 40*time.Second)
	s, err := conn.JS.Stream(ctx, cluster.CoherenceStream(0))
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().Config.Replicas; n != 3 {
		t.Fatalf("%d replicas, want 3", n)
	}
	subject := cluster.CoherenceSubject(0, "a")
	publish := func(text string) error {
		return conn.Retry(ctx, 2*time.Second, func(ctx context.Context) error {
			_, err := conn.JS.Publish(ctx, subject, []byte(text), jetstream.WithMsgID(text))
			return err
		})
	}
	if err := publish("three servers"); err != nil {
		t.Fatal(err)
	}
	e := watch(t, c.Connect(0))
	e.until(cluster.MembersSynced, "")
	l := mustJoin(t, conn, cluster.Member{ID: "n1"}, cluster.LeaseConfig{TTL: 30 * time.Second, Renew: 200 * time.Millisecond})
	e.until(cluster.MemberJoined, "n1")

	c.Stop(1) // the one that the connection is on
	if err := publish("two servers"); err != nil {
		t.Fatal(err)
	}
	l.Update(func(m *cluster.Member) { m.Version = "after" })
	if ev := e.until(cluster.MemberUpdated, "n1"); ev.Member.Version != "after" || !l.Held() {
		t.Errorf("version %q, held %v", ev.Member.Version, l.Held())
	}
	c.Start(1)
	if err := publish("three again"); err != nil {
		t.Fatal(err)
	}
}

func TestServerWithoutJetStream(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	_, err = cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{srv.ClientURL()}})
	wantError(t, err, cluster.ErrNoJetStream, srv.ClientURL(), "-js")
}
