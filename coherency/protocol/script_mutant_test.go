//go:build cairn_mutant

package protocol

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"cairn/internal/mutant"
)

// TestScriptsNoticeMutants breaks the protocol in each of the known ways; some script
// must then print something else than it should, or find an invariant broken.
func TestScriptsNoticeMutants(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range append(mutant.All(), mutant.None) {
		mutant.Choose(name)
		var noticed []string
		for _, file := range files {
			if differs(t, file) {
				noticed = append(noticed, strings.TrimSuffix(filepath.Base(file), ".txt"))
			}
		}
		mutant.Choose(mutant.None)
		if (len(noticed) == 0) != (name == mutant.None) {
			t.Errorf("%v: noticed by %d scripts %v", name, len(noticed), noticed)
		}
		t.Logf("%v: noticed by %v", name, noticed)
	}
}

// broken is what a script fails with here, instead of the test.
type broken struct{ testing.TB }

func (broken) Helper()                 {}
func (b broken) Fatal(...any)          { panic(b) }
func (b broken) Fatalf(string, ...any) { panic(b) }

// differs tells whether a script prints something else than its file says.
func differs(t *testing.T, file string) (different bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(broken); !ok {
				t.Logf("%s: panic: %v", file, p)
			}
			different = true
		}
	}()
	s := &script{}
	for directive := range strings.SplitSeq(string(data), "\n\n") {
		head, want, ok := strings.Cut(directive, "----\n")
		if !ok {
			continue // a comment
		}
		line, input, _ := strings.Cut(head, "\n")
		for strings.HasPrefix(line, "#") {
			line, input, _ = strings.Cut(input, "\n")
		}
		cmd, args, err := datadriven.ParseLine(line)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got := s.run(broken{t}, &datadriven.TestData{Pos: file, Cmd: cmd, CmdArgs: args, Input: input})
		if strings.TrimSpace(got) != strings.TrimSpace(want) {
			return true
		}
	}
	return false
}
