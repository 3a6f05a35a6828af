// Package sim lets whole clusters of the real protocol code live through faults, on one
// goroutine, in virtual time, and checks after every step what must hold. All of a
// run follows from its seed: cluster, clocks, operations, faults and chance.
//
// # What is real
//
// coherency/protocol (Machine), coherency/ledger (state, encoding, snapshots) and what
// they use. Each process has a Machine of its own; every message is encoded and read
// back.
//
// # What is modelled
//
//	log       a total order with gaps. Attempts to publish are delayed, lost, or held back
//	          for leases and then still arrive; an adapter repeats them under the same
//	          id, which the log knows for a while or not at all. Delivery is in order,
//	          at each node's own pace. A node may be cut off, may read and not
//	          write, or be slow; the log may be away for all; it may hold garbage,
//	          may forget its beginning, so that a node starts from a snapshot, and a node may
//	          be told not to trust it.
//	node      a clock that is up to 2.4 % fast or slow; a disk; one process at a time,
//	          which dies, also between two effects of a step, with or without the
//	          disk; is stopped and goes on, also between two effects; leaves and
//	          comes back, or is said to be about to. What a process does with effects is in node.go and rpc.go:
//	          this is what the package node does, without its speed.
//	objects   in memory, until evicted; on disk, once synced, with what the home was told of
//	          them. What is not synced is gone after a crash. A disk may be full.
//	RPC       any delay, any order, twice, or lost; cut off in one direction or both.
//	clients   one operation at a time, at a node that they change now and then; after
//	          ErrContended again with another object; some give up early.
//
// # What is checked
//
//	I1        whoever writes or answers as owner is the owner at the end of the log
//	I2        an Expire never meets a lease that is held, and a lease is never held by
//	          who is no member
//	I3        homes in the log have the object, unless their disk was lost, from the moment
//	          that the record is in the log until it names another
//	I4        strict reads, all writes, clears and declared losses of a block are
//	          linearizable (porcupine). Every write has a value of its own, so what nobody
//	          saw has not happened; other open outcomes stay open for ever
//	I5        an ownership ends with its newest acknowledged write, or a declared loss;
//	          every node declares the same losses at the same place
//	I6        at Advance, and when a barrier is answered
//	I7        what was declared lost is neither in the log nor served again
//	I8        digests and pointers after every message at every node, whatever it
//	          started from; the whole state in the end
//	I9        what a live home had and was asked for is not lost
//	L1        when faults stop, all operations end, every node reads every block, a barrier
//	          is passed, all nodes are at the end of the log with nothing dirty, and every
//	          block gets as many homes as its namespace asks for
//	session   a client never reads older than what it has seen
//	bounded   nor anyone older than the bound, when it asked
//	local     nor a node, while it lives, older than it has served
//	write-all nor a live member, older than what was acknowledged by all
//
// A declared loss is an operation of the history at its place in the log, or in lease mode
// between that and its application by all, which sets the block back to what the log has.
//
// # What is assumed
//
// The log is one order and takes nothing back. Clocks differ by less than Config.Drift.
// A node knows when its disk is a new one (see Found). Bytes are right or missing: checksums
// find what is torn. Forget, which no node publishes, a log that does lose its end, and
// changes of a namespace's Space are not simulated.
//
// # When a run fails
//
// The test prints the seed, what is left of faults and operations after shrinking,
// and the command that shows the run step by step.
package sim
