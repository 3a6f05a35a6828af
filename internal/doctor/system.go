package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// systemChecks are the checks of the group System.
func systemChecks(m Machine, p Plan) []Result {
	return []Result{kernel(m, p), processors(m), files(m, p), threads(m), clock(m)}
}

// oldestKernel is the oldest that everything works on: memfd_create is of 3.17, and
// Go needs 3.2.
var oldestKernel = [2]int{3, 17}

// kernel: the host tier is a memory file.
func kernel(m Machine, p Plan) Result {
	release, err := m.Release()
	if err != nil {
		return ok("kernel", "unknown: %v", err)
	}
	r := ok("kernel", "Linux %s", release)
	if v, known := kernelVersion(release); known && (v[0] < oldestKernel[0] || v[0] == oldestKernel[0] && v[1] < oldestKernel[1]) {
		return r.bad("a node needs Linux %d.%d or later", oldestKernel[0], oldestKernel[1])
	}
	if err := m.Memfd(); err != nil {
		r.Found += fmt.Sprintf(", memfd_create: %v", err)
		return r.bad("the host tier needs memfd_create: allow it in the container's seccomp profile")
	}
	r.Found += ", memfd_create"
	if err := m.Populate(); err != nil {
		if p.Prefault {
			return r.warn("--prefault takes longer: MADV_POPULATE_WRITE is of Linux 5.14")
		}
		return r
	}
	r.Found += ", MADV_POPULATE_WRITE"
	return r
}

// kernelVersion reads 6 and 1 out of 6.1.0-18-amd64.
func kernelVersion(release string) (v [2]int, known bool) {
	words := strings.SplitN(release, ".", len(v)+1)
	if len(words) < len(v) {
		return v, false
	}
	for i := range v {
		digits := strings.IndexFunc(words[i], func(c rune) bool { return c < '0' || c > '9' })
		if digits < 0 {
			digits = len(words[i])
		}
		n, err := strconv.Atoi(words[i][:digits])
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

// processors: a node's work and that of an embedded NATS should not wait for each other.
func processors(m Machine) Result {
	r := ok("processors", "%d used", m.CPUs).value("cpus", int64(m.CPUs))
	const whole = 1000
	if limit, limited := m.cpuLimit(); limited {
		r.Found += fmt.Sprintf(", container limit %.4g", float64(limit)/whole)
		if limit < 2*whole {
			return r.warn("with less than two processors, copies wait for the protocol: give the container 2 or more, `docker run --cpus 2`")
		}
	}
	if m.CPUs < 2 {
		return r.warn("with one processor, copies wait for the protocol: use 2 or more")
	}
	return r
}

// spareFiles is what a process has open besides connections and segments.
const spareFiles = 128

// files: every connection is a file, and every segment of the disk tier.
func files(m Machine, p Plan) Result {
	_, hard, err := m.Rlimit(unix.RLIMIT_NOFILE) // Go raises the soft limit to it
	if err != nil {
		return ok("open files", "limit unknown: %v", err)
	}
	need := p.Connections + p.Files + spareFiles
	r := ok("open files", "no limit, %d needed at most", need)
	if hard != unix.RLIM_INFINITY {
		r = ok("open files", "limit %d, %d needed at most (%d connections, %s of blocks)", hard, need, p.Connections, plural(p.Files, "file", "files")).
			value("limit", int64(min(hard, 1<<62)))
	}
	const raise = "`ulimit -n %d`, LimitNOFILE=%[1]d in the unit, or `docker run --ulimit nofile=%[1]d`"
	switch {
	case hard < uint64(p.Files+spareFiles):
		return r.bad(raise+"; or larger segments (--segment)", need)
	case hard < uint64(need):
		return r.warn(raise+"; or lower --max-connections", need)
	}
	return r
}

// leastThreads is what a busy node may need: each blocked system call has a thread.
const leastThreads = 1024

// threads: the runtime ends the program when it is refused one.
func threads(m Machine) Result {
	least, whose := int64(1)<<62, ""
	take := func(n int64, from string) {
		if n < least {
			least, whose = n, from
		}
	}
	if soft, _, err := m.Rlimit(unix.RLIMIT_NPROC); err == nil && soft != unix.RLIM_INFINITY {
		take(int64(min(soft, 1<<62)), "ulimit -u")
	}
	if n, limited := m.pidLimit(); limited {
		take(n, "pids.max of the container")
	}
	if n, known := m.number("proc/sys/kernel/threads-max"); known {
		take(n, "kernel.threads-max")
	}
	if whose == "" {
		return ok("threads", "no limit")
	}
	r := ok("threads", "at most %d (%s)", least, whose).value("limit", least)
	if least < leastThreads {
		return r.warn("allow %d: a program that is refused a thread ends at once", leastThreads)
	}
	return r
}

// maxStep is how far two clocks may part while the doctor looks.
const maxStep = 100 * time.Millisecond

// clock: leases run on monotonic time; the end of a name's life, and what logs say,
// on the time of day.
func clock(m Machine) Result {
	state, err := m.Clock()
	if err != nil {
		return ok("clock", "state unknown: %v", err)
	}
	year := m.Wall().Year()
	const unset = 2024 // no binary of Cairn is older
	switch {
	case year < unset:
		return ok("clock", "set to the year %d", year).bad("set it: certificates are not valid yet, and names that end would end at once elsewhere")
	case !state.Synchronised:
		return ok("clock", "not synchronised").warn("names with an end would end at different times on different machines: start chrony or systemd-timesyncd")
	}
	return ok("clock", "synchronised, at most %v off", state.Error.Round(time.Millisecond)).value("max_error_us", state.Error.Microseconds())
}

// reading is what both clocks said at one moment. Between them the program may have been
// held up, for as long as took.
type reading struct {
	wall            time.Time
	monotonic, took time.Duration
}

func (m Machine) clocks() reading {
	before := m.Monotonic()
	wall := m.Wall()
	now := m.Monotonic()
	return reading{wall, now, now - before}
}

// steady tells whether the time of day went as fast as the monotonic clock since the
// doctor began. What may come of the program being held up is no step.
func steady(began, ended reading) Result {
	wall, monotonic := ended.wall.Sub(began.wall), ended.monotonic-began.monotonic
	step, slack := wall-monotonic, began.took+ended.took
	if step > 0 {
		step = max(step-slack, 0)
	} else {
		step = min(step+slack, 0)
	}
	r := ok("time", "steady over %v", monotonic.Round(time.Millisecond)).value("step_us", step.Microseconds())
	if step.Abs() > maxStep {
		r.Found = fmt.Sprintf("the time of day moved by %v while %v passed", wall.Round(time.Millisecond), monotonic.Round(time.Millisecond))
		return r.warn("something sets the clock in steps: let chrony or systemd-timesyncd slew it")
	}
	return r
}
