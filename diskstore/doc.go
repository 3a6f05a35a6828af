// Package diskstore is the disk tier: a [tier.Store] of immutable objects in
// append-only segment files, which survives the process and, after Sync, a
// power loss.
//
// It is a log-structured cache in the manner of the log-structured file system
// (Rosenblum and Ousterhout, 1992) with first-in first-out reclaim of whole
// segments and a second chance for what was read (CLOCK, Corbató 1968). Nothing
// is ever rewritten in place, so write amplification is 1 plus what is rescued
// and what is moved because it must be kept.
//
// # What survives what
//
//	                        kill -9        power loss
//	Put returned            survives       may be lost
//	Put, then Sync nil      survives       survives
//	Delete returned         may come back  may come back
//	Delete, then Sync nil   stays deleted  stays deleted
//	evicted                 stays evicted  stays evicted
//	Put that failed         not there      not there, or there with its bytes
//
// With [SyncAlways] Put and Delete include the Sync; with [SyncInterval] it runs
// in the background. Whatever happens, what Get returns are the bytes that were
// put under the key, verified by checksum, or an error: damage is a miss. A
// deleted object whose tombstone has rotted on the disk may come back, with its
// own bytes. All this assumes a device that honours flushes.
//
// A flush that fails leaves the kernel free to forget the pages (as PostgreSQL
// found in 2018), so flushing the same file again proves nothing. The
// segment becomes suspect: nothing more is written to it, and the next Sync
// copies what lives there to another segment before it can succeed.
//
// # Directory
//
//	LOCK            flock(2) by the one process; holds its pid
//	IDENTITY        "cairn-store-1 " and 32 hexadecimal digits: the store's id
//	0000002a.seg    segment 42
//
// # Segment file, format version 1
//
// All integers are little-endian. A is the alignment of the segment, 64 or
// 4096; every record starts at a multiple of A, and so does its payload.
//
//	0      2048     4096                                        end of file
//	+------+--------+--------+--------+-  -+--------+-----------+---------+
//	|header| header | record | record | .. | record | table     | trailer |
//	|      | again  |        |        |    |        | n × 64    | 64      |
//	+------+--------+--------+--------+-  -+--------+-----------+---------+
//	                                                 only when sealed
//
//	header, 64 bytes, twice:
//	0  "CAIRNSEG"   8  version u32   12 A u32      16 segment u32  20 zero u32
//	24 salt u64     32 zero[24]      56 xxh3 of bytes 0…55
//
//	record: 64 bytes, zeros up to A, the payload, zeros up to a multiple of A
//	0  kind u32     4  length u32    8  order u64  16 sum u64      24 key[16]
//	40 parent[16]   56 xxh3 of bytes 0…55 with seed salt + offset of the record
//
//	table entry, 64 bytes: as the first 56 bytes of the record, then
//	56 offset of the record u64
//
//	trailer, 64 bytes:
//	0  "CAIRNTBL"   8  version u32   12 entries u32  16 table offset u64
//	24 salt u64     32 xxh3 of the table with seed salt       40 segment u32
//	44 A u32        48 zero u64      56 xxh3 of bytes 0…55
//
// kind is "CRec" for an object or "CTmb" for a tombstone, which has no payload.
// sum is the xxh3-64 of the payload ([block.Checksum]). order numbers the
// records of the store: an object lives if its order is the highest among the
// records of its key and higher than that of every tombstone of its key. So the
// place of a record in the files means nothing, and tombstones may be written
// late. The table lists the objects that lived when the segment was sealed and
// all its tombstones.
//
// The salt is random. Nobody outside the process knows it, so bytes inside a
// payload (say, a segment file that somebody stored as a block) cannot
// pass for a record, and a file system that gives back old blocks of another
// segment cannot either.
//
// # Writing and recovery
//
// A writer reserves its place under the lock and writes outside it, so writers
// run in parallel and a crash can leave a hole followed by good records.
// Recovery of a segment without a valid table therefore tries every multiple of
// A for a record header that checks out, verifies the payload of each it finds,
// and goes on behind it; what follows the last good record is the torn tail and
// is cut off. A segment with a valid table is recovered from the table alone;
// its payloads are verified when they are read. A segment is flushed before its
// table is written, so a table on the disk speaks of records on the disk.
//
// # Reclaim
//
// The store keeps room for one more segment within Capacity. When a new segment
// has taken that room, segments without a live object or a tombstone go first,
// then the oldest. Objects of it that were read since they were written, and those that
// objects elsewhere in the store name as their parent, which are of no use without them,
// are copied to the new segment, the first of each sequence first, up to RescueFraction of a
// segment, and flushed before the old file is removed. So a parent stays while a child does,
// unless there are more such parents in a segment than that; then what follows them is left
// to whoever reads the list of what was evicted. A tombstone is only ever younger than
// the records that it hides, so removing the oldest segment never revives one.
//
// # Kept objects
//
// Objects for which Config.Keep is true (by default those of named blocks, which
// nobody can compute again) are never evicted. Before their segment goes they are
// verified and copied, with a new order, to the active segment or a new one, and
// flushed. A crash between leaves one record or both; both are the same object, and
// the copy has the higher order. A deletion gives its tombstone the highest order
// there is, so it hides the copy even while it is being written. When the flush
// fails, the index goes back to the originals and the segment stays. A kept object that is
// damaged cannot be copied: it is dropped, counted, and in the list of what the
// Put evicted. One that gives input or output errors stays, and its segment with it; it is
// tried again when other segments gain next to nothing.
//
// Moving takes more room than there is when that was taken before: by segments that
// could not be emptied or flushed, or because the store was opened with less Capacity
// than it had. Then objects are moved to a spare segment, to which nothing else is
// written, so that a move that fails is taken back and has taken nothing. The files
// exceed what they took by one segment until moves succeed, and each that does frees more
// than it takes. So once the device works again there is room again, as long as what
// is kept is within its limit. A suspect segment of which no flush ever succeeded goes
// as soon as it is copied; another stays until its copies are flushed, and the next is copied
// only then. So a device that fails every flush costs one segment, not one each.
//
// So that reclaim always gains something, what is kept is limited (Config.MaxKept);
// beyond that Put gives ErrNoSpace and evicts nothing. While something is kept
// there is room for one segment more, to move objects to, also in the file system, as
// long as others leave it: when that is full, segments go first from which nothing must
// be moved. A segment that is mostly
// kept is passed over for one of the next eight that gains more, eight times at most: a
// tombstone can go only when all segments are gone that are older than it, so it is
// carried along when its segment goes before these. With a part u of the store
// kept, moving costs at most about u / (1 - u) bytes for each byte that is put.
package diskstore
