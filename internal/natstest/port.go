package natstest

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// Port is a port of 127.0.0.1 on which servers of this test may listen, one after the other:
// until the test ends the system gives it to nobody who asks for any port, also while none
// of them runs.
func Port(t testing.TB) int {
	t.Helper()
	fd, port, err := hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Close(fd); err != nil {
			t.Error(err)
		}
	})
	return port
}

// hold binds a socket that never listens. SO_REUSEADDR, which listeners of package net have
// as well, lets one of them listen beside it.
func hold() (fd, port int, err error) {
	if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, fmt.Errorf("natstest: %w", os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(fd) // there is an error already
		}
	}()
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, 0, fmt.Errorf("natstest: %w", os.NewSyscallError("setsockopt", err))
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, fmt.Errorf("natstest: %w", os.NewSyscallError("bind", err))
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("natstest: %w", os.NewSyscallError("getsockname", err))
	}
	return fd, name.(*syscall.SockaddrInet4).Port, nil
}
