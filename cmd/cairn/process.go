package main

import (
	"os/exec"
	"syscall"
)

// setProcessGroup keeps a terminal's Ctrl-C from a child: the parent stops it in
// good order.
func setProcessGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
