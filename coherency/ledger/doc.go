// Package ledger is what the coherence log says: the records that nodes publish,
// and the state that follows from applying them in order. It is the same at every
// node, because it depends on the log and on nothing else: no clock, no
// configuration, no randomness, no order of maps. It is pure: no I/O, no lock, no
// goroutine.
//
// # What it guarantees
//
// Every node that has applied the same messages has the same pointers, members
// and epochs, has come to the same verdict about every record, and has the same
// digest (I8). So the log arbitrates: of two writes that expect the same
// version, the first in the log wins at every node alike, and no server has to
// compare anything.
//
// # Blocks
//
// A mutable block is a [Pointer] to an immutable object. It is in one of three
// states:
//
//	absent   no object: never written, deleted, or cleared with its namespace
//	free     an object, durable at its homes; whoever commits first, wins
//	owned    one node writes without asking the log, until it flushes, releases
//	         or loses the block; the pointer is what it last flushed
//
//	        Commit              Own                    Flush(keep)
//	absent --------> free ----------------> owned ----------------+
//	   ^              |  ^ ^                 |  ^                  |
//	   +--------------+  | |    Flush        |  +------------------+
//	  Commit(delete)     | +-----------------+
//	  or Clear           |      Revoke       |
//	                     +-------------------+
//
// # Messages
//
// A node publishes [Message]s: its name, its incarnation, a number that grows by
// one, how far it has applied the log itself, and records. A message without
// records is a heartbeat, and a fence: whoever sees his own message come back has
// seen everything that was in the log when he sent it.
//
// # Verdicts
//
// A record is [Effective] if, at its place in the log, its author is a live member
// and what it expects holds; [Conflict] if what it expects does not hold: it is
// decided, and will never be effective; and [Void] if the author was not a live
// member, or the message came twice or after a later one of the same author: the
// record was not considered, and its author may publish it again.
//
//	record   it expects                                it makes
//	Join     a higher incarnation than the last        the author a live member
//	Leave    –                                         the author no member
//	Expire   the member has sent nothing since the     the member's incarnation dead
//	         message that the record names
//	Commit   the version, or the condition; no owner   a new version
//	Own      the same; no owner                        the author owner, with a token
//	Flush    the token; the author's node is owner     a new version; free unless kept
//	Recall   the token                                 nothing: asks the owner to flush
//	Revoke   the token; the owner is dead or is the    free, with the version that was
//	         author                                    found, or a declared loss
//	Rehome   the version                               other homes for the same object
//	Barrier  none is open                              one that is open
//	Ack      the open barrier                          the author's part of it done
//	Advance  all live members acknowledged, and no     the next epoch
//	         dead incarnation owns a block
//	Clear    –                                         every name of a namespace absent
//	Forget   –                                         absent blocks forgotten
//
// A Clear leaves owners what they own: only they know what they have written since.
//
// # What a node may conclude
//
// From an own record's verdict: everything, the same as every other node. From
// [Ledger.Settled]: that every live member has applied the log up to there, and
// that whoever has not is expired, and holds no lease any more (I2).
package ledger
