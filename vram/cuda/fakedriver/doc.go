// Package fakedriver is the fake driver: a small shared object that stands in for NVIDIA's
// libcuda.so.1 where there is no GPU. It keeps device memory in host memory, and lets tests
// decide what fails, when, and how long things take, so that all of vram/cuda runs under the
// conformance suite and under fault injection on any machine with a C compiler.
//
// [Build] compiles it into a directory; the driver package loads the file that results; and
// [Open] loads the same file, which gives the same instance, to control it. A child process
// that nobody can reach that way is told by its environment: CAIRN_FAKE_DEVICES (how many
// devices, default 2), CAIRN_FAKE_MEMORY (bytes a device, default 1 GiB), and
// CAIRN_FAKE_FAIL (call:at:result[:sticky[:queued]], several separated by commas; see
// [Control.Fail]; the call * is any).
//
// # What it imitates
//
// The calls of the CUDA Driver API that Cairn makes, and some that tests of other users of
// gorgonia.org/cu would: devices, primary contexts, streams, events, linear device memory,
// page-locked host memory, copies one by one and in batches, and memory shared between
// processes. The semantics are those that the reference describes under Initialization,
// Device Management, Primary Context Management, Context Management, Memory Management,
// Unified Addressing, Stream Management, Event Management and Error Handling. Where the
// reference leaves something open, it takes the choice that a careless caller notices:
//
//   - A device address can never be dereferenced, and no address is given twice. What lies
//     outside an allocation is CUDA_ERROR_INVALID_VALUE; a use of what has been freed is
//     CUDA_ERROR_ILLEGAL_ADDRESS, from then on for every call of that device. Copies are
//     checked when they are asked for and again when the stream comes to them.
//   - All copies happen later, on the thread of their stream, those of unregistered host
//     memory too. A batch is carried out from its last copy to its first.
//   - A call without a current context, which each thread has its own of, is
//     CUDA_ERROR_INVALID_CONTEXT, also where a real driver would find it by the handle.
//   - Host memory that is registered in part, or in two parts, cannot be copied.
//   - Freeing or unregistering what a queued copy uses, unregistering what is unmapped, copies
//     that overlap, and handles that are none are noted, whatever the call returns: see
//     [Control.Misuse].
//   - A handle of shared memory cannot be opened by the process that made it, and is stale
//     once the memory is freed. A handle of less than a block of 2 MiB is noted, for a real
//     driver's opens the whole block, with what else lies in it.
//
// When a device is lost, every call that concerns its context gives the same error until
// [Control.Restore] or [Control.Reset], what is queued is dropped, and once a call has
// returned the error the device touches no memory any more.
//
// # What it does not imitate
//
// Time: a copy takes as long as the processor needs. Kernels, modules, graphs, arrays,
// managed memory and memory pools: there are none. The default stream is one more stream and
// waits for no other. Queues have no limit. All devices reach each other's memory. An error
// that is injected into queued work and is not sticky arrives with the next event of that
// stream, or with whoever synchronizes with it; a real driver hardly has such errors.
package fakedriver
