package doctor

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

const (
	gib = 1 << 30
	mib = 1 << 20
	kib = 1 << 10
)

// fake is a machine on which all is well, and a plan that suits it.
type fake struct {
	Machine
	Plan
	files map[string]string
	now   time.Duration // of both clocks; the checks take a second
}

func newFake(t *testing.T) *fake {
	f := &fake{files: map[string]string{
		"proc/meminfo":                   "MemTotal: 16777216 kB\nMemAvailable: 12582912 kB\nSwapTotal: 0 kB\nHugepagesize: 2048 kB\nHugePages_Total: 0\n",
		"proc/self/cgroup":               "0::/user.slice/x.scope\n",
		"proc/sys/vm/overcommit_memory":  "0\n",
		"proc/sys/vm/swappiness":         "60\n",
		"proc/sys/kernel/threads-max":    "100000\n",
		"proc/sys/net/core/somaxconn":    "4096\n",
		hugePagesDir + "enabled":         "always [madvise] never\n",
		hugePagesDir + "shmem_enabled":   "always within_size [advise] never deny force\n",
		"sys/fs/cgroup/cgroup.procs":     "1\n",
		"sys/fs/cgroup/x/memory.max":     "1\n", // of others
		"sys/fs/cgroup/user.slice/empty": "",
	}}
	f.Machine = Machine{
		Rlimit: func(int) (uint64, uint64, error) { return unix.RLIM_INFINITY, unix.RLIM_INFINITY, nil },
		Lock:   func(int) error { return nil }, Memfd: func() error { return nil }, Populate: func() error { return nil },
		Statfs: func(string) (FileSystem, error) {
			return FileSystem{Type: 0xef53, Free: 100 * gib, Total: 200 * gib}, nil
		},
		Listen: func(string) error { return nil }, Release: func() (string, error) { f.now += time.Second; return "6.1.0-18-amd64", nil },
		Clock:     func() (ClockState, error) { return ClockState{Synchronised: true, Error: 3 * time.Millisecond}, nil },
		Wall:      func() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(f.now) },
		Monotonic: func() time.Duration { return f.now }, CPUs: 8,
	}
	f.Plan = Plan{
		Host: gib, Emulated: gib / 4, Data: t.TempDir(), Size: 8 * gib, Files: 34, DiskRate: 1, Connections: 10000,
		Listen: map[string]string{"--listen": "127.0.0.1:7070"}, Advertise: "127.0.0.1:7070",
		Taken: func(string, string) (string, string, Level) { return "", "", Bad },
	}
	return f
}

// look makes the checks and finds the result of a name.
func (f *fake) look(t *testing.T, name string) Result {
	t.Helper()
	root := fstest.MapFS{}
	for path, text := range f.files {
		root[path] = &fstest.MapFile{Data: []byte(text)}
	}
	f.Root = root
	all := Look(f.Machine, f.Plan, func(string) {})
	for _, r := range all {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no result %q in %+v", name, all)
	return Result{}
}

// limit sets one resource limit.
func (f *fake) limit(resource int, soft, hard uint64) {
	f.Rlimit = func(r int) (uint64, uint64, error) {
		if r == resource {
			return soft, hard, nil
		}
		return unix.RLIM_INFINITY, unix.RLIM_INFINITY, nil
	}
}

// check is one machine and what is said of it.
type check struct {
	what   string
	change func(*fake)
	level  Level
	found  string // a part of it
	advice string // a part of it; empty for none
}

func runChecks(t *testing.T, name string, checks []check) {
	t.Helper()
	for _, c := range checks {
		t.Run(name+"/"+c.what, func(t *testing.T) {
			f := newFake(t)
			if c.change != nil {
				c.change(f)
			}
			r := f.look(t, name)
			if r.Level != c.level || !strings.Contains(r.Found, c.found) {
				t.Errorf("%v, found %q; want %v, %q", r.Level, r.Found, c.level, c.found)
			}
			if c.advice == "" != (r.Advice == "") || !strings.Contains(r.Advice, c.advice) {
				t.Errorf("advice %q, want %q", r.Advice, c.advice)
			}
			if (r.Level == OK) != (r.Advice == "") {
				t.Errorf("%v with the advice %q", r.Level, r.Advice)
			}
		})
	}
}

func TestAllIsWell(t *testing.T) {
	f := newFake(t)
	f.look(t, "memory")
	progress := 0
	list := Look(f.Machine, f.Plan, func(string) { progress++ }, Result{Group: Network, Name: "NATS"}, Result{Group: GPU, Name: "driver"})
	for _, r := range list {
		if r.Level != OK || r.Advice != "" {
			t.Errorf("%+v", r)
		}
		if r.Group == "" || r.Name == "" || r.Found == "" && r.Name != "NATS" && r.Name != "driver" {
			t.Errorf("incomplete: %+v", r)
		}
	}
	if Worst(list) != OK {
		t.Error("the worst is not ok")
	}
	var groups []string
	for _, r := range list {
		groups = append(groups, r.Group)
	}
	if want := []string{GPU, Memory, Disk, Network, System}; !slices.Equal(slices.Compact(groups), want) {
		t.Errorf("groups come as %v, want %v", slices.Compact(groups), want)
	}
	if i := slices.IndexFunc(list, func(r Result) bool { return r.Group == Network }); list[i].Name != "NATS" {
		t.Errorf("the network begins with %s", list[i].Name)
	}
	if progress != 0 {
		t.Error("something was measured without a sample")
	}
}

func TestLevels(t *testing.T) {
	for _, l := range []Level{OK, Warn, Bad} {
		text, err := json.Marshal(Result{Level: l})
		var back Result
		if err != nil || json.Unmarshal(text, &back) != nil || back.Level != l || !strings.Contains(string(text), `"`+l.String()+`"`) {
			t.Errorf("%v: %s, %v", l, text, back.Level)
		}
	}
	if err := new(Level).UnmarshalText([]byte("fine")); err == nil {
		t.Error("fine is a level")
	}
	r := ok("x", "").warn("first").bad("second").warn("third").bad("fourth")
	if r.Level != Bad || r.Advice != "second" {
		t.Errorf("%v %q: want the first of the worst", r.Level, r.Advice)
	}
	if Worst([]Result{{Level: Warn}, {Level: Bad}, {}}) != Bad || Worst(nil) != OK {
		t.Error("Worst is not the worst")
	}
}

func TestRoom(t *testing.T) {
	v1 := func(f *fake, limit string) {
		f.files["proc/self/cgroup"] = "9:name=systemd:/\n4:cpu,cpuacct:/\n3:memory:/docker/abc\n"
		f.files["sys/fs/cgroup/memory/memory.limit_in_bytes"] = limit
		f.files["sys/fs/cgroup/memory/memory.usage_in_bytes"] = "1073741824"
		f.files["sys/fs/cgroup/memory/memory.stat"] = "total_inactive_file 536870912\ninactive_file 0\n"
	}
	runChecks(t, "memory", []check{
		{"fits", nil, OK, "16 GiB, 12 GiB available; a full node takes 1.5 GiB", ""},
		{"machine too small", func(f *fake) { f.Host = 20 * gib }, Bad, "16 GiB", "lower --host to 13GiB, or give the machine more"},
		{"hopeless", func(f *fake) { f.Emulated = 20 * gib }, Bad, "", "lower --host, --vram"},
		{"others have it", func(f *fake) { f.Host = 13 * gib }, Warn, "12 GiB available", "lower --host by 1536MiB"},
		{"embedded NATS counts", func(f *fake) { f.Other = 15 * gib }, Bad, "a full node takes 17 GiB", "lower"},
		{"container", func(f *fake) {
			f.files["sys/fs/cgroup/user.slice/memory.max"] = "2147483648"
			f.files["sys/fs/cgroup/user.slice/memory.current"] = "1073741824"
			f.files["sys/fs/cgroup/user.slice/memory.stat"] = "anon 5\ninactive_file 1073741824\n"
			f.files["sys/fs/cgroup/user.slice/x.scope/memory.max"] = "max"
		}, OK, "container limit 2.0 GiB (machine 16 GiB), 2.0 GiB available", ""},
		{"small container", func(f *fake) { f.files["sys/fs/cgroup/user.slice/x.scope/memory.max"] = "1073741824" }, Bad, "container limit 1.0 GiB", "lower --host to 409MiB, or give the container more"},
		{"limit beyond the machine", func(f *fake) { f.files["sys/fs/cgroup/memory.max"] = "99999999999999" }, OK, "16 GiB, 12 GiB available", ""},
		{"version 1", func(f *fake) { v1(f, "4294967296") }, OK, "container limit 4.0 GiB (machine 16 GiB), 3.5 GiB available", ""},
		{"version 1 without limit", func(f *fake) { v1(f, "9223372036854771712") }, OK, "16 GiB, 12 GiB", ""},
		{"no /proc", func(f *fake) { clear(f.files) }, Warn, "unknown", "mount /proc"},
	})
}

func TestMemoryPolicies(t *testing.T) {
	runChecks(t, "overcommit", []check{
		{"heuristic", nil, OK, "heuristic", ""},
		{"always", func(f *fake) { f.files["proc/sys/vm/overcommit_memory"] = "1" }, OK, "always", ""},
		{"strict with room", func(f *fake) {
			f.files["proc/sys/vm/overcommit_memory"] = "2"
			f.files["proc/meminfo"] += "CommitLimit: 8388608 kB\nCommitted_AS: 4194304 kB\n"
		}, OK, "strict (vm.overcommit_memory=2), 4.0 GiB left", ""},
		{"strict", func(f *fake) {
			f.files["proc/sys/vm/overcommit_memory"] = "2"
			f.files["proc/meminfo"] += "CommitLimit: 8388608 kB\nCommitted_AS: 8000000 kB\n"
		}, Bad, "left to commit", "`sysctl vm.overcommit_memory=0`"},
		{"unknown", func(f *fake) { delete(f.files, "proc/sys/vm/overcommit_memory") }, OK, "unknown", ""},
	})
	withSwap := func(swappiness string) func(*fake) {
		return func(f *fake) {
			f.files["proc/meminfo"] = strings.Replace(f.files["proc/meminfo"], "SwapTotal: 0", "SwapTotal: 8388608", 1)
			f.files["proc/sys/vm/swappiness"] = swappiness
		}
	}
	runChecks(t, "swap", []check{
		{"none", nil, OK, "none", ""},
		{"eager", withSwap("60"), Warn, "8.0 GiB, vm.swappiness=60", "vm.swappiness=1"},
		{"rare", withSwap("1"), OK, "vm.swappiness=1", ""},
		{"locked for a GPU", func(f *fake) { withSwap("60")(f); f.GPU = "a GPU" }, OK, "8.0 GiB", ""},
	})
	runChecks(t, "huge pages", []check{
		{"on", nil, OK, "shared memory: advise; other: madvise", ""},
		{"not for shared memory", func(f *fake) { f.files[hugePagesDir+"shmem_enabled"] = "always [never]" }, Warn, "shared memory: never", "as root of the machine: `echo advise > /sys/kernel"},
		{"denied", func(f *fake) { f.files[hugePagesDir+"shmem_enabled"] = "always [deny]" }, Warn, "deny", "echo advise"},
		{"off", func(f *fake) {
			f.files[hugePagesDir+"shmem_enabled"], f.files[hugePagesDir+"enabled"] = "[never]", "[never]"
		}, Warn, "never", "shmem_enabled` and `echo madvise > /sys"},
		{"off, but nothing emulated", func(f *fake) { f.files[hugePagesDir+"enabled"] = "[never]"; f.Emulated = 0 }, OK, "other: never", ""},
		{"not built in", func(f *fake) { delete(f.files, hugePagesDir+"enabled"); delete(f.files, hugePagesDir+"shmem_enabled") }, OK, "has no transparent", ""},
	})
	reserved := func(total, free string) func(*fake) {
		return func(f *fake) {
			f.files["proc/meminfo"] = strings.Replace(f.files["proc/meminfo"], "HugePages_Total: 0", "HugePages_Total: "+total+"\nHugePages_Free: "+free, 1)
		}
	}
	runChecks(t, "reserved huge pages", []check{
		{"none", nil, OK, "none", ""},
		{"few", reserved("10", "10"), OK, "10 of 2.0 MiB, 10 free", ""},
		{"used", reserved("2000", "5"), OK, "2000 of 2.0 MiB, 5 free", ""},
		{"idle", reserved("2000", "1900"), Warn, "1900 free", "3.7 GiB are set aside and a node cannot use them: unless another program will, `sysctl vm.nr_hugepages=100`"},
	})
	shm := func(total int64, err error) func(*fake) {
		return func(f *fake) {
			f.Statfs = func(path string) (FileSystem, error) {
				if path == "/dev/shm" {
					return FileSystem{Total: total, Free: total}, err
				}
				return FileSystem{Total: 200 * gib, Free: 100 * gib}, nil
			}
		}
	}
	runChecks(t, "/dev/shm", []check{
		{"large", shm(8*gib, nil), OK, "8.0 GiB, 8.0 GiB free", ""},
		{"that of a container", shm(64*mib, nil), Warn, "64 MiB", "--shm-size"},
		{"none", shm(0, syscall.ENOENT), OK, "not mounted", ""},
	})
}

func TestLockedMemory(t *testing.T) {
	var asked int
	register := func(err error) func(int) error {
		return func(n int) error { asked = n; return err }
	}
	refused := errors.New("out of memory")
	runChecks(t, "page-locked memory", []check{
		{"no GPU", func(f *fake) { f.limit(unix.RLIMIT_MEMLOCK, 8*mib, 8*mib) }, OK, "limit 8.0 MiB, mlock works; only a GPU needs it", ""},
		{"no GPU and no lock", func(f *fake) { f.Lock = func(int) error { return syscall.ENOMEM } }, OK, "no limit, mlock: cannot allocate memory; only", ""},
		{"GPU", func(f *fake) { f.Register = register(nil) }, OK, "the GPU's driver took 1.0 MiB", ""},
		{"GPU beyond the limit", func(f *fake) { f.Register = register(nil); f.limit(unix.RLIMIT_MEMLOCK, 8*mib, 8*mib) }, OK, "limit 8.0 MiB, mlock works; the GPU's driver took 16 MiB", ""},
		{"GPU refuses", func(f *fake) { f.Register = register(refused); f.limit(unix.RLIMIT_MEMLOCK, 64*kib, 64*kib) }, Warn, "driver refuses 1.0 MiB: out of memory", "ulimit -l unlimited"},
		{"unknown", func(f *fake) {
			f.Rlimit = func(int) (uint64, uint64, error) { return 0, 0, syscall.EINVAL }
		}, OK, "limit unknown", ""},
	})
	f := newFake(t)
	f.Register = register(nil)
	f.limit(unix.RLIMIT_MEMLOCK, gib, gib)
	f.Host = 4 * gib
	f.look(t, "page-locked memory")
	if asked != mostLock {
		t.Errorf("%d bytes were registered, want %d", asked, mostLock)
	}
}

func TestSystem(t *testing.T) {
	runChecks(t, "kernel", []check{
		{"new", nil, OK, "Linux 6.1.0-18-amd64, memfd_create, MADV_POPULATE_WRITE", ""},
		{"old", func(f *fake) { f.Release = func() (string, error) { return "2.6.32-754.el6", nil } }, Bad, "2.6.32", "needs Linux 3.17"},
		{"old four", func(f *fake) { f.Release = func() (string, error) { return "3.10.0", nil } }, Bad, "3.10", "3.17"},
		{"strange", func(f *fake) { f.Release = func() (string, error) { return "next", nil } }, OK, "Linux next", ""},
		{"no memfd", func(f *fake) { f.Memfd = func() error { return syscall.EPERM } }, Bad, "memfd_create: operation not permitted", "seccomp"},
		{"no populate", func(f *fake) { f.Populate = func() error { return syscall.EINVAL } }, OK, "memfd_create", ""},
		{"no populate, but wanted", func(f *fake) { f.Populate = func() error { return syscall.EINVAL }; f.Prefault = true }, Warn, "", "5.14"},
	})
	runChecks(t, "processors", []check{
		{"many", nil, OK, "8 used", ""},
		{"one", func(f *fake) { f.CPUs = 1 }, Warn, "1 used", "2 or more"},
		{"container", func(f *fake) { f.files["sys/fs/cgroup/user.slice/cpu.max"] = "150000 100000" }, Warn, "container limit 1.5", "--cpus"},
		{"large container", func(f *fake) { f.files["sys/fs/cgroup/user.slice/cpu.max"] = "400000 100000" }, OK, "container limit 4", ""},
		{"no limit", func(f *fake) { f.files["sys/fs/cgroup/cpu.max"] = "max 100000" }, OK, "8 used", ""},
		{"version 1", func(f *fake) {
			f.files["proc/self/cgroup"] = "4:cpu,cpuacct:/\n"
			f.files["sys/fs/cgroup/cpu/cpu.cfs_quota_us"], f.files["sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000", "100000"
		}, Warn, "container limit 1", "--cpus"},
		{"version 1 without limit", func(f *fake) {
			f.files["proc/self/cgroup"] = "4:cpu,cpuacct:/\n"
			f.files["sys/fs/cgroup/cpu/cpu.cfs_quota_us"], f.files["sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "-1", "100000"
		}, OK, "8 used", ""},
	})
	runChecks(t, "open files", []check{
		{"no limit", nil, OK, "no limit, 10162 needed", ""},
		{"enough", func(f *fake) { f.limit(unix.RLIMIT_NOFILE, 1024, 20000) }, OK, "limit 20000, 10162 needed at most (10000 connections, 34 files", ""},
		{"few", func(f *fake) { f.limit(unix.RLIMIT_NOFILE, 1024, 4096) }, Warn, "limit 4096", "`ulimit -n 10162`, LimitNOFILE=10162 in the unit"},
		{"too few for the disk", func(f *fake) { f.limit(unix.RLIMIT_NOFILE, 1024, 4096); f.Files = 8194 }, Bad, "8194 files", "larger segments"},
		{"unknown", func(f *fake) {
			f.Rlimit = func(int) (uint64, uint64, error) { return 0, 0, syscall.EINVAL }
		}, OK, "limit unknown", ""},
	})
	runChecks(t, "threads", []check{
		{"kernel", nil, OK, "at most 100000 (kernel.threads-max)", ""},
		{"user", func(f *fake) { f.limit(unix.RLIMIT_NPROC, 4000, 5000) }, OK, "at most 4000 (ulimit -u)", ""},
		{"container", func(f *fake) { f.files["sys/fs/cgroup/user.slice/pids.max"] = "100" }, Warn, "at most 100 (pids.max", "allow 1024"},
		{"no limit", func(f *fake) { delete(f.files, "proc/sys/kernel/threads-max") }, OK, "no limit", ""},
	})
	runChecks(t, "clock", []check{
		{"synchronised", nil, OK, "synchronised, at most 3ms off", ""},
		{"alone", func(f *fake) { f.Clock = func() (ClockState, error) { return ClockState{}, nil } }, Warn, "not synchronised", "chrony"},
		{"not set", func(f *fake) { f.Wall = func() time.Time { return time.Unix(0, 0) } }, Bad, "the year 1970", "set it"},
		{"unknown", func(f *fake) { f.Clock = func() (ClockState, error) { return ClockState{}, syscall.EPERM } }, OK, "unknown", ""},
	})
	runChecks(t, "time", []check{
		{"steady", nil, OK, "steady over 1s", ""},
		{"a step", func(f *fake) {
			wall := f.Wall
			n := 0
			f.Wall = func() time.Time { n++; return wall().Add(-time.Duration(n) * time.Minute) }
		}, Warn, "while 1s passed", "slew"},
		{"held up between the clocks", func(f *fake) {
			wall := f.Wall
			held := false
			f.Wall = func() time.Time {
				now := wall()
				if !held {
					held = true
					f.now += 2 * time.Second
				}
				return now
			}
		}, OK, "steady over 1s", ""},
	})
}

func TestNetwork(t *testing.T) {
	fails := func(err error) func(*fake) {
		return func(f *fake) { f.Machine.Listen = func(string) error { return err } }
	}
	runChecks(t, "--listen", []check{
		{"free", nil, OK, "127.0.0.1:7070 is free", ""},
		{"taken", fails(syscall.EADDRINUSE), Bad, "127.0.0.1:7070 is taken", "another port"},
		{"taken by a node", func(f *fake) {
			fails(syscall.EADDRINUSE)(f)
			f.Taken = func(flag, addr string) (string, string, Level) { return "a node", "look at " + flag + " " + addr, Warn }
		}, Warn, "is taken by a node", "look at --listen 127.0.0.1:7070"},
		{"not here", fails(syscall.EADDRNOTAVAIL), Bad, "not an address of this machine", "--advertise"},
		{"low port", fails(syscall.EACCES), Bad, "not for this user", "setcap"},
		{"nonsense", fails(errors.New("missing port in address")), Bad, "missing port", "want host:port"},
	})
	away := []string{"nats://127.0.0.1:4222", "nats://10.0.0.1:4222"}
	runChecks(t, "address for peers", []check{
		{"alone", nil, OK, "on this machine only", ""},
		{"all on this machine", func(f *fake) { f.NATS = away[:1] }, OK, "on this machine only", ""},
		{"others cannot come", func(f *fake) { f.NATS = away }, Warn, "127.0.0.1:7070, on this machine only", "10.0.0.1:4222 may be on other machines: `--listen 0.0.0.0:7070"},
		{"localhost", func(f *fake) { f.NATS = away; f.Advertise = "localhost:1" }, Warn, "localhost:1", "--advertise"},
		{"reachable", func(f *fake) { f.NATS = away; f.Advertise = "10.0.0.2:7070" }, OK, "10.0.0.2:7070", ""},
	})
	runChecks(t, "waiting connections", []check{
		{"many", nil, OK, "at most 4096", ""},
		{"few", func(f *fake) { f.files["proc/sys/net/core/somaxconn"] = "128" }, Warn, "at most 128", "somaxconn=4096"},
		{"unknown", func(f *fake) { delete(f.files, "proc/sys/net/core/somaxconn") }, OK, "unknown", ""},
	})
}

// The doctor's own machine: nothing panics, and every result says something.
func TestHere(t *testing.T) {
	f := newFake(t)
	list := Look(Here(), f.Plan, func(string) {})
	names := map[string]int{}
	for _, r := range list {
		names[r.Name]++
		if r.Found == "" {
			t.Errorf("%+v", r)
		}
		t.Logf("%-4v %-20s %s", r.Level, r.Name, r.Found)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if names[name] > 1 {
			t.Errorf("%d results are called %s", names[name], name)
		}
	}
	if v := list[0].Values["total_bytes"]; v <= 0 || v == math.MaxInt64 {
		t.Errorf("this machine has %d bytes of memory", v)
	}
}
