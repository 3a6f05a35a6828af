package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// diskChecks are the checks of the group Disk. With a sample they take as long as
// the sample says.
func diskChecks(m Machine, p Plan, progress func(string)) []Result {
	dir, err := existing(p.Data)
	if err != nil {
		return []Result{ok("data directory", "%s: %v", p.Data, err).bad("choose another one with --data")}
	}
	f, err := openSample(dir)
	if err != nil {
		r := ok("data directory", "%s cannot be written: %v", dir, err)
		return []Result{r.bad("give this user the directory, or choose another one with --data")}
	}
	defer f.close()
	list := []Result{dataDir(p, dir), fileSystem(m, dir), space(m, p, dir)}
	if p.Sample.Bytes > 0 && p.Size > 0 {
		progress(fmt.Sprintf("measuring the disk under %s: %s, at most %v", dir, bytesText(p.Sample.Bytes), p.Sample.Time))
		list = append(list, speed(p, f)...)
	}
	return list
}

// existing is the innermost directory of a path that is there.
func existing(path string) (string, error) {
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return path, nil
		case err == nil:
			return "", fmt.Errorf("%s is not a directory", path)
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		case filepath.Dir(path) == path:
			return "", err
		}
		path = filepath.Dir(path)
	}
}

func dataDir(p Plan, dir string) Result {
	if dir != p.Data {
		return ok("data directory", "%s will be made in %s", p.Data, dir)
	}
	return ok("data directory", "%s can be written", dir)
}

// fileSystems are those that are worth a name, with what speaks against them. The
// numbers are those of statfs(2).
var fileSystems = map[int64]struct{ name, advice string }{
	0xef53:     {"ext4", ""},
	0x58465342: {"xfs", ""},
	0x9123683e: {"btrfs", "turn copy-on-write off for the directory (`chattr +C`), or take ext4 or xfs: segments are overwritten for ever"},
	0x2fc12fc1: {"zfs", ""},
	0xf2f52010: {"f2fs", ""},
	0xca451a4e: {"bcachefs", ""},
	0x01021994: {"tmpfs", "blocks on disk would be in memory, beside the host tier, and gone after a restart: take a disk, or --disk 0"},
	0x794c7630: {"overlayfs", "this is the writable layer of a container, slow and gone with it: mount a volume there"},
	0x6969:     {"nfs", "a network file system is slower than fetching from a peer, and locks may fail: take a local disk"},
	0xff534d42: {"cifs", "a network file system is slower than fetching from a peer, and locks may fail: take a local disk"},
	0xfe534d42: {"smb", "a network file system is slower than fetching from a peer, and locks may fail: take a local disk"},
	0x00c36400: {"ceph", "a network file system is slower than fetching from a peer: take a local disk"},
	0x0bd00bd0: {"lustre", "a network file system is slower than fetching from a peer: take a local disk"},
	0x65735546: {"fuse", "a file system in user space may be slow, or not sync: take a local disk"},
	0x9fa0:     {"proc", "this is no place for data: choose another one with --data"},
}

func fileSystem(m Machine, dir string) Result {
	f, err := m.Statfs(dir)
	if err != nil {
		return ok("file system", "unknown: %v", err)
	}
	kind, known := fileSystems[f.Type]
	if !known {
		return ok("file system", "type %#x", f.Type)
	}
	r := ok("file system", "%s", kind.name)
	if kind.advice != "" {
		return r.warn("%s", kind.advice)
	}
	return r
}

// space: is there room for what the tier may grow to, beside what it has already?
func space(m Machine, p Plan, dir string) Result {
	f, err := m.Statfs(dir)
	if err != nil {
		return ok("free space", "unknown: %v", err)
	}
	r := ok("free space", "%s of %s", bytesText(f.Free), bytesText(f.Total)).value("free_bytes", f.Free).value("total_bytes", f.Total)
	if p.Size == 0 {
		r.Found += "; --disk 0 needs none"
		return r
	}
	has := usage(p.Data)
	need := p.Size - min(has, p.Size)
	if has > 0 {
		r.Found += fmt.Sprintf(", %s of blocks there", bytesText(has))
	}
	r.Found += fmt.Sprintf("; --disk may take %s more", bytesText(need))
	switch {
	case need > f.Free:
		const share = 20 // keep one part in so many free
		return r.bad("writes would fail before the tier is full: lower --disk to %s, or free space", flagBytes(f.Free+min(has, p.Size)-f.Total/share))
	case need+p.Streams > f.Free:
		return r.warn("with that and the streams of the embedded NATS the disk may fill: lower --disk or --nats-max-store (%s)", bytesText(p.Streams))
	}
	return r
}

// usage is how many bytes lie below a directory: what it takes of the disk, not its
// files' length. What cannot be read counts as nothing.
func usage(dir string) (n int64) {
	_ = filepath.WalkDir(filepath.Join(dir, "blocks"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // what is not there takes no room
		}
		if info, err := e.Info(); err == nil {
			n += allocated(info)
		}
		return nil
	})
	return n
}

const (
	// slowSync is what a sync may take before write-through feels it.
	slowSync = 10 * time.Millisecond
	// slowShare: a disk that delivers less than one part in so many of what
	// routers reckon with makes them choose wrongly.
	slowShare = 2
	// megabyte is a million, as in MB/s.
	megabyte = 1e6
)

// speed measures with the sample file.
func speed(p Plan, f *sampleFile) []Result {
	direct := ok("direct I/O", "O_DIRECT works")
	if !f.direct {
		direct.Found = "no O_DIRECT here: reads are measured through the page cache"
	}
	s, err := f.measure(p.Sample)
	if err != nil {
		return []Result{direct, ok("disk speed", "%v", err).bad("look at the kernel's log (dmesg): the disk fails, or it is full")}
	}
	r := ok("disk speed", "writes %s/s, reads %s/s (%s in pieces of %s)", rate(s.write), rate(s.read), bytesText(s.bytes), bytesText(pieceSize)).
		value("write_bytes_per_s", s.write).value("read_bytes_per_s", s.read)
	if s.read < p.DiskRate/slowShare {
		r = r.warn("routers take it for %s/s: tell every router and node `--bandwidth-disk %dMB`", rate(p.DiskRate), max(s.read/megabyte, 1))
	}
	sync := ok("sync latency", "median %v, worst of %d %v", round(s.sync), s.syncs, round(s.worst)).
		value("median_us", s.sync.Microseconds()).value("worst_us", s.worst.Microseconds())
	if s.sync > slowSync {
		sync = sync.warn("write-through waits for it with every write: take an NVMe drive, with protection against power loss if it can be had")
	}
	return []Result{direct, r, sync}
}
