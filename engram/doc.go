// Package engram keeps sparse ternary hypervectors: what a vector symbolic
// architecture remembers things in, here called engrams. [SparseVec] is a vector, with a
// strict encoding; Bundle, [Space.Bind] and Similarity are the algebra; [Engram] is a
// buffer mirrored between host and device memory, and [Manager] many of them. In a
// cluster an engram is a named block: package client has it.
//
// # Algebra
//
// Bundling is addition with a sign at the end, as in the MAP architecture (R. W. Gayler,
// 1998, "Multiplicative binding, representation operators and analogy"). MAP's binding, the
// product of each dimension, has no inverse where vectors are sparse: what one factor
// leaves zero is gone. So binding here is that of sparse block codes: a vector is
// cut into blocks, and blocks are convolved circularly (M. Laiho, J. H. Poikonen,
// P. Kanerva and E. Lehtonen, 2015, "High-dimensional computing with sparse vectors";
// E. P. Frady, D. Kleyko and F. T. Sommer, 2021, "Variable binding for sparse distributed
// representations"). With a code, one dimension a block, that is a turn of each
// block and has an exact inverse; and the result is as sparse as what went in. Signs are
// multiplied along, and double what a block can say. [Space.Permute] is a permutation,
// for order (P. Kanerva, 2009, "Hyperdimensional computing").
//
// All of it is pure: the same arguments give the same vector on every machine.
//
// # States
//
// An Engram is in one of five states, and Gone when its newest version was lost:
//
//	host-only     host has the newest version, the device nothing
//	device-only   the device has it, host nothing
//	synced        both have it
//	host-dirty    host has it, the device an older one
//	device-dirty  the device has it, host an older one
//
// They follow from what each side holds, by [coherency.Mirror], whose package comment
// has the diagram, the invariants M1 to M7, and the deviations E1 to E11 from the
// reference; the tests here run each of them on real bytes. What is added is the bytes:
//
//   - What is on host is never changed in place, so a reader and a copy to the device
//     keep seeing one version.
//   - A copy goes to new memory, which takes the place of the old when all has arrived.
//   - A write on the device is in place only if host has the same version and nobody
//     else uses the device's; else it is on a copy. So a write that fails tears nothing
//     that is the only one.
//   - Device memory is counted by who uses it: the engram, copies, pins. When a caller
//     gives up on a copy (its context has ended), the copy goes on, nothing of it is
//     committed, and its memory is freed when it is over.
package engram
