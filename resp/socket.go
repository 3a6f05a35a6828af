package resp

import (
	"bytes"
	"net"
	"os"
	"strconv"
)

// socketBufferGranted tells whether the kernel gives a socket the buffers of n
// bytes that it asks for. Where it cannot be told, it does.
func socketBufferGranted(n int) bool {
	if n < 0 {
		return false
	}
	for _, name := range []string{"rmem_max", "wmem_max"} {
		text, err := os.ReadFile("/proc/sys/net/core/" + name)
		if err != nil {
			continue
		}
		if limit, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil && limit < n {
			return false
		}
	}
	return true
}

// tune sets a connection's options. They are for speed only, so that an error
// changes nothing.
func (s *Server) tune(nc net.Conn) {
	tuneSocket(nc, s.cfg.SocketBuffer, s.tuneTCP)
}

func tuneSocket(nc net.Conn, size int, granted bool) {
	switch c := nc.(type) {
	case *net.TCPConn:
		c.SetNoDelay(true)
		if granted {
			c.SetReadBuffer(size)
			c.SetWriteBuffer(size)
		}
	case *net.UnixConn:
		// A unix socket's buffers do not grow by themselves: what is granted helps.
		if size > 0 {
			c.SetReadBuffer(size)
			c.SetWriteBuffer(size)
		}
	}
}
