// Package cuda is a [cairn/vram.Device] on a GPU of NVIDIA's, through the driver API. It is
// built with the tag cuda, needs cgo and gcc then, and no CUDA toolkit; without the tag the
// package is empty. The driver's library is found when the program runs ([Load]), so the
// binary also starts where there is none.
//
// # Contexts and threads
//
// A [Device] holds the primary context of its GPU, the one that the CUDA runtime uses too. The
// driver keeps the current context per thread, so each call locks its goroutine to the thread
// and sets the context first: some 40 ns, for which any goroutine may call. Nothing here
// synchronises a whole device, except that the driver does so when memory is freed.
//
// # Streams and events
//
// A [cairn/vram.Stream] is a non-blocking CUDA stream, and a goroutine that waits for its events,
// oldest first. So at most one thread per stream is blocked, however many wait; a
// context that ends frees the waiter at once; and no processor spins: events are created for
// blocking synchronisation. Against a thread that blocks for each waiter this costs the way over
// one more goroutine: 15 to 20 µs for the shortest work on a busy machine with two cores, nothing
// that could be measured from 20 µs of work on, or behind work that is queued ahead; asking
// the driver all the time for 20 µs first did not change that (BenchmarkWait).
//
// An event is given back to the pool when its user and that goroutine have both let go of it,
// so it is never recorded anew before it is over.
//
// # Host memory
//
// What was shown to [Device.Register] is page-locked, and copied from and to directly, in the
// background. It is registered for all contexts of the process, in pieces of at most
// [DefaultRegisterChunk]; a copy across the border of two is split.
//
// Batches of copies go to the driver as such where it has a call for them, and where registered memory has
// one address for host and device: a batch names memory by the latter.
//
// Other memory may be given as well. The driver copies it through buffers of its own then: a
// copy to the device may wait for the stream, and one from the device returns when it is over.
// As the driver does not promise either, slices of the Go heap are pinned until the event
// behind them has completed. By cgo's rule they must not be part of a value that holds
// pointers.
//
// # Errors
//
// CUDA tells of what went wrong on the device with some later call, and most of these errors are
// final: every call of the process on this GPU gives them from then on. They are
// [cairn/tier.ErrDeviceLost]. So is a failure after which nobody can tell whether a copy is over: the context
// is reset then, for the memory of copies must not be used before they are over.
// All others leave the device as it was and arrive with the event of the work that they
// belong to, or with the call itself. Out of memory is [cairn/vram.ErrOutOfMemory], and an
// address outside of what was allocated or imported [cairn/vram.ErrInvalidAddress], before the driver is
// asked; the rest carries the driver's own code, a [cairn/vram/cuda/driver.Result].
//
// # Sharing
//
// [Device.Export] and [Device.Import] are CUDA's interprocess handles: 64 bytes that another
// process on the same machine opens to use the memory in place. They name whole
// allocations, made with cuMemAlloc. The driver puts several small ones in a block of 2 MiB, all of which a
// handle of any opens; so [Device.Alloc] takes whole blocks, and so should who exports memory to us.
package cuda
