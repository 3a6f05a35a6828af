package trace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cairn/block"
)

func collect(t *testing.T, text string, l Limits) ([]Request, error) {
	t.Helper()
	var all []Request
	for r, err := range Read(strings.NewReader(text), l) {
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}

func TestRead(t *testing.T) {
	text := `{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [7, 8]}
{"timestamp": 1500, "input_length": 513, "output_length": 0, "hash_ids": [7, 9], "session": "x"}

{"timestamp": 1500.5, "input_length": 600, "output_length": 1, "hash_ids": [7]}
{"timestamp": 2000, "input_length": 0, "output_length": 1, "hash_ids": []}`
	got, err := collect(t, text, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Request{
		{Input: 1024, Output: 5, IDs: []uint64{7, 8}},
		{Arrival: 1500 * time.Millisecond, Input: 513, IDs: []uint64{7, 9}},
		{Arrival: 1500500 * time.Microsecond, Input: 600, Output: 1, IDs: []uint64{7}},
		{Arrival: 2 * time.Second, Output: 1, IDs: []uint64{}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadErrors(t *testing.T) {
	good := `{"timestamp": 0, "input_length": 512, "output_length": 5, "hash_ids": [7]}` + "\n"
	for _, c := range []struct {
		name, text string
		limits     Limits
		kind       error
		says       []string
	}{
		{"truncated", good + good[:40], Limits{}, ErrTruncated, []string{"line 2", "head -n 1"}},
		{"bad JSON", good + "oops\n" + good, Limits{}, ErrFormat, []string{"line 2", "hash_ids"}},
		{"wrong type", `{"timestamp": "now"}`, Limits{}, ErrFormat, []string{"line 1", "timestamp"}},
		{"missing ids", `{"timestamp": 0, "input_length": 512, "output_length": 5}`, Limits{}, ErrFormat, []string{"hash_ids"}},
		{"missing input", `{"timestamp": 0, "output_length": 5, "hash_ids": []}`, Limits{}, ErrFormat, []string{"input_length"}},
		{"missing output", `{"timestamp": 0, "input_length": 5, "hash_ids": []}`, Limits{}, ErrFormat, []string{"output_length"}},
		{"missing time", `{"input_length": 5, "output_length": 5, "hash_ids": []}`, Limits{}, ErrFormat, []string{"timestamp"}},
		{"negative time", `{"timestamp": -1, "input_length": 512, "output_length": 5, "hash_ids": [7]}`, Limits{}, ErrFormat, []string{"timestamp -1"}},
		{"endless time", `{"timestamp": 1e300, "input_length": 512, "output_length": 5, "hash_ids": [7]}`, Limits{}, ErrFormat, []string{"timestamp"}},
		{"negative length", `{"timestamp": 0, "input_length": -512, "output_length": 5, "hash_ids": [7]}`, Limits{}, ErrFormat, []string{"-512"}},
		{"negative id", `{"timestamp": 0, "input_length": 512, "output_length": 5, "hash_ids": [-7]}`, Limits{}, ErrFormat, []string{"hash_ids[0] is -7"}},
		{"too few ids", `{"timestamp": 0, "input_length": 2000, "output_length": 5, "hash_ids": [7]}`, Limits{}, ErrFormat, []string{"want 4", "512"}},
		{"too many ids", `{"timestamp": 0, "input_length": 512, "output_length": 5, "hash_ids": [7, 8]}`, Limits{}, ErrFormat, []string{"want 1"}},
		{"limit of ids", `{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [7, 8]}`, Limits{IDs: 1}, ErrTooLarge, []string{"at most 1"}},
		{"limit of a line", good + good, Limits{LineBytes: 20}, ErrTooLarge, []string{"line 1", "20 bytes"}},
		{"long line without end", strings.Repeat(" ", 1<<17), Limits{LineBytes: 1 << 16}, ErrTooLarge, []string{"line 1"}},
		{"empty", "", Limits{}, ErrEmpty, nil},
		{"blank", "\n\n", Limits{}, ErrEmpty, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := collect(t, c.text, c.limits)
			if !errors.Is(err, c.kind) {
				t.Fatalf("got %v, want %v", err, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

func TestLimitsReportEverything(t *testing.T) {
	err := Limits{LineBytes: -1, IDs: -1, BlockTokens: -1}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three problems, got %v", err)
	}
	if _, err := collect(t, "x", Limits{IDs: block.MaxPosition + 2}); err == nil {
		t.Error("a limit beyond the positions of a key must be refused")
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	for _, err := range ReadFile(filepath.Join(dir, "none.jsonl"), Limits{}) {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "built in") {
			t.Errorf("missing file: %v", err)
		}
	}
	bad := filepath.Join(dir, "bad.jsonl")
	if err := os.WriteFile(bad, []byte("oops\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range ReadFile(bad, Limits{}) {
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), bad) {
			t.Errorf("bad file: %v", err)
		}
	}
}

func TestBoundStopsAtTheFirstNewBlock(t *testing.T) {
	var b Bound
	for _, c := range []struct {
		ids  []uint64
		hits int
	}{{[]uint64{1, 2, 3}, 0}, {[]uint64{1, 2, 4}, 2}, {[]uint64{1, 9, 3}, 1}, {[]uint64{2, 1}, 0}, {nil, 0}} {
		if got := b.Add(Request{IDs: c.ids}); got != c.hits {
			t.Errorf("%v: %d hits, want %d", c.ids, got, c.hits)
		}
	}
	want := Bound{Requests: 5, References: 11, Distinct: 7, Hits: 3}
	if d := cmp.Diff(want, b, cmpopts.IgnoreUnexported(Bound{})); d != "" {
		t.Error(d)
	}
}

func TestBundledBound(t *testing.T) {
	b, err := Measure(Bundled())
	if err != nil {
		t.Fatal(err)
	}
	want := Bound{Requests: 1000, References: 27305, Distinct: 21514, Hits: 5791}
	if d := cmp.Diff(want, b, cmpopts.IgnoreUnexported(Bound{})); d != "" {
		t.Error(d)
	}
}

// The whole conversation trace is too large to ship; its figures are known.
func TestConversationBound(t *testing.T) {
	const variable = "CAIRN_TRACE"
	path := os.Getenv(variable)
	if path == "" {
		t.Skipf("set %s to Mooncake's conversation_trace.jsonl to check the figures of the whole trace", variable)
	}
	b, err := Measure(ReadFile(path, Limits{}))
	if err != nil {
		t.Fatal(err)
	}
	want := Bound{Requests: 12031, References: 288500, Distinct: 182790, Hits: 105710}
	if d := cmp.Diff(want, b, cmpopts.IgnoreUnexported(Bound{})); d != "" {
		t.Error(d)
	}
	if r := b.Ratio(); r < 0.36641 || r > 0.36642 {
		t.Errorf("ratio %.6f, want 0.36641", r)
	}
}

func TestKey(t *testing.T) {
	a, err := Key("", 7, 3)
	if err != nil {
		t.Fatal(err)
	}
	// 3, then SHA-256 of the eight bytes of 7; runs of different versions must agree.
	if got, want := a.String(), "000003a3eb8db89fc5123ccfd4958505"; got != want {
		t.Errorf("key is %s, want %s", got, want)
	}
	seen := map[block.Key]bool{a: true}
	for _, c := range []struct {
		salt     string
		id       uint64
		position int
	}{{"", 8, 3}, {"", 7, 4}, {"x", 7, 3}} {
		k, err := Key(c.salt, c.id, c.position)
		if err != nil || seen[k] {
			t.Errorf("%v: key %s, %v", c, k, err)
		}
		seen[k] = true
	}
	if again, _ := Key("", 7, 3); again != a {
		t.Error("a key must depend on nothing but its arguments")
	}
	keys, err := Request{IDs: []uint64{5, 6, 4, 7}}.Keys(nil, "")
	if err != nil || len(keys) != 4 || keys[3] != a {
		t.Errorf("keys of a request: %v, %v", keys, err)
	}
	if _, err := Key("", 7, block.NamedPosition); !errors.Is(err, block.ErrPosition) {
		t.Errorf("got %v, want ErrPosition", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"timestamp": 0, "input_length": 512, "output_length": 5, "hash_ids": [7]}` + "\n"))
	f.Add(bundled[:2000])
	f.Add([]byte("{\"timestamp\": 1e999}\n\n[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := Limits{LineBytes: 1 << 12, IDs: 64, BlockTokens: 512}
		failed := false
		for r, err := range Read(strings.NewReader(string(text)), l) {
			if failed {
				t.Fatal("an error must end the sequence")
			}
			failed = err != nil
			if err == nil && (len(r.IDs) > l.IDs || r.Arrival < 0 || r.Input < 0 || r.Output < 0) {
				t.Fatalf("accepted %+v", r)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	b.SetBytes(int64(len(bundled)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Measure(Bundled()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestBundledCanBeReadAgain(t *testing.T) {
	requests := Bundled()
	first, err := Measure(requests)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Measure(requests); err != nil || again.Hits != first.Hits || again.Requests != first.Requests {
		t.Errorf("second reading: %d requests, %d hits, %v; first %d, %d", again.Requests, again.Hits, err, first.Requests, first.Hits)
	}
}
