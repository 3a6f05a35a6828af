// Package hostcache is the host-memory tier: a [tier.Memory] whose blocks lie in
// one shared memory file outside the Go heap, cut into slabs of equal slots and
// evicted in exact order of last use, or of value.
//
// # The arena
//
// The bytes of all blocks lie in a memfd that is mapped once, so the collector
// neither scans nor counts them and a block is received into, and sent from, the
// place where it stays. Pages appear when they are first written: resident memory
// grows with use unless [Config.Prefault] asks for all of it at once.
//
// # Slabs, spans and classes
//
//	arena  | slab | slab | slab | slab | slab | slab | slab | slab |
//	spans  | 64 KiB x 128 |   5 MiB x 3    | free |  24 MiB x 1  ..
//
// The arena is cut into slabs of equal size. A class is a slot size. A class owns
// spans: runs of neighbouring slabs, cut into slots of that size. A span is as
// long as it takes to waste at most a sixteenth of it, so a 5 MiB class uses two
// slabs of 8 MiB for three slots rather than one slab for one, and a class larger
// than a slab gets as many slabs as it needs. A span whose last slot is freed
// returns to the pool at once.
//
// A class without a free slot takes free slabs, or else evicts. It compares its
// own least recently used block with every window of slabs that it could take
// from other classes, and takes the window when the blocks in it were, on
// average, used longer ago than its own oldest block. Age is weighed by how full
// the window is, so half-empty slabs look twice as old. One rule thus covers
// a shift in the mix of sizes, slabs left sparse by deletes, and the neighbours that
// a large class needs; and because the average of a class is about half the
// age of its oldest block, two classes in balance do not steal from each other in
// turns. The windows are looked at once for each span's worth of evictions, not
// for each block.
//
// # Recency without pointers
//
// A million blocks must not slow the collector, which follows pointers: a list
// element and an index entry each would cost more than a hundred milliseconds
// of marking in every cycle. So the index is a map from key to a number, block
// metadata is a table without pointers, and golang-lru/v2 does not order blocks
// but runs: a run holds the numbers of up to 256 blocks in the order in which
// they were used. Using a block appends its number to the newest run and so leaves
// a stale entry behind in the run where it was; eviction takes the first entry of
// the oldest run that is not stale. That is exact least-recently-used order at
// one Go object for hundreds of blocks. Runs thinned out by stale entries are
// merged with their neighbours a few at a time, which bounds both memory and
// the work done in any one call.
//
// # Leaves and copies
//
// A block of a sequence is of no use without those before it, so a parent, as the
// descriptors tell, is not evicted while a block here follows it and another may go. A
// parent that eviction meets is set aside, and takes the place of its last
// child when that goes: a use of a block is one of all before it. Only a steal of slabs from
// another class takes what lies there, parents or not.
//
// Of the oldest few leaves, [eviction.DefaultLook], the first goes that has another copy
// near, as far as the owner knows ([Cache.Advise]); one that the owner needs counts as used.
//
// # Value instead of recency
//
// With [EvictHazard] the blocks of a class go in the order of what they are worth, by what
// package eviction has learned about how blocks are used again, and leaves of
// sequences before their parents, as the descriptors tell. Policy and cache number
// blocks alike, so a use costs no look-up. For the choice between classes, the age of a
// class's oldest block is taken to be twice the mean, since such an order has none.
//
// # Pins
//
// Pins and views protect a block from eviction. Eviction that meets a pinned block
// takes it out of the order; when its last pin or view goes it returns as
// the most recently used. So each pinned block is passed over once, and a store in
// which everything is pinned answers [tier.ErrFull] without a search.
//
// Delete removes a block at once whatever its pins; its slot is reused only after
// the last view is released. After Close the mapping stays until the last view
// and reservation is given back, so reading a view is always safe until its
// Release.
package hostcache
