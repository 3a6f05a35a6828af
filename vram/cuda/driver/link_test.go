//go:build cuda && cgo

package driver_test

import (
	"debug/elf"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/cu"

	"cairn/vram/cuda/driver"
)

// TestExports: the binary with cu in it shows the dynamic loader none of the
// trampolines, and asks it for nothing of CUDA's.
func TestExports(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{"cuInit": true}
	for _, f := range functions(t) {
		listed[f.name] = true
	}
	seen := false
	for _, s := range symbols {
		seen = seen || s.Name == "dlopen"
		if listed[s.Name] || strings.HasPrefix(s.Name, "cairn_") {
			t.Errorf("%s is a dynamic symbol", s.Name)
		}
	}
	if !seen {
		t.Error("dlopen is no dynamic symbol: the wrong file was read")
	}
	libraries, err := file.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(libraries, func(l string) bool { return strings.Contains(l, "cuda") }) {
		t.Errorf("the binary needs %v", libraries)
	}
}

// TestList: every function that cu calls is in the list, once, and what is there besides
// is what this package calls.
func TestList(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "gorgonia.org/cu").Output()
	if err != nil {
		t.Skipf("the source of gorgonia.org/cu cannot be found here: %v", err)
	}
	called := calls(t, strings.TrimSpace(string(dir)))
	if len(called) < 150 {
		t.Fatalf("only %d functions found in the source of gorgonia.org/cu", len(called))
	}
	ours := strings.Fields(`cuGetErrorName cuGetErrorString cuDeviceGetPCIBusId cuMemHostRegister cuMemHostUnregister
		cuIpcGetMemHandle cuIpcOpenMemHandle cuIpcCloseMemHandle cuMemcpyBatchAsync cuMemcpyBatchAsync_v2`)
	listed := map[string]bool{"cuInit": true}
	for _, f := range functions(t) {
		if listed[f.name] {
			t.Errorf("%s is in the list twice", f.name)
		}
		listed[f.name] = true
		if !called[f.name] && !slices.Contains(ours, f.name) {
			t.Errorf("%s is in the list and nobody calls it", f.name)
		}
	}
	for name := range called {
		if !listed[name] {
			t.Errorf("cu calls %s, which is not in the list", name)
		}
	}
}

// calls are the functions of CUDA that cu's root package refers to, without those that
// it defines itself.
func calls(t *testing.T, dir string) map[string]bool {
	t.Helper()
	called := map[string]bool{}
	own := map[string]bool{}
	fset := token.NewFileSet()
	sources, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if from, ok := s.X.(*ast.Ident); ok && from.Name == "C" && functionName.MatchString(s.Sel.Name) {
					called[s.Sel.Name] = true
				}
			}
			return true
		})
	}
	c, err := os.ReadFile(filepath.Join(dir, "batch.c"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range inC.FindAllStringSubmatch(string(c), -1) {
		if m[1] != "" {
			own[m[2]] = true
		} else {
			called[m[2]] = true
		}
	}
	for name := range own {
		delete(called, name)
	}
	return called
}

var (
	functionName = regexp.MustCompile(`^cu[A-Z]`)
	inC          = regexp.MustCompile(`(CUresult )?\b(cu[A-Z]\w*)\(`)
)

// TestRealDriver loads the driver of this machine, where there is one, and says what it
// lacks. It has a process of its own, like every way of loading.
func TestRealDriver(t *testing.T) {
	if err := driver.Load(""); err != nil {
		if os.Getenv("CAIRN_REQUIRE_GPU") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	version := cu.Version()
	devices, err := cu.NumDevices()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s serves CUDA %d.%d on %d devices; it lacks %v", driver.Path(), version/1000, version%1000/10, devices, driver.Missing())
	for i := range devices {
		uuid, err := driver.Uuid(i)
		if err != nil {
			t.Error(err)
		}
		bus, err := driver.PCIBusID(i)
		if err != nil {
			t.Error(err)
		}
		t.Logf("device %d: %s, %x", i, bus, uuid)
	}
	for _, symbols := range driver.Missing() {
		// The batch is of CUDA 12.8, and its newer form of CUDA 13.
		if !strings.HasPrefix(symbols, "cuMemcpyBatchAsync") && version >= 11080 {
			t.Errorf("the driver of CUDA %d lacks %s: is the name right?", version, symbols)
		}
	}
}
