package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDisk(t *testing.T) {
	on := func(kind, free int64) func(*fake) {
		return func(f *fake) {
			f.Statfs = func(string) (FileSystem, error) { return FileSystem{Type: kind, Free: free, Total: 200 * gib}, nil }
		}
	}
	runChecks(t, "file system", []check{
		{"ext4", nil, OK, "ext4", ""},
		{"memory", on(0x01021994, gib), Warn, "tmpfs", "--disk 0"},
		{"container", on(0x794c7630, gib), Warn, "overlayfs", "mount a volume"},
		{"network", on(0x6969, gib), Warn, "nfs", "local disk"},
		{"unknown", on(0x1234, gib), OK, "type 0x1234", ""},
		{"no answer", func(f *fake) { f.Statfs = func(string) (FileSystem, error) { return FileSystem{}, syscall.EIO } }, OK, "unknown", ""},
	})
	runChecks(t, "free space", []check{
		{"enough", nil, OK, "100 GiB of 200 GiB; --disk may take 8.0 GiB more", ""},
		{"too little", func(f *fake) { on(0xef53, 20*gib)(f); f.Size = 30 * gib }, Bad, "20 GiB of 200 GiB", "lower --disk to 10GiB"},
		{"some is there", func(f *fake) {
			on(0xef53, 3*mib)(f)
			f.Size = 4 * mib
			blocks := filepath.Join(f.Data, "blocks")
			if err := os.Mkdir(blocks, 0o700); err != nil {
				panic(err)
			}
			if err := os.WriteFile(filepath.Join(blocks, "segment"), make([]byte, 2*mib), 0o600); err != nil {
				panic(err)
			}
		}, OK, "2.0 MiB of blocks there; --disk may take 2.0 MiB more", ""},
		{"streams", func(f *fake) { f.Streams = 96 * gib }, Warn, "100 GiB", "--nats-max-store (96 GiB)"},
		{"no disk", func(f *fake) { f.Size = 0 }, OK, "--disk 0 needs none", ""},
	})
	runChecks(t, "data directory", []check{
		{"there", nil, OK, "can be written", ""},
		{"to be made", func(f *fake) { f.Data = filepath.Join(f.Data, "a", "b") }, OK, "a/b will be made in /", ""},
		{"a file", func(f *fake) {
			f.Data = filepath.Join(f.Data, "file")
			if err := os.WriteFile(f.Data, nil, 0o600); err != nil {
				panic(err)
			}
		}, Bad, "file is not a directory", "another one with --data"},
		{"below a file", func(f *fake) {
			if err := os.WriteFile(filepath.Join(f.Data, "file"), nil, 0o600); err != nil {
				panic(err)
			}
			f.Data = filepath.Join(f.Data, "file", "x")
		}, Bad, "not a directory", "another one"},
		{"not writable", func(f *fake) { f.Data = "/proc/nothing" }, Bad, "/proc cannot be written", "give this user the directory"},
	})
}

func TestSpeed(t *testing.T) {
	f := newFake(t)
	f.Sample = Sample{Bytes: 8 * mib, Time: time.Hour} // long enough for any disk
	told := 0
	list := map[string]Result{}
	for _, r := range diskChecks(f.Machine, f.Plan, func(text string) {
		told++
		if !strings.Contains(text, f.Data) || !strings.Contains(text, "8.0 MiB, at most 1h0m0s") {
			t.Errorf("told %q", text)
		}
	}) {
		list[r.Name] = r
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	s := list["disk speed"]
	if s.Level != OK || s.Values["write_bytes_per_s"] <= 0 || s.Values["read_bytes_per_s"] <= 0 || !strings.Contains(s.Found, "8.0 MiB in pieces of 2.0 MiB") {
		t.Errorf("%+v", s)
	}
	if l := list["sync latency"]; l.Values["median_us"] <= 0 || l.Values["worst_us"] < l.Values["median_us"] || !strings.Contains(l.Found, "worst of 50") {
		t.Errorf("%+v", l)
	}
	if list["direct I/O"].Found == "" {
		t.Error("nothing about direct I/O")
	}
	left, err := os.ReadDir(f.Data)
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
}

// A disk that is slower than routers believe.
func TestSlowDisk(t *testing.T) {
	f := newFake(t)
	f.Sample, f.DiskRate = Sample{Bytes: pieceSize, Time: time.Minute}, 1<<62
	list := diskChecks(f.Machine, f.Plan, func(string) {})
	i := slices.IndexFunc(list, func(r Result) bool { return r.Name == "disk speed" })
	if i < 0 {
		t.Fatalf("no speed in %+v", list)
	}
	if r := list[i]; r.Level != Warn || !strings.Contains(r.Advice, "`--bandwidth-disk ") || !strings.HasSuffix(r.Advice, "MB`") {
		t.Errorf("%+v", r)
	}
}

// The time limit ends a measurement that would write for ever, each phase after one
// piece at the least.
func TestSampleIsBounded(t *testing.T) {
	f, err := openSample(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	v, err := f.measure(Sample{Bytes: 1 << 62, Time: time.Nanosecond})
	if err != nil || v.bytes != pieceSize || v.syncs != 1 || v.read <= 0 {
		t.Errorf("%+v, %v: want one piece and one sync", v, err)
	}
}

func TestFullDisk(t *testing.T) {
	f, err := openSample(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.close() // every call fails from here on
	list := speed(Plan{Sample: Sample{Bytes: mib, Time: time.Second}}, f)
	if r := list[len(list)-1]; r.Level != Bad || !strings.HasPrefix(r.Found, "write: ") {
		t.Errorf("%+v", r)
	}
}
