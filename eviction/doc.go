// Package eviction decides which block leaves a store when room is needed. It does no
// I/O, reads no clock and starts no goroutine: whoever owns a policy tells it
// what happens and when, and asks it for victims. A policy is for one goroutine
// at a time; a store calls it under its own lock.
//
// A caller names blocks by ids of its own: small dense numbers, such as places in
// a table, each naming one block at a time. Policies keep tables without pointers
// by these ids, so that a million blocks do not slow the collector.
//
// There are two policies. [LRU] evicts the leaf that was used longest ago. [Hazard] evicts
// the leaf that is worth least.
//
// # What a block is worth
//
// Keeping a block pays when it is used again, and costs room until then. Hazard
// sorts blocks into classes, by how often they were used, whether another block
// ever followed them in a sequence, and what kind of request they belong to. For
// each class it counts, over idle time in steps that grow with it, how many
// blocks came to be idle for so long, and how many of those were used before the next
// step: the hazard of reuse. From that follows the value of a block of this class
// and idle time:
//
//	value = max over horizons h of  P(used within h) / E[time held until used, or h]
//
// the best rate of hits per second of room that any plan for keeping it gives
// (a Gittins index). The hazard alone would throw out a conversation while its
// user reads the answer; the maximum over horizons looks past that.
//
// What is known grows as the cache works. Classes with little evidence take over
// what all blocks do together, and those, while there is little of that too, take
// over a hazard that falls with idle time; so Hazard begins as an approximation of LRU.
// Evidence fades with a half-life, counted in uses.
//
// Blocks that were evicted are remembered for a while, by fingerprint, as ghosts:
// their return, or that they stay away, is evidence, and a block that returns has the
// count of uses that it left with.
//
// # Leaves before parents
//
// A block of a sequence is of no use without those before it. Policies only ever
// name leaves: blocks that no block in the store names as its parent. A parent becomes
// a leaf when its last child has gone. So what a store holds is closed
// under prefixes, if it was filled in order and nothing was deleted from the middle. Only
// when every leaf of a group is parked, or it has none, does another block go.
//
// To LRU a use of a block is one of all before it, in whatever order they were stored or
// touched: a parent that Victim meets is set aside, and when its last child goes takes the
// place of that.
//
// # Copies
//
// Losing a block that has another copy near costs a transfer rather than a computation. A
// policy does not keep up to date which blocks those are: it asks ([Config.Hint]) about the
// few between which it chooses. LRU takes the first of its oldest leaves that is copied, if
// one of the first few is; Hazard counts a copied block as worth a tenth. What the owner
// needs goes last: LRU takes the answer for a use.
//
// # Cost
//
// The victim is the least valuable of a few leaves drawn at random, of the
// parent of the last victim, which is often as worthless, and of the runner-up before.
// Insert, Touch, Remove and Evict take constant time, with a bounded share of the
// upkeep in each; Victim looks at less than twenty blocks. Every few thousand uses the values
// are computed anew, in a fraction of a millisecond. [BytesPerBlock] bounds the memory.
package eviction
