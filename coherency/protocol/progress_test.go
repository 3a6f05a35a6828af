package protocol

import (
	"strings"
	"testing"
	"time"

	"cairn/coherency/ledger"
)

// TestProgress: a node that is not let into the log says how far it has come.
func TestProgress(t *testing.T) {
	m, err := New(Config{Node: "n1", Incarnation: 7}, ledger.New(ledger.NewMapTable(), 0), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Progress(time.Second); !strings.Contains(got, "still reading the log, at 0") {
		t.Errorf("before the end of the log: %q", got)
	}
	m.Step(time.Second, CaughtUp{})
	got := m.Progress(3 * time.Second)
	for _, want := range []string{"joining as incarnation 7", "1 messages on their way", "2s ago"} {
		if !strings.Contains(got, want) {
			t.Errorf("with a Join on its way: %q, want %q in it", got, want)
		}
	}
}
