package resp

import (
	"net"
	"syscall"
	"time"
)

// silent returns a function that tells whether nc, which is idle, has not been
// closed by the peer and has nothing to be read. Where that cannot be told it
// says yes.
func silent(nc net.Conn) func() bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return func() bool { return true }
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() bool { return false }
	}
	var open bool
	look := func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = err == syscall.EAGAIN || err == syscall.EINTR
		return true
	}
	return func() bool {
		nc.SetReadDeadline(time.Time{}) // of the chain before
		return raw.Read(look) == nil && open
	}
}
