package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Errors of the embedded server.
var (
	// ErrPortInUse: another process listens on a port of the configuration.
	ErrPortInUse = errors.New("port is in use")
	// ErrStoreInUse: another process has the store directory open.
	ErrStoreInUse = errors.New("store directory is in use")
	// ErrStoreMode: the store directory belongs to the other mode.
	ErrStoreMode = errors.New("store directory was written in the other mode")
)

// Defaults of [ServerConfig].
const (
	DefaultServerHost   = "127.0.0.1"
	DefaultServerPort   = 4222
	DefaultMaxMemory    = 256 << 20
	DefaultMaxStore     = 16 << 30
	DefaultStartTimeout = 10 * time.Second
	DefaultClusterName  = "cairn"

	// lameDuckGrace and lameDuck are how a clustered server leaves: clients hear
	// of it, have the grace to go elsewhere, and are closed over the rest.
	lameDuckGrace = 250 * time.Millisecond
	lameDuck      = time.Second
	// readyPoll is how long one look at the server's readiness lasts.
	readyPoll = 50 * time.Millisecond
	// closeTimeout bounds Close of a server.
	closeTimeout = 30 * time.Second

	modeStandalone = "standalone"
	modeClustered  = "clustered"
	lockFile       = "LOCK"
)

// ServerConfig configures the embedded NATS server. Only StoreDir is required.
type ServerConfig struct {
	// Name is unique in the NATS cluster and stays the same over restarts;
	// required for a clustered server. Default "cairn".
	Name string
	// StoreDir holds the streams, in a sub-directory by mode. Required.
	StoreDir string

	// DontListen serves only connections of this process ([ConnConfig].InProcess).
	DontListen bool
	// Host and Port are where clients connect. Defaults 127.0.0.1 and 4222; port
	// -1 takes a free one.
	Host string
	Port int
	// User with Password, or Token, is asked of every client, those of this
	// process too. Set one of them when Host is not the loopback.
	User, Password, Token string

	// ClusterPort other than 0 makes the server one of a NATS cluster; it must
	// be known to the others, so it cannot be chosen at random. ClusterHost
	// defaults to Host.
	ClusterName string
	ClusterHost string
	ClusterPort int
	// Routes are the cluster addresses of the others ("nats://host:6222"); naming
	// this server too does no harm. Required with ClusterPort.
	Routes []string

	// MaxMemory and MaxStore bound JetStream, in bytes. Defaults 256 MiB, 16 GiB.
	MaxMemory int64
	MaxStore  int64
	// SyncAlways makes every acknowledged message durable against power loss;
	// otherwise files are synced every two minutes.
	SyncAlways bool
	// MonitorPort serves the HTTP monitoring of NATS on Host; 0 is off, -1 takes
	// a free port.
	MonitorPort int

	// StartTimeout bounds StartServer. Default 10 s.
	StartTimeout time.Duration
	// Logger gets what the server logs: its notices at debug level, the rest
	// at their own. Default: none.
	Logger *slog.Logger
}

func (c ServerConfig) clustered() bool { return c.ClusterPort != 0 }

// Validate reports every problem of c at once.
func (c ServerConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("cluster: embedded server: "+format, args...))
	}
	if c.StoreDir == "" {
		bad("StoreDir is empty: name a directory for its streams")
	}
	for _, p := range []struct {
		name      string
		port, min int
	}{{"Port", c.Port, -1}, {"ClusterPort", c.ClusterPort, 0}, {"MonitorPort", c.MonitorPort, -1}} {
		if p.port < p.min || p.port > 65535 {
			bad("%s %d: want %d to 65535", p.name, p.port, p.min)
		}
	}
	if strings.ContainsAny(c.Name+c.ClusterName, " \t\n") {
		bad("Name %q and ClusterName %q must not contain spaces", c.Name, c.ClusterName)
	}
	if c.clustered() && c.Name == "" {
		bad("Name is empty: a clustered server needs one that is unique and stays the same")
	}
	if c.clustered() && len(c.Routes) == 0 {
		bad("Routes is empty: name the cluster addresses of the other servers")
	}
	if c.clustered() && c.DontListen {
		bad("DontListen with ClusterPort: the servers of a cluster tell each other where clients connect")
	}
	if !c.clustered() && (len(c.Routes) > 0 || c.ClusterName != "" || c.ClusterHost != "") {
		bad("ClusterName, ClusterHost or Routes without ClusterPort")
	}
	for _, r := range c.Routes {
		if u := server.RoutesFromStr(r); len(u) != 1 || u[0].Host == "" {
			bad("route %q: write nats://host:port", r)
		}
	}
	if c.MaxMemory < 0 || c.MaxStore < 0 || c.StartTimeout < 0 {
		bad("MaxMemory %d, MaxStore %d, StartTimeout %v: want none negative", c.MaxMemory, c.MaxStore, c.StartTimeout)
	}
	if c.Token != "" && c.User != "" {
		bad("both Token and User are set: choose one")
	}
	if (c.User == "") != (c.Password == "") {
		bad("User and Password go together: one is missing")
	}
	return errors.Join(errs...)
}

func (c ServerConfig) withDefaults() ServerConfig {
	c.Name = or(c.Name, "cairn")
	c.Host = or(c.Host, DefaultServerHost)
	c.Port = or(c.Port, DefaultServerPort)
	c.ClusterHost = or(c.ClusterHost, c.Host)
	c.MaxMemory = or(c.MaxMemory, DefaultMaxMemory)
	c.MaxStore = or(c.MaxStore, DefaultMaxStore)
	c.StartTimeout = or(c.StartTimeout, DefaultStartTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c ServerConfig) options(dir string) *server.Options {
	o := &server.Options{
		ServerName:             c.Name,
		DontListen:             c.DontListen,
		Host:                   c.Host,
		Port:                   c.Port,
		Username:               c.User,
		Password:               c.Password,
		Authorization:          c.Token,
		NoSigs:                 true,
		NoLog:                  true,
		JetStream:              true,
		DisableJetStreamBanner: true,
		JetStreamMaxMemory:     c.MaxMemory,
		JetStreamMaxStore:      c.MaxStore,
		StoreDir:               dir,
		SyncAlways:             c.SyncAlways,
		LameDuckGracePeriod:    lameDuckGrace,
		LameDuckDuration:       lameDuck,
	}
	if c.MonitorPort != 0 {
		o.HTTPHost, o.HTTPPort = c.Host, c.MonitorPort
	}
	if c.clustered() {
		o.Cluster = server.ClusterOpts{Name: or(c.ClusterName, DefaultClusterName), Host: c.ClusterHost, Port: c.ClusterPort}
		o.Routes = server.RoutesFromStr(strings.Join(c.Routes, ","))
	}
	return o
}

// Server is a NATS server with JetStream inside this process. Its methods may
// run in parallel.
type Server struct {
	srv  *server.Server
	cfg  ServerConfig
	lock *os.File

	closeOnce sync.Once
	closeErr  error
}

// StartServer starts the server and returns when it takes connections. A
// clustered one may still be looking for the others; [Connect] and [Ensure]
// wait for them.
func StartServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	dir, lock, err := openStore(cfg)
	if err != nil {
		return nil, fmt.Errorf("cluster: embedded server: %w", err)
	}
	srv, err := start(cfg, dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: embedded server %s: %w", cfg.Name, err), lock.Close())
	}
	s := &Server{srv: srv, cfg: cfg, lock: lock}
	s.warnOpen()
	cfg.Logger.Info("embedded NATS server runs", "name", cfg.Name, "url", s.ClientURL(), "store", dir)
	return s, nil
}

func start(cfg ServerConfig, dir string) (*server.Server, error) {
	srv, err := server.NewServer(cfg.options(dir))
	if err != nil {
		return nil, err
	}
	log := &serverLog{log: cfg.Logger, fatal: make(chan string, 1)}
	srv.SetLoggerV2(log, false, false, false)
	ready, stop := make(chan struct{}), make(chan struct{})
	go func() {
		srv.Start()
		for !srv.ReadyForConnections(readyPoll) {
			select {
			case <-stop:
				return
			default:
			}
		}
		close(ready)
	}()
	timeout := time.NewTimer(cfg.StartTimeout)
	defer timeout.Stop()
	select {
	case <-ready:
		return srv, nil
	case text := <-log.fatal: // the only way in which the server says that it cannot start
		err = startError(cfg, text)
	case <-timeout.C:
		err = fmt.Errorf("took no connections within %v: is the store %s very large or on a slow disk? (StartTimeout)",
			cfg.StartTimeout, cfg.StoreDir)
	}
	close(stop)
	srv.Shutdown()
	return nil, err
}

// startError turns the server's last words into an error that says what to do.
func startError(cfg ServerConfig, text string) error {
	if strings.Contains(text, "address already in use") {
		return fmt.Errorf("%w: %s; stop the other process, choose another port (-1 takes a free one), "+
			"or connect to the server that runs there", ErrPortInUse, text)
	}
	return fmt.Errorf("%s (store %s)", text, cfg.StoreDir)
}

// warnOpen warns when anybody on the network may connect.
func (s *Server) warnOpen() {
	ip := net.ParseIP(s.cfg.Host)
	local := s.cfg.Host == "localhost" || ip != nil && ip.IsLoopback()
	if !s.cfg.DontListen && !local && s.cfg.User == "" && s.cfg.Token == "" {
		s.cfg.Logger.Warn("embedded NATS server takes anybody who can reach it: set a user or a token, or listen on 127.0.0.1",
			"host", s.cfg.Host)
	}
}

// openStore makes and locks the directory for this mode. A standalone server's
// streams would be deleted by a clustered server that opens them (NATS takes
// them for orphans), and a server that silently starts empty beside them would
// look like a loss: so both are refused.
func openStore(cfg ServerConfig) (dir string, lock *os.File, err error) {
	mode, other := modeStandalone, modeClustered
	if cfg.clustered() {
		mode, other = other, mode
	}
	old := filepath.Join(cfg.StoreDir, other)
	switch entries, err := os.ReadDir(old); {
	case err == nil && len(entries) > 0:
		return "", nil, fmt.Errorf("%w: %s holds the streams of a %s server, and this one is %s; "+
			"choose another StoreDir, or move %s away to start empty", ErrStoreMode, cfg.StoreDir, other, mode, old)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", nil, err
	}
	dir = filepath.Join(cfg.StoreDir, mode)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	lock, err = os.OpenFile(filepath.Join(cfg.StoreDir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return "", nil, fmt.Errorf("%w: %s (%w); stop the other process or choose another StoreDir", ErrStoreInUse, cfg.StoreDir, err)
	}
	return dir, lock, nil
}

// InProcessConn opens a connection through memory, for [ConnConfig].InProcess.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// ClientURL is where clients connect, or "" with DontListen.
func (s *Server) ClientURL() string {
	if s.cfg.DontListen {
		return ""
	}
	return s.srv.ClientURL()
}

// MonitorURL is where the HTTP monitoring answers, or "" where it is off.
func (s *Server) MonitorURL() string {
	if addr := s.srv.MonitorAddr(); addr != nil {
		return "http://" + addr.String()
	}
	return ""
}

// Close stops the server: a clustered one first hands its leaderships over and
// tells its clients to go elsewhere, which takes up to three seconds. Close
// connections of this process before. It may be called again.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if s.cfg.clustered() {
				s.srv.LameDuckShutdown()
			}
			s.srv.Shutdown()
			s.srv.WaitForShutdown()
		}()
		select {
		case <-done:
			s.closeErr = s.lock.Close()
		case <-time.After(closeTimeout):
			// The lock stays: the store may still be written to.
			s.closeErr = fmt.Errorf("cluster: embedded server %s did not stop within %v", s.cfg.Name, closeTimeout)
		}
	})
	return s.closeErr
}

// serverLog hands the server's log to slog. Notices become debug lines: they
// tell of the server's inside, and whoever embeds one wants Cairn's own log.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // the first fatal line
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Debugf(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Tracef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("nats: " + fmt.Sprintf(format, v...))
}

// Fatalf does not end the process, unlike the server's own logger.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("nats: " + text)
	select {
	case l.fatal <- text:
	default:
	}
}
