package hostcache

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// arena is a shared memory file, mapped once. The file cannot change its size,
// so that whoever maps it as well can never be hit by a truncation.
type arena struct {
	fd     int
	mem    []byte
	unlock func() error // Config.Lock's; nil for none
}

// arenaName is what /proc/PID/maps calls the arena, after "/memfd:".
const arenaName = "cairn-host"

func openArena(size int64, prefault bool, log *slog.Logger) (*arena, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(arenaName, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(arenaName, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("hostcache: memfd_create: %w", err)
	}
	a := &arena{fd: fd}
	if err := a.mapAll(size, prefault, log); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *arena) mapAll(size int64, prefault bool, log *slog.Logger) error {
	if err := unix.Ftruncate(a.fd, size); err != nil {
		return fmt.Errorf("hostcache: size the arena to %d bytes: %w", size, err)
	}
	if _, err := unix.FcntlInt(uintptr(a.fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK); err != nil {
		return fmt.Errorf("hostcache: seal the arena: %w", err)
	}
	mem, err := unix.Mmap(a.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("hostcache: map the arena of %d bytes: %w", size, err)
	}
	a.mem = mem
	a.adviseHuge(log)
	if !prefault {
		return nil
	}
	err = unix.Madvise(a.mem, unix.MADV_POPULATE_WRITE)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.14
		err = unix.Fallocate(a.fd, 0, 0, size)
	}
	if err != nil {
		return fmt.Errorf("hostcache: take %d bytes of memory (lower the capacity or free memory): %w", size, err)
	}
	return nil
}

// adviseHuge asks for huge pages. The kernel grants the advice even where its
// policy for shared memory then ignores it, so the policy is read and logged.
func (a *arena) adviseHuge(log *slog.Logger) {
	const policyFile = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
	err := unix.Madvise(a.mem, unix.MADV_HUGEPAGE)
	policy := "unknown"
	if text, err := os.ReadFile(policyFile); err == nil {
		policy = chosen(text)
	}
	granted := err == nil && (policy == "always" || policy == "within_size" || policy == "advise" || policy == "force")
	attrs := []any{"bytes", len(a.mem), "huge_pages", granted, "policy", policy}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	if !granted {
		attrs = append(attrs, "hint", "write advise to "+policyFile)
	}
	log.Info("host arena mapped", attrs...)
}

// chosen is the word in brackets in a sysfs file that lists the choices.
func chosen(text []byte) string {
	_, rest, _ := bytes.Cut(text, []byte("["))
	word, _, ok := bytes.Cut(rest, []byte("]"))
	if !ok {
		return "unknown"
	}
	return string(word)
}

// lock shows the memory to Config.Lock.
func (a *arena) lock(lock func([]byte) (func() error, error)) error {
	if lock == nil {
		return nil
	}
	unlock, err := lock(a.mem)
	if err != nil {
		return fmt.Errorf("hostcache: lock the arena of %d bytes: %w", len(a.mem), err)
	}
	a.unlock = unlock
	return nil
}

// close unlocks and unmaps the arena; its bytes must no longer be used by anyone.
func (a *arena) close() error {
	var errs []error
	if a.unlock != nil {
		errs = append(errs, a.unlock())
		a.unlock = nil
	}
	if a.mem != nil {
		errs = append(errs, unix.Munmap(a.mem))
		a.mem = nil
	}
	if a.fd >= 0 {
		errs = append(errs, unix.Close(a.fd))
		a.fd = -1
	}
	return errors.Join(errs...)
}
