// Package protocol is one node's part in keeping mutable blocks coherent across a
// cluster: [Machine.Step] takes an event and returns effects. It is pure: no I/O, no
// clock but the one that it is given, no lock, no goroutine, no randomness, no
// dependence on the order of a map.
//
// # What it guarantees
//
// Strict reads and all writes of one block are linearizable (I4). What was
// acknowledged is not lost without every node saying so (I5, I7): a write-through
// write survives any node, a write-back write its owner's life or, with copies, all but
// the last of its holders (I9). A node that is slow, cut off or stopped and continued
// stops strict service by its own clock before anyone takes its place (I1, I2).
//
// # A node
//
//	starting   reads the log up to its end; operations wait
//	joining    its Join is on its way; a node that has lapsed is here again, with the
//	           next incarnation
//	serving    a member with a lease; one that is to leave gives back what it owns, and
//	           takes no ownership, until it can
//	left       serves nothing any more
//	stopped    the log cannot be trusted; operations fail
//
//	starting --CaughtUp--> joining --own Join--> serving --own Leave--> left
//	                          ^                     |
//	                          +------ lapse --------+        any --Stop--> stopped
//
// # A block, at a node
//
//	unknown     nothing but what the log says
//	asking      an Own of this node is on its way
//	owned       this node writes without the log: clean (the log has the newest
//	            version) or dirty
//	undecided   a flush of it is in the log or on its way; the owner neither writes nor
//	            serves until it is decided
//	recalled    it is given back with the next flush; new writes wait. A block
//	            to which another wants to commit a write is left to that one for a
//	            moment then, and one that was never written is written once before
//	lapsed      owned by an older incarnation of this node: nothing is served; after the
//	            Join the flush is offered by the old token
//
// # How operations are done
//
//	WriteThrough  stage the object durably at its homes; publish Commit; acknowledge when
//	              the node itself has applied it
//	WriteAll      the same, and acknowledge when every live member has applied it
//	WriteBack     publish Own, whose place is the fencing token; then write locally while
//	              lease and incarnation hold; stage and publish Flush later
//	strict read   publish a message, wait until it comes back, serve the pointer; or ask
//	              the owner, who answers only while it is one. In lease mode: serve what
//	              every live member has applied, while the lease holds
//	barrier       a record; each member flushes what it owned and acknowledges; passed when
//	              all have and no dead incarnation owns anything
//
// One message carries everything that has come together while others were on
// their way, so that one fence serves many reads and one record is a small part of a
// message.
//
// # What is lost, and what is restored
//
// A Revoke of a dead owner that kept its writes to itself declares a loss also if there
// was nothing to lose: the log knows what such an owner has flushed last, and
// nobody but the owner knew whether it had written since. With copies it is known: no loss is
// declared if all but fewer than the copies have answered the [Inquire].
//
// A block that names fewer live homes than its namespace asks for (a home has died, a
// Revoke has found fewer copies, there were not enough nodes) gets more, owned or not:
// the first of its live homes copies the object, and a Rehome says so. An owner whose
// writes have fewer copies than there could be owns the block again before its next write.
// A home that is about to leave does not count as one, but copies the object ([Draining]).
//
// # Duties of the caller
//
//  1. Give every event of the log in order, exactly once, and the node's clock with
//     it; a clock that is read before the event was there to be read makes leases longer
//     than they are.
//  2. Carry out the effects of one Step before those of the next, or at least begin them
//     in that order.
//  3. Publish a message until it, or a later one of this node, was delivered.
//  4. Answer Stage only after every home has made the object durable, verified its
//     checksum, and given its machine the Arrived.
//  5. Keep what Local names until Flushed or LocalGone; say Gone when it is lost.
//  6. Never use the key of an object for a second write.
//  7. Cancel operations that nobody waits for any more.
//  8. Start with an incarnation that is higher than any before.
//  9. End every Replicate with Replicated, in time with Failed.
//
// # What it assumes
//
// Of the log: that it is one total order, that a message is in it at most once or
// comes again with the same number, and that nothing which was delivered is taken back;
// if it is, Stop. Of clocks: that their rates differ by less than Config.Drift.
// Nothing of delays, of messages between nodes, or of processes: any may stop at
// any time, and go on.
//
// # Invariants
//
//	I1  one acting owner a block
//	I2  a lease that is held is never expired in the log
//	I3  the pointer's bytes are durable at its homes
//	I4  a strict read returns nothing older than any operation acknowledged before it began
//	I5  no silent loss
//	I6  when a barrier is passed, all that was acknowledged before it is home or declared lost
//	I7  what is declared lost never returns
//	I8  a snapshot and the tail mean the same as the whole log; all nodes' verdicts and
//	    digests agree
//	I9  a replicated write-back loses no acknowledged write while one holder lives
//	L1  once faults stop, everything that waits ends
//
// # Differences from the design it began with
//
// Every message is a heartbeat, a fence and an acknowledgement of what its author has
// applied; there are no records for these. Conditions are decided at the record's
// place, with the author's wall clock for what has expired, so NX and XX need no
// reading first. A read of an owned block asks the owner at once, without a fence:
// that the owner answers at all proves that it is one. A Clear leaves owners what they own.
package protocol
