package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"cairn/resp"
)

// Config says how to reach a cluster. The zero value of each limit stands for
// its default.
type Config struct {
	// Nodes are data-plane addresses: host:port, or unix:/path/to/socket. At
	// least one is required; more are used when the first fails.
	Nodes []string
	// Router is the base URL of a router's HTTP interface, such as
	// http://router:7080. When it is empty, nodes are asked for routes.
	Router string
	// Namespace is where names are looked up; default is the node's first.
	Namespace string

	// Timeout bounds each call whose context has no deadline; default 30 s.
	Timeout time.Duration
	// DialTimeout bounds connecting to a node; default 2 s.
	DialTimeout time.Duration
	// MaxConnections is the most connections to one node; more calls wait.
	// Default 32.
	MaxConnections int
	// Window is the most blocks in one request of a batch; default 256.
	Window int
	// Cooldown is how long a node that could not be reached is asked last;
	// default 1 s.
	Cooldown time.Duration
	// MaxBackoff is the longest pause before Update and Watch try again; default
	// 250 ms.
	MaxBackoff time.Duration
	// WatchPoll is how long a node may keep the question of a Watch before it
	// answers that there is nothing new; default 20 s.
	WatchPoll time.Duration
}

// conn is how a connection is made.
func (c Config) conn() resp.ClientConfig {
	return resp.ClientConfig{DialTimeout: c.DialTimeout, Timeout: c.Timeout}
}

func (c Config) withDefaults() Config {
	setDefault(&c.Timeout, 30*time.Second)
	setDefault(&c.DialTimeout, 2*time.Second)
	setDefault(&c.MaxConnections, 32)
	setDefault(&c.Window, 256)
	setDefault(&c.Cooldown, time.Second)
	setDefault(&c.MaxBackoff, 250*time.Millisecond)
	setDefault(&c.WatchPoll, 20*time.Second)
	return c
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if len(c.Nodes) == 0 {
		errs = append(errs, errors.New("no node given: want host:port or unix:/path"))
	}
	for _, n := range c.Nodes {
		if _, _, err := split(n); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Router != "" {
		if u, err := url.Parse(c.Router); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, fmt.Errorf("router %q: want http://host:port", c.Router))
		}
	}
	if c.MaxConnections < 0 || c.Window < 0 || c.Timeout < 0 || c.DialTimeout < 0 || c.Cooldown < 0 || c.MaxBackoff < 0 || c.WatchPoll < 0 {
		errs = append(errs, errors.New("limits must not be negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cairn: client configuration: %w", err)
	}
	return nil
}

// split turns an address of Config.Nodes into what net.Dial takes.
func split(node string) (network, addr string, err error) {
	if path, ok := strings.CutPrefix(node, "unix:"); ok {
		if path == "" {
			return "", "", errors.New("node \"unix:\": the path is missing")
		}
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(node); err != nil || port == "" {
		return "", "", fmt.Errorf("node %q: want host:port or unix:/path", node)
	}
	return "tcp", node, nil
}
