package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of a connection.
var (
	// ErrUnreachable: no NATS server answered in time.
	ErrUnreachable = errors.New("no NATS server answers")
	// ErrNoJetStream: the server answers, but its JetStream does not: it is not
	// enabled for this account, or its cluster has no leader.
	ErrNoJetStream = errors.New("JetStream is not available")
)

// Defaults of [ConnConfig].
const (
	DefaultURL            = "nats://127.0.0.1:4222"
	DefaultConnectTimeout = 5 * time.Second
	DefaultPingInterval   = 3 * time.Second
	DefaultReconnectWait  = 500 * time.Millisecond
	DefaultDrainTimeout   = 5 * time.Second

	// pingsOut is how many pings may go unanswered before a connection counts as
	// dead: with the default interval a frozen server is left after 9 s at most.
	pingsOut = 2
	// minDial is the least time given to one of several servers.
	minDial = 500 * time.Millisecond
	// retryPause and maxRetryPause bound the pause between tries of Retry.
	retryPause    = 50 * time.Millisecond
	maxRetryPause = time.Second
)

// InProcess is a NATS server in this process; *[Server] is one.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// ConnConfig says how to reach NATS. The zero value connects to DefaultURL
// without credentials.
type ConnConfig struct {
	// URLs are the servers, any of which will do: "nats://host:4222" or "tls://…".
	// Default DefaultURL. Ignored with InProcess.
	URLs []string
	// InProcess connects through memory to a server of this process.
	InProcess InProcess
	// Name is shown by `nats server report connections`.
	Name string
	// Replicas of every stream: 1, 3 or 5. Default 3 where the server is part
	// of a NATS cluster, else 1.
	Replicas int

	// Credentials: at most one of CredsFile, NKeyFile, User and Token.
	CredsFile string // file made by nsc or by Synadia: JWT and seed
	NKeyFile  string // file with the seed of an nkey
	User      string
	Password  string
	Token     string

	// TLS: files in PEM. CAFile alone verifies the server; CertFile with KeyFile
	// identifies this client.
	CAFile   string
	CertFile string
	KeyFile  string

	// ConnectTimeout bounds Connect over all URLs. Default 5 s.
	ConnectTimeout time.Duration
	// PingInterval is how often the server is probed; three intervals without an
	// answer and the connection is given up and made again. Default 3 s.
	PingInterval time.Duration
	// ReconnectWait is the pause between attempts to connect again, which go on
	// for ever. Default 500 ms; up to half as much is added at random.
	ReconnectWait time.Duration
	// DrainTimeout bounds Close. Default 5 s.
	DrainTimeout time.Duration

	// Logger gets connection events. Default: none.
	Logger *slog.Logger
}

// Validate reports every problem of c at once.
func (c ConnConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cluster: "+format, args...)) }
	for i, raw := range c.URLs {
		u, err := url.Parse(strings.TrimSpace(raw))
		which := "NATS url"
		if len(c.URLs) > 1 {
			which = fmt.Sprintf("NATS url %d of %d", i+1, len(c.URLs))
		}
		switch {
		case err != nil:
			// Neither it nor what is wrong with it: either may show a password.
			bad("%s cannot be read: want nats://host:4222, with %%2F for / in a user or password, and so on", which)
		case u.Host == "": // without a scheme nobody can tell where a password is
			bad("%s without a host: want nats://host:4222", which)
		case u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss":
			bad("%s %q: scheme %q: want nats, tls, ws or wss", which, u.Redacted(), u.Scheme)
		}
	}
	if c.Replicas < 0 || c.Replicas > 5 || c.Replicas != 0 && c.Replicas%2 == 0 {
		bad("Replicas %d: want 1, 3 or 5 (0 chooses)", c.Replicas)
	}
	ways := 0
	for _, s := range []string{c.CredsFile, c.NKeyFile, c.User, c.Token} {
		if s != "" {
			ways++
		}
	}
	if ways > 1 {
		bad("more than one of CredsFile, NKeyFile, User and Token is set: choose one")
	}
	if c.Password != "" && c.User == "" {
		bad("Password without User")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("CertFile and KeyFile go together: one is missing")
	}
	for name, d := range map[string]time.Duration{"ConnectTimeout": c.ConnectTimeout, "PingInterval": c.PingInterval,
		"ReconnectWait": c.ReconnectWait, "DrainTimeout": c.DrainTimeout} {
		if d < 0 {
			bad("%s %v is negative", name, d)
		}
	}
	return errors.Join(errs...)
}

func (c ConnConfig) withDefaults() ConnConfig {
	if len(c.URLs) == 0 {
		c.URLs = []string{DefaultURL}
	}
	c.ConnectTimeout = or(c.ConnectTimeout, DefaultConnectTimeout)
	c.PingInterval = or(c.PingInterval, DefaultPingInterval)
	c.ReconnectWait = or(c.ReconnectWait, DefaultReconnectWait)
	c.DrainTimeout = or(c.DrainTimeout, DefaultDrainTimeout)
	c.Name = or(c.Name, "cairn")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// where describes the servers for an error, without passwords.
func (c ConnConfig) where() string {
	if c.InProcess != nil {
		return "the embedded server"
	}
	var hosts []string
	for _, raw := range c.URLs {
		if u, err := url.Parse(strings.TrimSpace(raw)); err == nil {
			hosts = append(hosts, u.Redacted())
		}
	}
	return strings.Join(hosts, ", ")
}

// Conn is a connection to NATS with JetStream. All methods may run in
// parallel. When the server goes away it reconnects for ever; meanwhile
// publishing fails at once rather than being queued, so that nothing is sent
// long after it was meant.
type Conn struct {
	NC *nats.Conn
	JS jetstream.JetStream
	// Replicas is how many each stream is created with.
	Replicas int
	// Log is never nil.
	Log *slog.Logger

	closed chan struct{} // closed when NC is
	drain  time.Duration
}

// Connect connects and checks JetStream, within ConnectTimeout or until ctx
// ends. Errors match [ErrUnreachable] or [ErrNoJetStream] where those apply.
func Connect(ctx context.Context, cfg ConnConfig) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	c := &Conn{Log: cfg.Logger, closed: make(chan struct{}), drain: cfg.DrainTimeout}
	nc, err := dial(ctx, cfg, c.options(cfg))
	if err != nil {
		return nil, connectError(cfg, err)
	}
	c.NC = nc
	if c.JS, err = jetstream.New(nc); err == nil {
		err = c.checkJetStream(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, jetStreamError(cfg, err)
	}
	c.Replicas = cfg.Replicas
	if c.Replicas == 0 {
		c.Replicas = 1
		if nc.ConnectedClusterName() != "" {
			c.Replicas = 3
		}
	}
	return c, nil
}

// dial is nats.Connect that ends with ctx.
func dial(ctx context.Context, cfg ConnConfig, opts []nats.Option) (*nats.Conn, error) {
	type result struct {
		nc  *nats.Conn
		err error
	}
	ch := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(strings.Join(cfg.URLs, ","), opts...)
		ch <- result{nc, err}
	}()
	select {
	case r := <-ch:
		return r.nc, r.err
	case <-ctx.Done():
		go func() {
			if r := <-ch; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func (c *Conn) options(cfg ConnConfig) []nats.Option {
	log := cfg.Logger
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.Timeout(max(cfg.ConnectTimeout/time.Duration(len(cfg.URLs)), minDial)),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(cfg.ReconnectWait),
		nats.ReconnectJitter(cfg.ReconnectWait/2, cfg.ReconnectWait/2),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(cfg.PingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.DrainTimeout(cfg.DrainTimeout),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if err != nil {
				log.Warn("NATS connection lost; connecting again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("NATS connected again", "server", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				log.Warn("NATS reports a problem", "error", err, "subject", sub.Subject)
				return
			}
			log.Warn("NATS reports a problem", "error", err)
		}),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			log.Info("NATS server is going away", "server", nc.ConnectedUrlRedacted())
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
	return append(opts, cfg.credentials()...)
}

func (c ConnConfig) credentials() []nats.Option {
	var opts []nats.Option
	if c.InProcess != nil {
		opts = append(opts, nats.InProcessServer(c.InProcess))
	}
	switch {
	case c.CredsFile != "":
		opts = append(opts, nats.UserCredentials(c.CredsFile))
	case c.NKeyFile != "":
		opts = append(opts, func(o *nats.Options) error {
			set, err := nats.NkeyOptionFromSeed(c.NKeyFile)
			if err != nil {
				return fmt.Errorf("nkey file %s: %w", c.NKeyFile, err)
			}
			return set(o)
		})
	case c.User != "":
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		opts = append(opts, nats.Token(c.Token))
	}
	if c.CAFile != "" {
		opts = append(opts, nats.RootCAs(c.CAFile))
	}
	if c.CertFile != "" {
		opts = append(opts, nats.ClientCert(c.CertFile, c.KeyFile))
	}
	return opts
}

// checkJetStream waits out a cluster that is still electing its leader.
func (c *Conn) checkJetStream(ctx context.Context) error {
	return c.Retry(ctx, ensureTry, func(ctx context.Context) error {
		_, err := c.JS.AccountInfo(ctx)
		return err
	})
}

// connectError says what failed, where, and what to look at.
func connectError(cfg ConnConfig, err error) error {
	at := cfg.where()
	var network net.Error
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("cluster: connect to %s: %w; check the credentials file, user, password or token", at, err)
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, nats.ErrNoInfoReceived), errors.As(err, &network):
		return fmt.Errorf("cluster: connect to %s: %w within %v (%w); check that nats-server runs there with -js, the host and the port, "+
			"and that no firewall is between", at, ErrUnreachable, cfg.ConnectTimeout, err)
	}
	return fmt.Errorf("cluster: connect to %s: %w", at, err)
}

// jetStreamError says why a server that answers is of no use.
func jetStreamError(cfg ConnConfig, err error) error {
	hint := fmt.Sprintf("none answered within %v: in a NATS cluster a majority of the servers must run", cfg.ConnectTimeout)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		hint = "start the server with -js, or enable JetStream for this account"
	}
	return fmt.Errorf("cluster: connect to %s: %w (%w); %s", cfg.where(), ErrNoJetStream, err, hint)
}

// Connected tells whether the server is there right now.
func (c *Conn) Connected() bool { return c.NC.IsConnected() }

// Close lets subscriptions finish what they have and sends what was published,
// within DrainTimeout, then closes the connection. It may be called again.
func (c *Conn) Close() error {
	if c.NC.IsClosed() {
		return nil
	}
	err := c.NC.Drain()
	if err != nil { // nothing to drain into
		c.NC.Close()
	}
	select {
	case <-c.closed:
	case <-time.After(c.drain + time.Second):
		c.NC.Close()
		<-c.closed
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionReconnecting) && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("cluster: close: %w", err)
	}
	return nil
}

// Retry runs f, giving each attempt at most try, until it succeeds, fails for
// a lasting reason (see [Transient]) or ctx ends. The pause between attempts
// grows from 50 ms to 1 s. It returns the error of the last attempt.
func (c *Conn) Retry(ctx context.Context, try time.Duration, f func(context.Context) error) error {
	return c.retry(ctx, try, Transient, f)
}

// retry is Retry with another notion of what passes by itself.
func (c *Conn) retry(ctx context.Context, try time.Duration, passing func(error) bool, f func(context.Context) error) error {
	pause := retryPause
	for {
		attempt, cancel := context.WithTimeout(ctx, try)
		err := f(attempt)
		cancel()
		if err == nil || !passing(err) || c.NC.IsClosed() {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last attempt: %w)", ctx.Err(), err)
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRetryPause)
	}
}

// Codes of the JetStream API that pass by themselves: errors.json of nats-server.
const (
	codeNoPeers     jetstream.ErrorCode = 10005 // no suitable peers for placement, yet
	codeNotReady    jetstream.ErrorCode = 10008 // temporarily unavailable: no leader
	codeNotLeader   jetstream.ErrorCode = 10009
	codeWrongLast   jetstream.ErrorCode = 10071 // a conflict
	codeWrongFlight jetstream.ErrorCode = 10164 // a conflict with what is in flight (R3 only)
)

// Transient tells whether an error of NATS passes by itself, so that trying
// again makes sense: a time-out, nobody there to answer, no leader, or
// a connection that is being made again. The outcome of a publish that ended so
// is unknown.
func Transient(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrStaleConnection,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var api jetstream.JetStreamError
	if errors.As(err, &api) && api.APIError() != nil {
		switch api.APIError().ErrorCode {
		case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount, codeWrongLast, codeWrongFlight:
			return false
		case codeNoPeers, codeNotReady, codeNotLeader:
			return true
		}
		return api.APIError().Code == 503
	}
	return false
}

// Conflict tells whether a publish was refused because the expected last
// sequence was not the last.
func Conflict(err error) bool {
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		return false
	}
	code := api.APIError().ErrorCode
	return code == codeWrongLast || code == codeWrongFlight
}
