package node

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// process is another process of this machine, known by a descriptor that does not pass to
// another one when the number of the process does.
type process struct {
	pid  int
	file *os.File
}

// peerProcess is the process at the other end of a connection, which must be over a unix
// socket and of a process of this process's user. It is the one that connected: whoever
// it hands its socket or its memory to is its own business.
func peerProcess(conn net.Conn) (*process, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%w on this connection: use the node's unix socket, by which a process of this machine is known", ErrNoDevice)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("node: who has connected: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return nil, fmt.Errorf("node: who has connected: %w", errors.Join(err, credErr))
	}
	if uid := os.Geteuid(); int(cred.Uid) != uid {
		return nil, fmt.Errorf("%w for user %d: the engine must run as the node's user, %d", ErrNoDevice, cred.Uid, uid)
	}
	if cred.Pid <= 0 {
		return nil, fmt.Errorf("%w: the engine is in another process namespace; run both in one", ErrNoDevice)
	}
	return openProcess(int(cred.Pid))
}

// openProcess finds a process by its number. If that one has ended and the number belongs
// to another already, it is the other: that is waited for longer than need be.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("%w: follow process %d (that takes Linux 5.10): %w", ErrNoDevice, pid, err)
	}
	return &process{pid: pid, file: os.NewFile(uintptr(fd), "process")}, nil
}

// wait returns when the process has ended, with everything that it had open or mapped, or
// when close was called. It takes no thread.
func (p *process) wait() (ended bool) {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		ended = err == nil && n > 0
		return ended
	})
	return err == nil && ended
}

func (p *process) close() { p.file.Close() }
