package cairn

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed is the architecture as text: who may import whom inside the module.
// An edge that is not here fails the test. Test files may also import what
// testOnly lists.
const allowed = `
block:
sequence:          block
coherency:         block
coherency/ledger:  block internal/mutant
coherency/protocol: block coherency coherency/ledger internal/mutant
router:            block sequence
tier:              block
tier/tiertest:     block tier
vram:              block eviction tier
vram/devicetest:   block tier vram
vram/emulated:     block tier vram
engram:            block coherency tier vram
vram/cuda:         block tier vram vram/cuda/driver
vram/cuda/driver:
vram/cuda/fakedriver:
eviction:          block tier
hostcache:         block eviction tier
diskstore:         block tier
resp:              block
wire:              block resp
node:              block coherency coherency/ledger coherency/protocol sequence tier resp wire
cluster:           block coherency coherency/ledger router node wire
client:            block engram sequence resp vram wire
internal/doctor:
internal/faultproxy:
internal/mutant:
internal/natstest: cluster
internal/testseed:
internal/sim:      block coherency coherency/ledger coherency/protocol internal/mutant
internal/simulate: block eviction router tier internal/trace
internal/trace:    block sequence
internal/replay:   block internal/trace
internal/report:   internal/replay
examples/engine:   block client sequence examples/engine/serving
examples/engine/serving: block client sequence
examples/engram:   examples/engram/atlas
examples/engram/atlas: client engram
cmd/cairn:         *
`

// testOnly lists what any test file may import besides its package's own edges.
const testOnly = `client tier/tiertest vram vram/devicetest internal/natstest internal/testseed vram/emulated vram/cuda/fakedriver hostcache diskstore`

// outside lists the packages that alone may import a module: NATS is spoken in
// cluster and nowhere else.
const outside = `
github.com/nats-io/:            cluster internal/natstest
github.com/hashicorp/golang-lru: hostcache
github.com/alecthomas/kong:     cmd/cairn
github.com/anishathalye/porcupine: internal/sim cmd/cairn
github.com/cockroachdb/datadriven: coherency/protocol
gorgonia.org/cu:                vram/cuda vram/cuda/driver vram/cuda/fakedriver
`

// TestImports parses every Go file of the module. It reads source rather than
// asking the go command, so that a cached result can never hide a new edge.
func TestImports(t *testing.T) {
	edges := table(allowed)
	owners := table(outside)
	anyTest := strings.Fields(testOnly)
	fset := token.NewFileSet()
	packages := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if !strings.HasSuffix(path, ".go") || dir == "." {
			return nil
		}
		packages++
		may, listed := edges[dir]
		if !listed {
			t.Errorf("%s: package %s is not in the architecture; add it to the list with its reason in ARCHITECTURE.md", path, dir)
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if inside, ok := strings.CutPrefix(name, "cairn/"); ok {
				if inside == dir || slices.Contains(may, "*") || slices.Contains(may, inside) ||
					test && slices.Contains(anyTest, inside) {
					continue
				}
				t.Errorf("%s: %s must not import %s", path, dir, inside)
				continue
			}
			for module, who := range owners {
				if strings.HasPrefix(name, module) && !slices.Contains(who, dir) {
					t.Errorf("%s: only %v may import %s", path, who, name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if packages == 0 {
		t.Fatal("no package found: the test runs in the wrong directory")
	}
	t.Logf("%d files checked against %d packages: %v", packages, len(edges), slices.Sorted(maps.Keys(edges)))
}

func table(text string) map[string][]string {
	m := map[string][]string{}
	for line := range strings.Lines(text) {
		if name, rest, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = strings.Fields(rest)
		}
	}
	return m
}
