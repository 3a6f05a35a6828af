package emulated

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"cairn/vram"
)

// memoryName is what the kernel shows of the file that is a device's memory. An importer
// takes no other file for one.
const memoryName = "cairn-emulated"

// importBase is the address of the first byte of imported memory: no device is so large
// that its own addresses reach it.
const importBase vram.Addr = 1 << 52

// openMemory makes the memory of a device: a file without a name whose size cannot
// change, so that nobody who maps it as well can be hit by a truncation.
func openMemory(size int64) (fd int, memory []byte, err error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate(memoryName, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(memoryName, flags)
	}
	if err != nil {
		return -1, nil, fmt.Errorf("emulated: memfd_create: %w", err)
	}
	if err = unix.Ftruncate(fd, size); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err == nil {
		memory, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return -1, nil, errors.Join(fmt.Errorf("emulated: map %d bytes of memory: %w", size, err), unix.Close(fd))
	}
	// Huge pages where the system has them: an arena is large and long-lived. An
	// error only means that there are none.
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	return fd, memory, nil
}

// imported is memory of another device that is mapped here.
type imported struct {
	at     vram.Addr
	bytes  []byte
	mapped []byte // bytes, from the beginning of their first page on
}

var _ vram.Sharer = (*Device)(nil)

// Identity is what an engine compares to find the device of a node: there is one kind
// of emulated device, and any can import the memory of any.
func (d *Device) Identity() (kind, id string) { return "emulated", "" }

// Export implements [vram.Sharer]. The handle is text: where a process of the same user
// and the same process namespace can open the memory, where in it the allocation is, and
// the file's number, by which it is known again.
func (d *Device) Export(a vram.Addr) (vram.Handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(d.used, func(e extent) bool { return base+vram.Addr(e.from) == a })
	if i < 0 {
		return nil, fmt.Errorf("emulated: export %#x: %w", uint64(a), vram.ErrInvalidAddress)
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return nil, fmt.Errorf("emulated: export %#x: %w", uint64(a), err)
	}
	e := d.used[i]
	return fmt.Appendf(nil, "emulated:/proc/%d/fd/%d?offset=%d&size=%d&cookie=%d", os.Getpid(), d.fd, e.from, e.to-e.from, st.Ino), nil
}

var handlePattern = regexp.MustCompile(`^emulated:/proc/([0-9]{1,10})/fd/([0-9]{1,10})\?offset=([0-9]{1,18})&size=([0-9]{1,18})&cookie=([0-9]{1,20})$`)

// longestHandle is the longest handle that Export makes.
const longestHandle = 200

// Import implements [vram.Sharer]. A handle is taken apart, and only memory of an emulated
// device is ever opened, so that a handle from a stranger does no harm.
func (d *Device) Import(h vram.Handle) (vram.Addr, int64, error) {
	m, err := openHandle(h)
	if err != nil {
		return 0, 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return 0, 0, errors.Join(err, unix.Munmap(m.mapped))
	}
	m.at = importBase
	if last := len(d.imported) - 1; last >= 0 { // one page between, so that a copy over the end is an error
		p := d.imported[last]
		m.at = p.at + vram.Addr((int64(len(p.bytes))/vram.SlotAlignment+2)*vram.SlotAlignment)
	}
	d.imported = append(d.imported, m)
	return m.at, int64(len(m.bytes)), nil
}

func openHandle(h vram.Handle) (m imported, err error) {
	refuse := func(why any) (imported, error) {
		return imported{}, fmt.Errorf("emulated: import %.*q: %w: %v", longestHandle, []byte(h), vram.ErrInvalidHandle, why)
	}
	parts := handlePattern.FindSubmatch(h)
	if parts == nil {
		return refuse("want the handle of an emulated device's allocation")
	}
	offset, _ := strconv.ParseInt(string(parts[3]), 10, 64) // 18 digits fit
	size, _ := strconv.ParseInt(string(parts[4]), 10, 64)
	path := fmt.Sprintf("/proc/%s/fd/%s", parts[1], parts[2])
	link, err := os.Readlink(path)
	if err != nil {
		return refuse(err)
	}
	if link != "/memfd:"+memoryName+" (deleted)" {
		return refuse("that is not memory of an emulated device")
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return refuse(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return refuse(err)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	switch {
	case err != nil || seals&unix.F_SEAL_SHRINK == 0:
		return refuse("its size may change")
	case !bytes.Equal(strconv.AppendUint(nil, st.Ino, 10), parts[5]):
		return refuse("the memory is gone, and another has its place")
	case size == 0 || offset > st.Size || size > st.Size-offset:
		return refuse("the allocation is not inside the memory")
	}
	skip := offset % int64(os.Getpagesize())
	if m.mapped, err = unix.Mmap(fd, offset-skip, int(size+skip), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return refuse(err)
	}
	m.bytes = m.mapped[skip:]
	return m, nil
}

// Unimport implements [vram.Sharer].
func (d *Device) Unimport(a vram.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return err
	}
	i := slices.IndexFunc(d.imported, func(m imported) bool { return m.at == a })
	if i < 0 {
		return fmt.Errorf("emulated: unimport %#x: %w", uint64(a), vram.ErrInvalidAddress)
	}
	m := d.imported[i]
	d.imported = slices.Delete(d.imported, i, i+1)
	if err := unix.Munmap(m.mapped); err != nil {
		return fmt.Errorf("emulated: unimport %#x: %w", uint64(a), err)
	}
	return nil
}

// importedLocked are the n bytes at a, if they lie inside one imported allocation.
func (d *Device) importedLocked(a vram.Addr, n int64) ([]byte, bool) {
	for _, m := range d.imported {
		if size := vram.Addr(len(m.bytes)); a >= m.at && a-m.at <= size && n >= 0 && vram.Addr(n) <= size-(a-m.at) {
			from := int64(a - m.at)
			return m.bytes[from : from+n : from+n], true
		}
	}
	return nil, false
}

// closeMemory unmaps everything. No stream runs any more.
func (d *Device) closeMemory() error {
	errs := []error{unix.Munmap(d.memory), unix.Close(d.fd)}
	for _, m := range d.imported {
		errs = append(errs, unix.Munmap(m.mapped))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("emulated: unmap the memory: %w", err)
	}
	return nil
}
