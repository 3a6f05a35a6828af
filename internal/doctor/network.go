package doctor

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"syscall"
)

// networkChecks are the checks of the group Network, besides NATS.
func networkChecks(m Machine, p Plan) []Result {
	var list []Result
	for _, flag := range slices.Sorted(maps.Keys(p.Listen)) {
		list = append(list, port(m, p, flag))
	}
	return append(list, reach(p), backlog(m))
}

// port: is the address free?
func port(m Machine, p Plan, flag string) Result {
	addr := p.Listen[flag]
	err := m.Listen(addr)
	r := ok(flag, "%s is free", addr)
	switch {
	case err == nil:
		return r
	case errors.Is(err, syscall.EADDRINUSE):
		if who, advice, level := p.Taken(flag, addr); who != "" {
			r.Found = fmt.Sprintf("%s is taken by %s", addr, who)
			return r.with(level, "%s", advice)
		}
		r.Found = addr + " is taken"
		return r.bad("stop the program that listens there (`ss -ltnp` shows it), or give another port")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		r.Found = addr + " is not an address of this machine"
		return r.bad("take one that `ip addr` shows, or 0.0.0.0 with --advertise")
	case errors.Is(err, syscall.EACCES):
		r.Found = addr + " is not for this user"
		return r.bad("take a port from 1024 on, or give the program the right to: `setcap cap_net_bind_service=+ep` and its path")
	}
	r.Found = fmt.Sprintf("%s: %v", addr, err)
	return r.bad("want host:port with an address of this machine")
}

// reach: peers on other machines cannot come to a loopback address.
func reach(p Plan) Result {
	r := ok("address for peers", "%s", p.Advertise)
	if !loopback(p.Advertise) {
		return r
	}
	r.Found += ", on this machine only"
	for _, server := range p.NATS {
		if u, err := url.Parse(server); err == nil && !loopback(u.Host) {
			return r.warn("peers that use the NATS at %s may be on other machines: `--listen 0.0.0.0:7070`, and --advertise with this machine's name", u.Host)
		}
	}
	return r
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// leastBacklog is how many connections may wait to be accepted.
const leastBacklog = 1024

// backlog: what does not fit the queue is refused, or tries again a second later.
func backlog(m Machine) Result {
	n, known := m.number("proc/sys/net/core/somaxconn")
	if !known {
		return ok("waiting connections", "limit unknown")
	}
	r := ok("waiting connections", "at most %d (net.core.somaxconn)", n)
	if n < leastBacklog {
		return r.warn("when many clients connect at once, some wait for seconds: `sysctl net.core.somaxconn=4096`")
	}
	return r
}
