// Package vram is the GPU tier: a pool of blocks in the memory of one device.
//
// A [Pool] takes one large allocation from a [Device] and cuts it into slots on
// the host side; the device's own allocator is slow and synchronises, so it is
// called once. The arena is divided into runs of equal size; a run belongs to
// one class of slots at a time and returns to the common stock when its last
// slot is free, so the room follows the sizes that are in use:
//
//	arena   | run 0          | run 1          | run 2          | …
//	class   | 512 KiB        | 512 KiB        | 5 MiB          |
//	slots   |#|#| |#|#|#| |#|#|#|#|#|#|#|#|#|#|####|####|    |#| …
//
// # The life of a slot
//
// A slot is free, filling, live or dying. Put takes a free one, or evicts an
// object of the class, and queues the copy on a stream with
// an event behind it. Only when the event has completed without an error does
// the slot become live, which is when anyone can find it; otherwise it is free
// again. A Get or a [DeviceView] holds its slot until the copy out, or the
// reader, is done. A slot that is deleted meanwhile is dying: nobody finds it,
// and nobody gets its bytes overwritten.
//
// So the bytes under an address change only while no copy and no reader has the
// slot, and the pool needs no ordering between streams and never synchronises
// the whole device.
//
// # Eviction
//
// Which object of a class goes first, a policy of [cairn/eviction] says: by use, or by what
// it is worth; leaves before parents, since a node says to the cluster which prefixes it
// holds, and a prefix without its beginning is of no use. A run of another class is taken over as a whole when
// its objects are on average older than the object that would have to go, or
// when the class has nothing to evict. The bookkeeping holds no pointer per
// block, so the garbage collector does not look at it.
//
// A pool tells ahead what would go next ([Pool.Candidates]), so that its owner can save it.
// A copy out for that purpose is no use of the object: the policy does not learn of it.
//
// # Batches
//
// [Pool.PutMany] and [Pool.GetMany] are one operation of the device and one event for many
// objects. What is put becomes visible together; when one copy fails, none does, and each
// slot is free again. Batches under way are limited in number and bytes: more wait, in turn,
// and have taken nothing meanwhile.
//
// # Loss of the device
//
// When a device reports [cairn/tier.ErrDeviceLost] the pool is empty from then
// on and every call says so; Close still works. A loss is not listed as
// evictions: whoever sees ErrDeviceLost forgets the tier as a whole.
package vram
