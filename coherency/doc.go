// Package coherency says which copies of a block are valid, which are dirty, and
// what has to be copied where. This is the part that lives inside one node; package
// ledger holds what a cluster agrees on about mutable blocks, and package protocol one
// node's part in that, each with its own states, duties and invariants.
//
// # What it guarantees
//
// A tier that is valid holds the newest version of the block, in full. A write
// that was acknowledged disappears only by [State.Discard] or by a tier that
// loses it and says so with [State.Evicted], and both report it. A barrier of the
// [SyncQueue] completes only when everything owed before it was copied.
//
// # States
//
// A block is in one of five, seen from its home tier:
//
//	never written  version 0, the zero State
//	clean          home holds the newest version durably
//	dirty          some tier holds it, home does not
//	flushable      as dirty, and home holds the bytes, but not durably
//	gone           no tier holds it; older copies are never served in its place
//
// And each tier is in one of three: empty, stale (an older version), valid. A copy
// to it may be in flight in any of them.
//
//	        New at home
//	             |
//	             v       Write(home)
//	         +-------+ -------------> +-----------+ <--+
//	    +--> | clean |                | flushable |    | Write(home)
//	    |    +-------+ <------------- +-----------+ ---+
//	    |        |      Commit(flush)   |       ^
//	    |        | a                  a |       | Write(home)
//	    |        v                      v       |
//	    |    +--------------------------------------+ <--+
//	    |    |                dirty                 |    | a
//	    |    +--------------------------------------+ ---+
//	    |        |                      ^
//	    +--------+                      |
//	   Commit(home)               New elsewhere
//
//	    clean ------------- b -----> +------+ ---- Write(home) ----> flushable
//	    dirty, flushable -- c -----> | gone | ---- Write elsewhere -> dirty
//	                                 +------+
//
//	a  Write elsewhere; or home drops its copy while another tier is valid
//	b  the last copy is dropped: a miss, no loss
//	c  the last copy is dropped by Discard or Evicted: the write is lost, and reported
//
// WriteThrough and WriteAll pass through dirty or flushable as well; they differ
// in the copies that they return.
//
// # Moving bytes
//
// Validity and dirtiness are never set. They follow from the newest version (cur)
// and the version in each tier (have): valid(t) is have[t] = cur; dirty is "home
// does not hold cur durably". A tier gets cur in three ways only: New, Write, and
// begin → copy → Commit. [State.Begin] and [State.Write] hand out a [Copy]; the
// bytes move with no lock held; [State.Commit] counts only if neither the version
// nor the source nor the target changed meanwhile, else it is [ErrStale].
//
// # Duties of the caller
//
//  1. Apply the transitions of one block one at a time, under one lock, and move
//     bytes outside of it.
//  2. Call New and Write only when all bytes are in the tier. Objects are immutable:
//     a partial write is a read of the newest version, fetched to the tier first if
//     it is not there, and a Write of the whole that names the version read.
//  3. End every Copy with Commit or Abort. Before Commit, check the length and the
//     checksum of what arrived against the block's descriptor.
//  4. Before Commit of a copy to home, make it durable there. With home on disk that
//     is a sync that has returned, for [Copy.Flush] too; with home in host memory, a
//     node without disk, the bytes being there is enough.
//  5. Acknowledge a WriteThrough after the commit at home; a WriteAll after every
//     copy it returned was committed or aborted, and the one for home committed.
//     When the copy for home fails, the write is not acknowledged; the
//     block stays dirty and home stays in NeedsSync.
//  6. Pin the source of a copy, and what a reader reads, for as long as it
//     takes, so that the room is not used again. When a tier drops a block all the
//     same, call Evicted at once.
//  7. Count and report every loss that Discard or Evicted tells of.
//  8. Put what NeedsSync names into the queue after each transition; take it out
//     with Done once committed, and with Drop once the block is gone.
//  9. Keep a State that is gone until the copies that began from it have ended: a new
//     State of the same block does not know them.
//
// # What it assumes
//
// Nothing of time, order or delivery: a Commit or Abort may come late, twice or
// never. One that never comes keeps its target in flight until the next write or
// until the target or the source is dropped. Versions do not survive the process;
// what a restart finds on disk is a New at home.
//
// # Invariants
//
//	B1  A tier is valid if and only if its version is the newest.
//	B2  A block is dirty if and only if some tier holds the newest version and home
//	    does not hold it durably.
//	B3  The owner holds the newest version; a block that is gone has none.
//	B4  Only New, Write and Commit make a tier valid; a stale Commit changes nothing.
//	B5  The version grows by one with every Write that succeeds, and never else. A
//	    transition that fails changes nothing.
//	B6  The last copy of the newest version leaves only through Discard or Evicted.
//	B7  A version that is gone never returns: the next valid bytes are a new Write.
//	B8  At most one copy is in flight to a tier.
//	B9  An intent leaves the queue only through Done or Drop, and a barrier passes no
//	    intent of its epoch.
//
// # Nothing lost, precisely
//
//	acknowledged by   survives inside this node
//	WriteBack         eviction of any other copy; not the loss of the owner's tier,
//	                  until the barrier after it completed
//	WriteThrough      the loss of every tier but home, and a power loss when home is disk
//	WriteAll          as WriteThrough; and no tier of the set holds an older version
//
// # Deviations
//
// The state machine of three tiers, owner, home and policies is that of the
// reference implementation of multi-tier coherency which Cairn started from. Once
// every copy that a transition asks for is committed, State equals it, except
// where it loses data or says what is not so. TestDeviations runs each row,
// TestEveryStateAndOperation every state with every operation. V, H and D are the
// tiers; new(at, home).
//
//	    the reference                                here, and why
//	T1  new(H,H), WriteThrough(V), invalidate(V)     WriteThrough returns the copy V→H; until it
//	    leaves the old bytes of H, valid and clean   is committed V cannot be invalidated
//	T2  new(H,H), mark_synced(V), WriteAll(H)        WriteAll returns a copy for each tier of the
//	    leaves V valid with old bytes                set; a tier whose copy fails leaves the set
//	T3  new(V,H), WriteAll(V) is clean without home  home is always in the set
//	T4  new(H,H), WriteBack(V), WriteAll(V) cleans   as T3
//	    what home never got
//	T5  WriteAll on a block with no copy makes one   ErrNoCopy: there is no set to write to
//	T6  invalidate of the only copy: it vanishes     ErrLastCopy, ErrLastDirtyCopy; Discard reports
//	T7  new(V,D), WriteBack(V), sync_to(H),          H takes over as owner and the block stays dirty;
//	    invalidate(V) is clean, home has nothing     to drop H as well is ErrLastDirtyCopy
//	T8  WriteBack(V), mark_synced(V) is clean,       only a commit at home cleans: ErrCurrent
//	    home has nothing
//	T9  WriteBack(V), mark_synced(home) leaves V     a commit at home cleans all
//	    dirty for ever
//	T10 WriteBack(home), sync_to(home) does nothing: home needs a flush; its commit cleans
//	    dirty for ever
//	T11 mark_synced on a block with no copy          ErrNoCopy: there is nothing to copy from
//	    makes one
//	T12 new(V,H) is clean though home has nothing;   dirty, both
//	    so is invalidate(home) while V has a copy
//	T13 the owner may be a tier that is not valid    the owner holds the newest version, or none
//	T14 writes carry no version: updates are lost    Write names the version it builds on: ErrConflict
//	T15 a partial write to a tier without the bytes  objects are immutable: duty 2
//	    makes it valid
//	T16 sync_to answers with a bool, and the state   Begin and Commit, with typed errors; a failed
//	    changes before the copy can fail             copy is an Abort, and nothing was valid
//	T17 read, then use, races with eviction          pins (duty 6); a copy whose source or
//	                                                 target was dropped is ErrStale
//	T18 home may be VRAM                             ErrHome: it does not outlive the process
//	T19 epoch counts writes in one type and          Version and Epoch are two types
//	    barriers in another
//	S1  drain forgets intents before they are done,  intents stay until Done; one for each block and
//	    without version, with duplicates; advance    target, with the newest version; Advance gives
//	    returns the old epoch and waits for nothing  the new epoch, and ErrPending until all is done
//
// # Mirrors
//
// A [Mirror] is one buffer that lives in host and in device memory. Its state follows
// from versions as above, and bytes move in the same way: begin → copy → commit or
// abort. A write is begun and committed too, since it may change bytes in place.
//
//	            Commit(upload)           write on host
//	+-----------+ -----------> +--------+ -----------> +--------------+
//	| host only |              |        | Commit(sync) |  host dirty  |
//	+-----------+ <----------- |        | <----------- +--------------+
//	             Drop(device)  | synced |
//	            Drop(host)     |        | write on device
//	+-----------+ <----------- |        | -----------> +--------------+
//	|device only|              |        | Commit(sync) | device dirty |
//	+-----------+ -----------> +--------+ <----------- +--------------+
//	            Commit(download)
//
// Drop of the older copy leads from dirty to only; so does Keep of the older copy,
// which gives up the newer one. A write on the empty side leads from only to dirty.
// A mirror is gone once its newest version is lost.
//
//	M1  A side is current if and only if its version is the newest; no other is read.
//	M2  The version grows by one with every CommitWrite, and with every Keep that
//	    chooses the older copy, and never else. What fails changes nothing.
//	M3  Only NewMirror, CommitWrite, Commit and Keep make a side current.
//	M4  The only copy of the newest version leaves only through Discard, DeviceLost,
//	    a torn write or Keep, and each says so.
//	M5  What was declared lost never returns.
//	M6  At most one copy or write is in flight. Nobody reads a side being written.
//	M7  A side has the length and the checksum of the version that it holds.
//
// The caller applies transitions under one lock and moves bytes outside of it;
// copies to a new buffer, publishes that after Commit and frees the old one then;
// fills all bytes when a write is [MirrorWrite.Whole]; lets readers of a side end
// before a write in place begins there; ends every copy and write; and counts and
// reports every loss.
//
// The reference has a host–device machine as well. TestMirrorDeviations runs each
// row, TestMirrorEveryStateAndOperation every state with every operation. The last row is
// about many of them, which package engram keeps.
//
//	    the reference                                here, and why
//	E1  upload, device write, host write, sync: the  ErrMirrorConflict for the second write; both
//	    device write is lost; and the reverse        copies stay until Sync, or Keep, which reports
//	E2  upload over a device write: lost             ErrMirrorConflict
//	E3  download over a host write: lost             ErrMirrorConflict
//	E4  a first upload that fails leaves a handle    the device holds nothing before Commit
//	    to memory that nobody filled
//	E5  release whose download fails drops the       Drop refuses (ErrMirrorDirty) until the download
//	    handle, and the write with it                is committed
//	E6  host grows: sync fails for ever              length lives with the version; a copy goes to a
//	E7  host shrinks: the old tail comes back        new buffer of that length
//	E8  the version grows with a look at the host    only CommitWrite and Keep make a version
//	    bytes and with a download
//	E9  a device write that is not marked, or marked a write is BeginWrite and CommitWrite, on a side
//	    without a handle, is lost                    that holds nothing too
//	E10 host bytes are read while stale; device-only ErrStale; Drop(HostSide) makes DeviceOnly
//	    is never reached
//	E11 sync_all stops at the first error, in any    engram.Manager: SyncAll goes through all, in order,
//	    order; remove drops a write and its memory;  and joins errors; Remove refuses the dirty; ids
//	    ids start at 0 or 1                          start at 1
package coherency
