package diskstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cairn/tier"
)

// filesystem is what the store needs of one directory, small enough that tests
// can stand in for it and fail any call. Names are relative to the directory.
type filesystem interface {
	// Open opens a file for reading and writing.
	Open(name string) (file, error)
	// Create makes a new, empty file; it fails when the name is taken.
	Create(name string) (file, error)
	Remove(name string) error
	Rename(from, to string) error
	// List returns the names in the directory.
	List() ([]string, error)
	// SyncDir makes names durable.
	SyncDir() error
	// Free is how many bytes the file system has left for files.
	Free() (int64, error)
}

// file is an open file. ReadV, WriteV and Sync may be called in parallel.
type file interface {
	// ReadV reads at off into the buffers in order, with one system call: n may
	// be short without an error. At the end of the file it returns 0, io.EOF.
	ReadV(bufs [][]byte, off int64) (n int, err error)
	// WriteV writes the buffers in order at off, with one system call: n may be
	// short without an error.
	WriteV(bufs [][]byte, off int64) (n int, err error)
	// Sync makes the data and the size durable.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// readFull fills the buffers from off on. It changes the slice bufs, not what it
// is made of.
func readFull(f file, bufs [][]byte, off int64) error {
	for bufs = skip(bufs, 0); len(bufs) > 0; {
		n, err := f.ReadV(bufs, off)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		off += int64(n)
		bufs = skip(bufs, n)
	}
	return nil
}

// writeFull writes all of the buffers at off. It changes the slice bufs, not
// what it is made of.
func writeFull(f file, bufs [][]byte, off int64) error {
	for bufs = skip(bufs, 0); len(bufs) > 0; {
		n, err := f.WriteV(bufs, off)
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return noSpace(err)
		}
		off += int64(n)
		bufs = skip(bufs, n)
	}
	return nil
}

// skip drops the first n bytes and empty buffers at the front.
func skip(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 && len(bufs) > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// noSpace marks the errors that mean a full file system or quota.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", tier.ErrNoSpace, err)
	}
	return err
}

// osDir is a directory of the operating system.
type osDir string

func (d osDir) path(name string) string { return filepath.Join(string(d), name) }

func (d osDir) Open(name string) (file, error) { return openFile(d.path(name), unix.O_RDWR) }

func (d osDir) Create(name string) (file, error) {
	return openFile(d.path(name), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
}

func (d osDir) Remove(name string) error { return os.Remove(d.path(name)) }

func (d osDir) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d osDir) List() ([]string, error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d osDir) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d osDir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(string(d), &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// osFile is a bare descriptor: positional vectored reads and writes need no
// more, and os.File offers none.
type osFile struct {
	fd   int
	path string
}

func openFile(path string, flags int) (file, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &osFile{fd: fd, path: path}, nil
}

// retry repeats what a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (f *osFile) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.path, Err: err}
}

func (f *osFile) ReadV(bufs [][]byte, off int64) (n int, err error) {
	for {
		n, err = unix.Preadv(f.fd, bufs, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, f.wrap("preadv", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (f *osFile) WriteV(bufs [][]byte, off int64) (n int, err error) {
	for {
		n, err = unix.Pwritev(f.fd, bufs, off)
		if err == unix.EINTR {
			continue
		}
		return max(n, 0), f.wrap("pwritev", err)
	}
}

func (f *osFile) Sync() error {
	return f.wrap("fdatasync", retry(func() error { return unix.Fdatasync(f.fd) }))
}

func (f *osFile) Truncate(size int64) error {
	return f.wrap("ftruncate", retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

func (f *osFile) Size() (int64, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(f.fd, &st) })
	return st.Size, f.wrap("fstat", err)
}

func (f *osFile) Close() error { return f.wrap("close", unix.Close(f.fd)) }
