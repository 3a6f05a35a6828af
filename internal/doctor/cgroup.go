package doctor

import (
	"path"
	"strconv"
	"strings"
)

// cgroupDir is where control groups are mounted.
const cgroupDir = "sys/fs/cgroup"

// groupMemory is the memory of the control group that has least left.
type groupMemory struct{ limit, used int64 }

// memoryLimit is the narrowest limit of memory among this process's control group and
// those around it; limited is false where there is none. Files that could be dropped
// do not count as used.
func (m Machine) memoryLimit() (g groupMemory, limited bool) {
	for _, dir := range m.groups("memory") {
		limit, known := m.number(path.Join(dir, "memory.max"))
		used, _ := m.number(path.Join(dir, "memory.current"))
		reclaimable := "inactive_file"
		if !known {
			limit, known = m.number(path.Join(dir, "memory.limit_in_bytes"))
			used, _ = m.number(path.Join(dir, "memory.usage_in_bytes"))
			reclaimable = "total_inactive_file"
		}
		if !known {
			continue
		}
		used = max(used-m.table(path.Join(dir, "memory.stat"))[reclaimable], 0)
		if !limited || limit-used < g.limit-g.used {
			g, limited = groupMemory{limit, used}, true
		}
	}
	return g, limited
}

// pidLimit is the smallest number of processes and threads that a control group
// around this process allows.
func (m Machine) pidLimit() (least int64, limited bool) {
	for _, dir := range m.groups("pids") {
		if n, known := m.number(path.Join(dir, "pids.max")); known && (!limited || n < least) {
			least, limited = n, true
		}
	}
	return least, limited
}

// cpuLimit is the smallest share of processors, in thousandths of one.
func (m Machine) cpuLimit() (least int64, limited bool) {
	for _, dir := range m.groups("cpu") {
		quota, period := int64(0), int64(0)
		if words := strings.Fields(m.text(path.Join(dir, "cpu.max"))); len(words) == 2 {
			quota, _ = strconv.ParseInt(words[0], 10, 64) // "max" stays 0
			period, _ = strconv.ParseInt(words[1], 10, 64)
		} else {
			quota, _ = m.number(path.Join(dir, "cpu.cfs_quota_us")) // -1 is none
			period, _ = m.number(path.Join(dir, "cpu.cfs_period_us"))
		}
		if quota <= 0 || period <= 0 {
			continue
		}
		const thousandths = 1000
		if n := quota * thousandths / period; !limited || n < least {
			least, limited = n, true
		}
	}
	return least, limited
}

// groups are the directories of this process's control group for a controller and of
// those around it, innermost first: version 2, or the hierarchy of version 1 that
// has the controller. In a container with a namespace of its own, the paths
// that /proc names do not exist, and only the mount itself is left.
func (m Machine) groups(controller string) []string {
	var dirs []string
	for line := range strings.Lines(m.text("proc/self/cgroup")) {
		// hierarchy:controllers:path
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		top := cgroupDir
		switch {
		case controllers == "": // version 2
		case contains(controllers, controller):
			top = path.Join(cgroupDir, controller)
		default:
			continue
		}
		for at = path.Clean("/" + at); ; at = path.Dir(at) {
			dirs = append(dirs, path.Join(top, at))
			if at == "/" {
				break
			}
		}
	}
	return dirs
}

// contains tells whether a list with commas has the word.
func contains(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}
