package doctor

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the checks see of the system. All fields are set; [Here] is the
// machine that runs this program.
type Machine struct {
	// Root holds proc and sys, as "proc/meminfo".
	Root fs.FS
	// Rlimit gives the soft and hard limit of a resource such as
	// unix.RLIMIT_NOFILE; unix.RLIM_INFINITY is none.
	Rlimit func(resource int) (soft, hard uint64, err error)
	// Lock locks n bytes of memory in place and lets them go again.
	Lock func(n int) error
	// Memfd makes an empty memory file and closes it.
	Memfd func() error
	// Populate tells whether madvise knows MADV_POPULATE_WRITE.
	Populate func() error
	// Statfs tells about the file system that a path is on.
	Statfs func(path string) (FileSystem, error)
	// Listen opens a TCP port at the address and closes it.
	Listen func(addr string) error
	// Release is the version of the kernel, such as 6.1.0-18-amd64.
	Release func() (string, error)
	// Clock is the state of the kernel's clock.
	Clock func() (ClockState, error)
	// Wall and Monotonic are two clocks: the one that is set, and the one that
	// only goes forward, since an arbitrary start.
	Wall      func() time.Time
	Monotonic func() time.Duration
	// CPUs is how many goroutines run at a time, which follows limits of a
	// container.
	CPUs int
}

// FileSystem is what statfs(2) tells.
type FileSystem struct {
	Type  int64 // a magic number
	Free  int64 // bytes that this user may still take
	Total int64
}

// ClockState is what adjtimex(2) tells.
type ClockState struct {
	// Synchronised: something keeps the clock at the right time.
	Synchronised bool
	// Error is how far off it may be, as far as the kernel knows.
	Error time.Duration
}

// Here is the machine that this program runs on.
func Here() Machine {
	began := time.Now()
	return Machine{
		Root: os.DirFS("/"), Rlimit: rlimit, Lock: lock, Memfd: memfd, Populate: populate, Statfs: statfs,
		Listen: listen, Release: release, Clock: clockState,
		// Round(0) takes the monotonic reading away.
		Wall: func() time.Time { return time.Now().Round(0) }, Monotonic: func() time.Duration { return time.Since(began) },
		CPUs: runtime.GOMAXPROCS(0),
	}
}

func rlimit(resource int) (soft, hard uint64, err error) {
	var l unix.Rlimit
	err = unix.Getrlimit(resource, &l)
	return l.Cur, l.Max, err
}

func lock(n int) error {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return errors.Join(unix.Mlock(mem), unix.Munmap(mem)) // unmapping unlocks
}

func memfd() error {
	fd, err := unix.MemfdCreate("cairn-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func populate() error {
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return errors.Join(unix.Madvise(mem, unix.MADV_POPULATE_WRITE), unix.Munmap(mem))
}

func statfs(path string) (FileSystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return FileSystem{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return FileSystem{Type: s.Type, Free: int64(s.Bavail) * s.Bsize, Total: int64(s.Blocks) * s.Bsize}, nil
}

func listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

func release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

func clockState() (ClockState, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // no modes: it only reads
	if err != nil {
		return ClockState{}, err
	}
	const unsynchronised = 0x40 // STA_UNSYNC
	return ClockState{
		Synchronised: state != unix.TIME_ERROR && t.Status&unsynchronised == 0,
		Error:        time.Duration(t.Maxerror) * time.Microsecond,
	}, nil
}

// text is a small file below Root, without space around it; empty where there is none.
func (m Machine) text(path string) string {
	text, err := fs.ReadFile(m.Root, path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// number is a file that holds one.
func (m Machine) number(path string) (int64, bool) {
	n, err := strconv.ParseInt(m.text(path), 10, 64)
	return n, err == nil
}

// table is a file of lines "key: value", or "key value", as numbers; those in kB are in
// bytes. Lines of another form are left out.
func (m Machine) table(path string) map[string]int64 {
	t := map[string]int64{}
	for line := range strings.Lines(m.text(path)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		n, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			continue
		}
		if len(words) > 2 && words[2] == "kB" {
			n <<= 10
		}
		t[strings.TrimSuffix(words[0], ":")] = n
	}
	return t
}

// chosen is the word in brackets of a file that lists the choices; the whole where
// there are none.
func chosen(text string) string {
	_, rest, found := strings.Cut(text, "[")
	word, _, closed := strings.Cut(rest, "]")
	if !found || !closed {
		return text
	}
	return word
}
