package main

import (
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// childEnv makes the test binary behave as cairn: processes of a test are
	// the code under test, with no further build.
	childEnv = "TEST_AS_CAIRN"
	// leashEnv names the descriptor whose end tells a child that its test is
	// gone, also when that was killed.
	leashEnv = "TEST_LEASH"
	leashFD  = 3
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(engineEnv); socket != "" {
		engineMain(socket)
		return
	}
	if os.Getenv(childEnv) == "" {
		testscript.Main(m, map[string]func(){"cairn": main})
		return
	}
	if os.Getenv(leashEnv) != "" {
		os.Unsetenv(leashEnv) // a grandchild does not have the descriptor
		syscall.CloseOnExec(leashFD)
		go func() {
			_, _ = io.Copy(io.Discard, os.NewFile(leashFD, "leash"))
			os.Exit(exitFailure)
		}()
	}
	main()
}
