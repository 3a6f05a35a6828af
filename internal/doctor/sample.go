package doctor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// Sample says how much is done to measure a disk.
type Sample struct {
	// Bytes are written once and read once; 0 measures nothing.
	Bytes int64
	// Time bounds writing, syncing and reading together, to about a piece.
	Time time.Duration
}

const (
	// pieceSize is that of a read and of a write: a middling block.
	pieceSize = 2 << 20
	// syncSize is written before each sync that is timed.
	syncSize = 4 << 10
	// mostSyncs is how many syncs are timed where time allows.
	mostSyncs = 50
	// directAlign is what O_DIRECT wants memory and offsets to be multiples of.
	directAlign = 4 << 10
)

// sampleFile is a file without a name, so that nothing is left of it.
type sampleFile struct {
	*os.File
	direct bool
}

// openSample makes the file in dir, past the page cache where the file system can.
func openSample(dir string) (*sampleFile, error) {
	const mode = 0o600
	// Go's own flags do not have O_TMPFILE; a file system without it gets a name
	// for a moment.
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
	var f *os.File
	if err == nil {
		f = os.NewFile(uintptr(fd), dir)
	} else if f, err = os.CreateTemp(dir, ".cairn-doctor-"); err != nil {
		return nil, err
	} else if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	}
	return &sampleFile{File: f, direct: err == nil}, nil
}

func (f *sampleFile) close() { _ = f.Close() } // nothing in it is wanted

// speeds are what a sample has shown.
type speeds struct {
	bytes       int64 // that were written, and read
	write, read int64 // bytes a second, syncing included
	sync, worst time.Duration
	syncs       int
}

// measure writes, syncs many small writes, and reads, each for a third of the time
// at most.
func (f *sampleFile) measure(s Sample) (v speeds, err error) {
	const phases = 3
	part := s.Time / phases
	mem := aligned(pieceSize)
	for i := range mem { // no file system makes nothing of it
		mem[i] = byte(i * i >> 7)
	}
	began := time.Now()
	for v.bytes == 0 || v.bytes+pieceSize <= s.Bytes && time.Since(began) < part {
		if _, err := f.WriteAt(mem, v.bytes); err != nil {
			return v, fmt.Errorf("write: %w", err)
		}
		v.bytes += pieceSize
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return v, fmt.Errorf("sync: %w", err)
	}
	v.write = perSecond(v.bytes, time.Since(began))
	if v.sync, v.worst, v.syncs, err = f.syncs(mem[:syncSize], part); err != nil {
		return v, err
	}
	if !f.direct { // what has just been written is in the page cache
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	began = time.Now()
	read := int64(0)
	for read < v.bytes && (read == 0 || time.Since(began) < part) {
		n, err := f.ReadAt(mem, read)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return v, fmt.Errorf("read: %w", err)
		}
		read += int64(n)
	}
	v.read = perSecond(read, time.Since(began))
	return v, nil
}

// syncs times small writes with a sync each.
func (f *sampleFile) syncs(mem []byte, limit time.Duration) (median, worst time.Duration, n int, err error) {
	var took []time.Duration
	for began := time.Now(); len(took) == 0 || len(took) < mostSyncs && time.Since(began) < limit; {
		one := time.Now()
		if _, err := f.WriteAt(mem, int64(len(took))*syncSize); err != nil {
			return 0, 0, 0, fmt.Errorf("write: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, 0, 0, fmt.Errorf("sync: %w", err)
		}
		took = append(took, time.Since(one))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1], len(took), nil
}

// aligned is n bytes at an address that O_DIRECT takes.
func aligned(n int) []byte {
	mem := make([]byte, n+directAlign)
	skip := -int(uintptr(unsafe.Pointer(&mem[0]))) & (directAlign - 1)
	return mem[skip : skip+n : skip+n]
}

func perSecond(n int64, took time.Duration) int64 {
	return int64(float64(n) / max(took, time.Microsecond).Seconds())
}

// rate is bytes a second as makers of disks write it, in powers of ten.
func rate(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// round leaves a duration what can be read at a glance.
func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	const tenth = 100 * time.Microsecond
	return d.Round(tenth)
}

// allocated is what a file takes of the disk.
func allocated(info fs.FileInfo) int64 {
	const sector = 512 // the unit of st_blocks
	if st, known := info.Sys().(*syscall.Stat_t); known {
		return st.Blocks * sector
	}
	return info.Size()
}
