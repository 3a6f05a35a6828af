// Package doctor looks at a machine on which a node is to run: what it has, whether
// that is enough for how the node is configured, and what to do where it is not.
//
// Each check is a small function from a [Machine] and a [Plan] to a [Result]. A
// Machine is what the checks see of the system: files of /proc and /sys as an
// fs.FS, and functions in place of system calls, so that tests show them machines
// that they do not run on. What needs more than the operating system, GPUs and
// NATS, is checked by the command that has those, as results of the same form.
//
// A check leaves nothing behind: what it writes has no name or is removed, what it
// locks is unlocked, and ports that it tries are free again. It warns of what costs
// speed or may fail later, and calls bad only what keeps the node from starting, or
// makes it fail at the size that it is configured for.
//
// Sources are the manual pages of proc(5), cgroups(7), getrlimit(2), mlock(2),
// memfd_create(2), adjtimex(2), open(2), and the kernel's
// admin-guide/mm/transhuge.rst, admin-guide/cgroup-v2.rst and
// mm/overcommit-accounting.rst.
package doctor
