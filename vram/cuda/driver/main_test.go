//go:build cuda && cgo

package driver_test

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// functionList is the list that the C side is made of.
//
//go:embed include/cuda_functions.h
var functionList string

// stubSource is a small library in the place of the driver; see there.
//
//go:embed testdata/stub.c
var stubSource string

// function is a line of the list.
type function struct {
	name     string
	symbols  []string // in the order in which they are tried
	required bool
}

var listLine = regexp.MustCompile(`(?m)^CU_(FUNCTION|REQUIRED)\((\w+), "([\w ]+)", `)

func functions(t *testing.T) []function {
	t.Helper()
	var list []function
	for _, m := range listLine.FindAllStringSubmatch(functionList, -1) {
		list = append(list, function{name: m[2], symbols: strings.Fields(m[3]), required: m[1] == "REQUIRED"})
	}
	if lines := strings.Count(functionList, "\nCU_"); len(list) < 150 || len(list) != lines {
		t.Fatalf("%d functions found on %d lines of the list", len(list), lines)
	}
	return list
}

// A process loads one driver, so each way of loading has a process of its own: the test
// binary again, with the name of a scene and a path in its environment.
const (
	sceneVariable = "CAIRN_DRIVER_SCENE"
	pathVariable  = "CAIRN_DRIVER_PATH"
)

func TestMain(m *testing.M) {
	if scene := os.Getenv(sceneVariable); scene != "" {
		if err := scenes[scene](os.Getenv(pathVariable)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play runs a scene and fails the test when it fails.
func play(t *testing.T, scene, path string) {
	t.Helper()
	if scenes[scene] == nil {
		t.Fatalf("no scene %q", scene)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	// The race detector waits a second at each end of a process unless told otherwise.
	c.Env = append(os.Environ(), sceneVariable+"="+scene, pathVariable+"="+path, "GORACE=atexit_sleep_ms=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", scene, err, out)
	}
}

// stub compiles the library that stands in the driver's place, without the symbols in
// without, and with the defines that stub.c knows.
func stub(t *testing.T, without []string, defines ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		if cc, err = exec.LookPath("gcc"); err != nil {
			t.Skip("no C compiler (cc, gcc) to make a library in the driver's place")
		}
	}
	leave := map[string]bool{}
	for _, s := range without {
		leave[s] = true
	}
	// Symbols that stub.c has a body for; the others just succeed.
	var rest strings.Builder
	for _, f := range functions(t) {
		for i, s := range f.symbols {
			if i == 0 && !leave[s] && !strings.Contains(stubSource, "FUNCTION("+s+",") {
				fmt.Fprintf(&rest, "int %s(void) { return 0; }\n", s)
			}
		}
		// The symbol without a version is another function in the driver.
		if f.symbols[0] != f.name && len(f.symbols) == 1 && !leave[f.name] {
			fmt.Fprintf(&rest, "int %s(void) { return 998; }\n", f.name)
		}
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "stub.c")
	if err := os.WriteFile(source, []byte(stubSource+rest.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	library := filepath.Join(dir, "libcuda.so.1")
	args := []string{"-shared", "-fPIC", "-o", library, source}
	for _, s := range without {
		args = append(args, "-D"+s+"=left_out_"+s)
	}
	for _, d := range defines {
		args = append(args, "-D"+d)
	}
	if out, err := exec.CommandContext(t.Context(), cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cc, err, out)
	}
	return library
}

// want is an error that says what differs.
func want(what string, got, wanted any) error {
	if got == wanted {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, wanted)
}

// says is an error unless err is there, is the sentinel and says each of the words.
func says(what string, err, sentinel error, words ...string) error {
	if !errors.Is(err, sentinel) {
		return fmt.Errorf("%s: got %v, want %v", what, err, sentinel)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			return fmt.Errorf("%s: %q does not say %q", what, err, w)
		}
	}
	return nil
}
