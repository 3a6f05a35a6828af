package resp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Gone tells whether the client has closed the connection, or its sending side, also
// while a command runs and commands wait to be read. Where that cannot be told it says no.
// It is for commands that take long and are of no use to a client that has left; it may be
// called from any goroutine until Handler.Close returns.
func (i ConnInfo) Gone() bool {
	sc, ok := i.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}
