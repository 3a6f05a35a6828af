package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterruptedStart stops nodes at points of their start, up to the one at which they are
// members. None may wait for the log to confirm what nobody reads from it any more.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{flags: smallNode()})
	for i := range 8 {
		n := s.newNode(fmt.Sprintf("early%d", i))
		n.process = cairn(t, nil, append(n.args, n.flag, "127.0.0.1:0")...)
		socket := filepath.Join(s.dir, n.id, "node.sock") // is there before the node joins
		await(t, patience, "the node listens", func() error {
			if !n.process.running() {
				return nil
			}
			_, err := os.Stat(socket)
			return err
		})
		delay := time.NewTimer(time.Duration(i) * 10 * time.Millisecond) // some are at other points than others
		select {
		case <-delay.C:
		case <-n.process.done:
		}
		n.process.signal(syscall.SIGTERM)
		began := time.Now()
		select {
		case <-n.process.done:
		case <-time.After(patience):
			t.Fatalf("%s does not stop", n.id)
		}
		if took, said := time.Since(began), n.process.out.String(); took > closeWait/2 || strings.Contains(said, "within") {
			t.Errorf("%s took %v to stop, and said:\n%s", n.id, took, said)
		}
	}
}

// closeWait is the default of --close-wait.
const closeWait = 30 * time.Second
