package doctor

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryChecks are the checks of the group Memory.
func memoryChecks(m Machine, p Plan) []Result {
	return []Result{room(m, p), overcommit(m, p), swap(m, p), hugePages(m, p), reservedPages(m), lockedMemory(m, p), sharedMemory(m)}
}

// room: are the tiers and the program smaller than what the machine, or the
// container, has?
func room(m Machine, p Plan) Result {
	info := m.table("proc/meminfo")
	total, free := info["MemTotal"], info["MemAvailable"]
	if total == 0 {
		return ok("memory", "unknown").warn("mount /proc, so that the node can see its machine")
	}
	where := "machine"
	found := bytesText(total)
	if g, limited := m.memoryLimit(); limited && g.limit < total {
		where = "container"
		found = fmt.Sprintf("container limit %s (machine %s)", bytesText(g.limit), bytesText(total))
		total, free = g.limit, min(free, g.limit-g.used)
	}
	need := p.memory()
	r := ok("memory", "%s, %s available; a full node takes %s", found, bytesText(free), bytesText(need)).
		value("total_bytes", total).value("available_bytes", free).value("need_bytes", need)
	switch {
	case need > total:
		const share = 10 // leave one part in so many to everything else
		most := total - total/share - (need - p.Host)
		if most <= 0 {
			return r.bad("this %s is too small for the node: lower --host, --vram and --nats-max-memory", where)
		}
		return r.bad("the kernel would kill the node when its tiers fill: lower --host to %s, or give the %s more memory", flagBytes(most), where)
	case need > free:
		return r.warn("other programs have the rest now, and what is too much gets somebody killed: stop them, or lower --host by %s", flagBytes(need-free))
	}
	return r
}

// overcommit: strict accounting refuses memory that nobody uses yet, or kills whoever
// touches it.
func overcommit(m Machine, p Plan) Result {
	mode, known := m.number("proc/sys/vm/overcommit_memory")
	if !known {
		return ok("overcommit", "unknown")
	}
	const strict = 2
	names := map[int64]string{0: "heuristic", 1: "always", strict: "strict"}
	r := ok("overcommit", "%s (vm.overcommit_memory=%d)", names[mode], mode)
	if mode != strict {
		return r
	}
	info := m.table("proc/meminfo")
	left := info["CommitLimit"] - info["Committed_AS"]
	r.Found += fmt.Sprintf(", %s left to commit", bytesText(left))
	if left < p.memory() {
		return r.bad("the node needs %s: `sysctl vm.overcommit_memory=0`, or raise vm.overcommit_ratio", bytesText(p.memory()))
	}
	return r
}

// swap: cached blocks that go to swap come back slower than from the disk tier.
func swap(m Machine, p Plan) Result {
	total := m.table("proc/meminfo")["SwapTotal"]
	if total == 0 {
		return ok("swap", "none")
	}
	swappiness, _ := m.number("proc/sys/vm/swappiness")
	r := ok("swap", "%s, vm.swappiness=%d", bytesText(total), swappiness)
	const low = 10
	if p.GPU != "" || swappiness <= low {
		return r // page-locked, or left alone
	}
	return r.warn("the host tier can be swapped out, and a block from swap is slower than one from --disk: `swapoff -a`, or `sysctl vm.swappiness=1`")
}

const hugePagesDir = "sys/kernel/mm/transparent_hugepage/"

// hugePages: large mappings in 4 KiB pages cost address translations, and time to lock.
func hugePages(m Machine, p Plan) Result {
	shmem, anon := chosen(m.text(hugePagesDir+"shmem_enabled")), chosen(m.text(hugePagesDir+"enabled"))
	if shmem == "" && anon == "" {
		return ok("huge pages", "this kernel has no transparent huge pages")
	}
	r := ok("huge pages", "shared memory: %s; other: %s", shmem, anon)
	var write []string
	if shmem == "never" || shmem == "deny" {
		write = append(write, "`echo advise > /"+hugePagesDir+"shmem_enabled`")
	}
	if anon == "never" && p.Emulated > 0 {
		write = append(write, "`echo madvise > /"+hugePagesDir+"enabled`")
	}
	if write != nil {
		return r.warn("the node's memory is in pages of 4 KiB, which makes large copies slower; as root of the machine: %s", strings.Join(write, " and "))
	}
	return r
}

// reservedPages: Cairn takes transparent huge pages, so reserved ones are lost to it.
func reservedPages(m Machine) Result {
	info := m.table("proc/meminfo")
	count, free, each := info["HugePages_Total"], info["HugePages_Free"], info["Hugepagesize"]
	if count == 0 {
		return ok("reserved huge pages", "none")
	}
	r := ok("reserved huge pages", "%d of %s, %d free", count, bytesText(each), free).value("free_bytes", free*each)
	const share = 20 // worth a word from one part in so many
	if free*each > info["MemTotal"]/share {
		return r.warn("%s are set aside and a node cannot use them: unless another program will, `sysctl vm.nr_hugepages=%d`", bytesText(free*each), count-free)
	}
	return r
}

const (
	// leastLock is locked to see whether anything can be, mostLock the most that is
	// shown to a driver to see whether the limit counts there.
	leastLock = 1 << 20
	mostLock  = 64 << 20
)

// lockedMemory: host memory that a GPU copies from and to without a detour is
// page-locked. Most drivers do that beyond the process's limit, so it is tried.
func lockedMemory(m Machine, p Plan) Result {
	soft, _, err := m.Rlimit(unix.RLIMIT_MEMLOCK)
	if err != nil {
		return ok("page-locked memory", "limit unknown: %v", err)
	}
	limit := int64(min(soft, 1<<62))
	text := "no limit"
	if soft != unix.RLIM_INFINITY {
		text = "limit " + bytesText(limit)
	}
	tried := "mlock works"
	if err := m.Lock(int(min(leastLock, max(limit, 1)))); err != nil {
		tried = fmt.Sprintf("mlock: %v", err)
	}
	r := ok("page-locked memory", "%s, %s", text, tried)
	if p.Register == nil {
		r.Found += "; only a GPU needs it"
		return r
	}
	// More than the limit, where that can be tried: does it count?
	n := int64(leastLock)
	if limit < p.Host {
		n = min(max(2*limit, leastLock), mostLock, p.Host)
	}
	const raise = "`ulimit -l unlimited`, LimitMEMLOCK=infinity in the unit, or `docker run --ulimit memlock=-1`"
	if err := p.Register(int(n)); err != nil {
		r.Found += fmt.Sprintf("; the GPU's driver refuses %s: %v", bytesText(n), err)
		return r.warn("copies to and from the GPU take a detour: %s", raise)
	}
	r.Found += fmt.Sprintf("; the GPU's driver took %s", bytesText(n))
	return r
}

// sharedMemory: Cairn's is a memfd, which /dev/shm does not bound; engines beside it
// use /dev/shm.
func sharedMemory(m Machine) Result {
	const path, least = "/dev/shm", 64 << 20 // what containers get unless asked
	f, err := m.Statfs(path)
	if err != nil {
		return ok(path, "not mounted; Cairn does not need it")
	}
	r := ok(path, "%s, %s free; Cairn does not need it", bytesText(f.Total), bytesText(f.Free)).value("total_bytes", f.Total)
	if f.Total <= least {
		return r.warn("an inference engine in this container may need more (NCCL does): `docker run --shm-size 8g`")
	}
	return r
}
