package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"cairn/cluster"
	"cairn/internal/doctor"
	"cairn/internal/natstest"
)

// sampleReport has a result of each level.
var sampleReport = doctorReport{Version: "v1", Node: "n1", Level: doctor.Bad, Results: []doctor.Result{
	{Group: doctor.GPU, Name: "binary", Found: "GPUs by CUDA"},
	{Group: doctor.Memory, Name: "memory", Level: doctor.Bad, Found: "2.0 GiB, 1.0 GiB available; a full node takes 9.0 GiB",
		Advice: "the kernel would kill the node when its tiers fill: lower --host to 1GiB, or give the machine more memory"},
	{Group: doctor.Memory, Name: "swap", Level: doctor.Warn, Found: "8.0 GiB", Advice: "swapoff -a"},
}}

func TestDoctorText(t *testing.T) {
	const want = `cairn v1 on this machine, as node n1

GPU memory
  ok    binary  GPUs by CUDA

Host memory
  bad   memory  2.0 GiB, 1.0 GiB available; a full node takes 9.0 GiB
                → the kernel would kill the node when its tiers fill: lower --host to 1GiB, or give
                  the machine more memory
  warn  swap    8.0 GiB
                → swapoff -a

1 ok, 1 to look at, 1 bad
`
	if got := doctorText(sampleReport, display{columns: 100}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	colour := doctorText(sampleReport, display{columns: 100, colour: true})
	for _, part := range []string{"\x1b[1mGPU memory\x1b[0m", "\x1b[32mok  \x1b[0m", "\x1b[33mwarn\x1b[0m", "\x1b[31;1mbad \x1b[0m"} {
		if !strings.Contains(colour, part) {
			t.Errorf("no %q in %q", part, colour)
		}
	}
	plain := colour
	for _, code := range []string{bold, red, green, yellow, "0"} {
		plain = strings.ReplaceAll(plain, "\x1b["+code+"m", "")
	}
	if plain != want {
		t.Errorf("colours change the text:\n%s", plain)
	}
	for line := range strings.Lines(doctorText(sampleReport, display{columns: 60})) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 60 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"one two three", 7, []string{"one two", "three"}},
		{"one two three", 8, []string{"one two", "three"}},
		{"a-word-that-is-too-long b", 5, []string{"a-word-that-is-too-long", "b"}},
		{"run `a b c` now", 9, []string{"run", "`a b c`", "now"}},
		{"run `a b c d e` now", 7, []string{"run", "`a b c", "d e`", "now"}},
		{"(`a b`) `c`, d `e f`", 8, []string{"(`a b`)", "`c`, d", "`e f`"}},
		{"an ` alone at the end", 8, []string{"an", "` alone", "at the", "end"}},
		{"ääää öööö üüüü", 9, []string{"ääää öööö", "üüüü"}},
	} {
		if got := wrap(tt.text, tt.width); !slices.Equal(got, tt.want) {
			t.Errorf("%q in %d: %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

// There is no colour in a file, and none where people say so.
func TestDisplay(t *testing.T) {
	if d := displayOf(&strings.Builder{}, nil); d.colour || d.columns != plainColumns {
		t.Errorf("a buffer is %+v", d)
	}
	for _, tt := range []struct {
		env  []string
		want bool
	}{
		{nil, true}, {[]string{"TERM=xterm"}, true}, {[]string{"NO_COLOR="}, true},
		{[]string{"NO_COLOR=1"}, false}, {[]string{"TERM=dumb"}, false},
	} {
		if got := wantsColour(tt.env); got != tt.want {
			t.Errorf("%v: colour %v, want %v", tt.env, got, tt.want)
		}
	}
}

// resultNamed finds a result.
func resultNamed(t *testing.T, list []doctor.Result, name string) doctor.Result {
	t.Helper()
	i := slices.IndexFunc(list, func(r doctor.Result) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("no result %q in %+v", name, list)
	}
	return list[i]
}

func wantResult(t *testing.T, r doctor.Result, level doctor.Level, found, advice string) {
	t.Helper()
	if r.Level != level || !strings.Contains(r.Found, found) || !strings.Contains(r.Advice, advice) || (r.Level == doctor.OK) != (r.Advice == "") || r.Group == "" {
		t.Errorf("%+v; want %v, %q, %q", r, level, found, advice)
	}
}

func TestDoctorGPU(t *testing.T) {
	module := fstest.MapFS{nvidiaVersion: {Data: []byte("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12.2.0\n")}}
	doctorOf := func(gpu string, want vramSize) *doctorCmd {
		return &doctorCmd{nodeCmd: nodeCmd{VRAM: want, gpuFlags: gpuFlags{GPU: gpu}}}
	}
	look := func(t *testing.T, c *doctorCmd, root fstest.MapFS, api gpuAPI) ([]doctor.Result, *gpuMemory) {
		list, gpu := c.gpuResults(root, api)
		if gpu != nil {
			t.Cleanup(func() { gpu.dev.Close() })
		}
		return list, gpu
	}
	t.Run("static", func(t *testing.T) {
		list, gpu := look(t, doctorOf(gpuAuto, vramAuto), fstest.MapFS{}, staticGPUs)
		wantResult(t, resultNamed(t, list, "binary"), doctor.OK, "no GPU support; `make cuda`", "")
		wantResult(t, resultNamed(t, list, "GPU memory"), doctor.OK, "256 MiB, emulated in host memory", "")
		if gpu == nil || !gpu.emulated || len(list) != 2 {
			t.Errorf("%+v, %+v", gpu, list)
		}
		list, _ = look(t, doctorOf(gpuAuto, vramAuto), module, staticGPUs)
		wantResult(t, resultNamed(t, list, "binary"), doctor.Warn, "no GPU support, though this machine has an NVIDIA driver 580.65.06", "make cuda")
	})
	t.Run("GPUs", func(t *testing.T) {
		list, gpu := look(t, doctorOf("1", vramAuto), module, twoGPUs().api())
		wantResult(t, resultNamed(t, list, "driver"), doctor.OK, "fake, CUDA 13.0, kernel module 580.65.06", "")
		wantResult(t, resultNamed(t, list, "GPU 0"), doctor.OK, "Card A", "")
		wantResult(t, resultNamed(t, list, "GPU 1"), doctor.OK, "GPU-aaaabbbb-", "")
		wantResult(t, resultNamed(t, list, "GPU memory"), doctor.OK, "16 MiB of emulated, which has 64 MiB free of 64 MiB", "")
		if err := gpu.tryRegister()(1 << 20); err != nil {
			t.Errorf("register: %v", err)
		}
		if left := len(gpu.dev.(*fakeGPU).registered); left != 0 {
			t.Errorf("%d registrations are left", left)
		}
	})
	t.Run("no driver", func(t *testing.T) {
		fake := twoGPUs()
		fake.loadErr = errors.New("no NVIDIA driver")
		list, gpu := look(t, doctorOf(gpuAuto, vramAuto), fstest.MapFS{}, fake.api())
		wantResult(t, resultNamed(t, list, "driver"), doctor.Warn, "no NVIDIA driver", "install the driver")
		if gpu == nil || !gpu.emulated {
			t.Errorf("%+v", gpu)
		}
		list, gpu = look(t, doctorOf("0", vramAuto), fstest.MapFS{}, fake.api())
		wantResult(t, resultNamed(t, list, "driver"), doctor.Bad, "no NVIDIA driver", "install the driver")
		if gpu != nil || len(list) != 2 {
			t.Errorf("%+v, %+v", gpu, list)
		}
		list, _ = look(t, doctorOf("7", vramAuto), fstest.MapFS{}, twoGPUs().api())
		wantResult(t, resultNamed(t, list, "GPU memory"), doctor.Bad, "--gpu 7: there is no such GPU", "would not start")
		fake.loadErr = errors.New("cuda: no CUDA driver: not found (install one)")
		list, _ = look(t, doctorOf(gpuAuto, vramAuto), fstest.MapFS{}, fake.api())
		if got := resultNamed(t, list, "driver").Found; got != "no CUDA driver: not found" {
			t.Errorf("found %q", got)
		}
		list, _ = look(t, doctorOf(gpuEmulated, vramAuto), fstest.MapFS{}, fake.api())
		if len(list) != 2 {
			t.Errorf("with --gpu emulated: %+v", list)
		}
	})
	t.Run("no room for slots", func(t *testing.T) {
		fake := twoGPUs()
		fake.memory = 32 << 20
		c := doctorOf(gpuAuto, vramAuto)
		c.Classes = []size{8 << 20}
		list, _ := look(t, c, fstest.MapFS{}, fake.api())
		wantResult(t, resultNamed(t, list, "GPU memory"), doctor.Bad, "--vram: 8.0 MiB has no room for slots, want at least 32 MiB", "change --vram or --classes")
	})
	t.Run("none", func(t *testing.T) {
		list, gpu := look(t, doctorOf(gpuOff, vramAuto), fstest.MapFS{}, twoGPUs().api())
		wantResult(t, resultNamed(t, list, "GPU memory"), doctor.OK, "none", "")
		if gpu != nil {
			t.Errorf("%+v", gpu)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		fake := twoGPUs()
		fake.regErr = errors.New("no")
		_, gpu := look(t, doctorOf(gpuAuto, vramAuto), fstest.MapFS{}, fake.api())
		if err := gpu.tryRegister()(4096); !errors.Is(err, fake.regErr) {
			t.Errorf("register: %v", err)
		}
	})
}

// staticGPUs is a binary without GPU support, however this test was built.
var staticGPUs = gpuAPI{support: "GPU memory emulated"}

func TestModuleVersion(t *testing.T) {
	for text, want := range map[string]string{
		"NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version: 12.2.0": "535.129.03",
		"": "", "no version\n1.2": "",
	} {
		if got := moduleVersion([]byte(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestDoctorNATSFacts(t *testing.T) {
	good := natsFacts{url: "nats://h:4222", version: "2.11.0", rtt: 80 * time.Microsecond, maxStore: -1, replicas: 1}
	change := func(f func(*natsFacts)) []doctor.Result {
		facts := good
		f(&facts)
		return facts.results()
	}
	list := good.results()
	wantResult(t, resultNamed(t, list, "NATS"), doctor.OK, "nats://h:4222, version 2.11.0, round trip 80µs", "")
	wantResult(t, resultNamed(t, list, "JetStream"), doctor.OK, "a single server with 0 streams, 0 B stored; kept once", "")
	if len(list) != 2 {
		t.Errorf("%+v", list)
	}
	for _, tt := range []struct {
		what, name    string
		level         doctor.Level
		found, advice string
		change        func(*natsFacts)
	}{
		{"far", "NATS", doctor.Warn, "round trip 20ms", "nearer", func(f *natsFacts) { f.rtt = 20 * time.Millisecond }},
		{"away", "NATS", doctor.Bad, "no NATS server answers", "start the server, or correct --nats", func(f *natsFacts) { f.err = fmt.Errorf("x: %w", cluster.ErrUnreachable) }},
		{"no JetStream", "NATS", doctor.Bad, "JetStream is not available", "-js", func(f *natsFacts) { f.err = cluster.ErrNoJetStream }},
		{"other error", "NATS", doctor.Bad, "wrong password", "correct --nats", func(f *natsFacts) { f.err = errors.New("wrong password") }},
		{"cluster", "JetStream", doctor.OK, "cluster c1", "", func(f *natsFacts) { f.cluster, f.replicas = "c1", 3 }},
		{"one copy in a cluster", "JetStream", doctor.Warn, "kept once", "--nats-replicas 3", func(f *natsFacts) { f.cluster = "c1" }},
		{"copies on one server", "JetStream", doctor.Bad, "kept 3 times", "leave --nats-replicas out", func(f *natsFacts) { f.replicas = 3 }},
		{"little store", "JetStream", doctor.Warn, "0 B of 100 MiB stored", "snapshots of the coherence log want 1.3 GiB", func(f *natsFacts) { f.maxStore = 100 << 20 }},
		{"clock", "clock of NATS", doctor.OK, "30ms from ours", "", func(f *natsFacts) { f.offset, f.known = 30*time.Millisecond, true }},
		{"wrong clock", "clock of NATS", doctor.Warn, "-1m0s from ours", "synchronise", func(f *natsFacts) { f.offset, f.known = -time.Minute, true }},
	} {
		t.Run(tt.what, func(t *testing.T) {
			wantResult(t, resultNamed(t, change(tt.change), tt.name), tt.level, tt.found, tt.advice)
		})
	}
}

// A real server, without and with Cairn's streams.
func TestDoctorAsksNATS(t *testing.T) {
	url := natstest.Server(t, cluster.ServerConfig{}).ClientURL()
	conn, err := cluster.Connect(t.Context(), cluster.ConnConfig{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f := askNATS(t.Context(), conn, oneCall)
	if f.err != nil || f.rtt <= 0 || f.version == "" || f.streams != 0 || f.known || f.url == "" || f.replicas != 1 {
		t.Errorf("%+v", f)
	}
	if err := cluster.Ensure(t.Context(), conn, cluster.Layout{}); err != nil {
		t.Fatal(err)
	}
	f = askNATS(t.Context(), conn, oneCall)
	if f.err != nil || f.streams == 0 || !f.known || f.offset.Abs() > time.Minute {
		t.Errorf("%+v", f)
	}
	if got := doctor.Worst(f.results()); got == doctor.Bad {
		t.Errorf("%v: %+v", got, f.results())
	}
	addr := strings.TrimPrefix(url, "nats://")
	if !speaksNATS(addr) {
		t.Errorf("%s speaks NATS", addr)
	}
}

func TestLeastRTT(t *testing.T) {
	calls := 0
	trip := func() (time.Duration, error) {
		calls++
		return time.Duration(10-calls) * time.Millisecond, nil
	}
	if d, err := leastRTT(time.Minute, trip); err != nil || d != 5*time.Millisecond || calls != 5 {
		t.Errorf("%v, %v after %d round trips", d, err, calls)
	}
	if _, err := leastRTT(0, trip); err != nil || calls != 6 {
		t.Errorf("%v after %d round trips, want one more where there is no time", err, calls-5)
	}
	if _, err := leastRTT(time.Minute, func() (time.Duration, error) { return 0, cluster.ErrUnreachable }); !errors.Is(err, cluster.ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

// A program that listens and is silent is no NATS server, and no node.
func TestSilentListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	if speaksNATS(l.Addr().String()) {
		t.Error("it speaks NATS")
	}
	l.Close()
	<-done
}

// What the node is configured for reaches the checks.
func TestDoctorPlan(t *testing.T) {
	c := &doctorCmd{DiskSample: 1 << 20, DiskTime: time.Second}
	var err error
	if c.nodeCmd, err = nodeDefaults("--id", "n1", "--data", "/d", "--host", "2GiB", "--disk", "2TiB", "--listen", "0.0.0.0:7000",
		"--advertise", "h:1", "--max-connections", "99", "--bandwidth-disk", "1GB", "--nats-max-memory", "5MiB", "--nats-cluster", ":6222", "--prefault"); err != nil {
		t.Fatal(err)
	}
	a := &app{ctx: t.Context()}
	p := c.plan(a)
	if p.Host != 2<<30 || p.Other != 5<<20 || p.Data != "/d" || p.Size != 2<<40 || p.Files != 4097 || p.Connections != 99 || p.DiskRate != 1e9 ||
		p.Advertise != "h:1" || !p.Prefault || p.Streams == 0 || p.Sample.Bytes != 1<<20 || len(p.Listen) != 3 || p.Listen["--listen"] != "0.0.0.0:7000" {
		t.Errorf("%+v", p)
	}
	c.NATS, c.Disk, c.Advertise = []string{"nats://h"}, 0, ""
	p = c.plan(a)
	if p.Other != 0 || p.Streams != 0 || len(p.Listen) != 1 || p.Files != 0 || strings.HasPrefix(p.Advertise, "0.0.0.0") {
		t.Errorf("with a NATS of others: %+v", p)
	}
}
