// Package driver lets a program that uses gorgonia.org/cu build without the CUDA
// toolkit and start without the CUDA driver. It also has the calls that cu lacks:
// registered host memory, allocations shared between processes, copies in batches.
// Other than this comment it exists with the build tag cuda and cgo only.
//
// # Why
//
// gorgonia.org/cu includes cuda.h and links libcuda, so that it compiles only beside a
// toolkit, and its binary starts only where the driver is installed: elsewhere the
// dynamic loader refuses it. Were it started, cu's package initialiser calls cuInit and
// ends the process when that fails. A cache server is built on machines without a
// toolkit, and one binary must serve with a GPU and without.
//
// # How
//
// include/cuda.h stands in for the toolkit's: types, constants and declarations, and
// nothing else. include/cuda_functions.h lists the functions, each with the symbol
// that it is in the driver. driver.c makes of that list a table of pointers, and for
// each function a trampoline of that name:
//
//	cu.MemAlloc ─► cuMemAlloc (driver.c) ─► table ─► cuMemAlloc_v2 (libcuda.so.1)
//	                      │ no driver: CUDA_ERROR_NOT_INITIALIZED
//	                      │ not in this driver: CUDA_ERROR_NOT_FOUND
//
// [Load] opens libcuda.so.1, looks up every symbol, calls the real cuInit, and only
// then shows the table to the trampolines, all at once. A driver that lacks one of the
// functions marked CU_REQUIRED is refused; those are what a tier cannot do without, and
// drivers since CUDA 11.0 (450) have them. The cuInit of the trampolines does nothing
// and succeeds, so that cu's initialiser is content; [Err] says whether there is a
// driver, and package vram/cuda asks it before anything else.
//
// The trampolines are hidden symbols: the linker resolves cu's calls to them, and the
// binary exports none. A library that is loaded later and asks the dynamic loader for
// cuMemAlloc gets the driver's.
//
// cu asks the linker for -lcuda. scripts/cuda.sh gives it an empty archive of that name,
// ahead of a toolkit's, and cuda.h of this package ahead of a toolkit's:
//
//	scripts/cuda.sh go build -tags cuda ./cmd/cairn
//
// There is one driver in a process, as there is one set of C functions; that is why
// this package has state.
//
// # Sources
//
// NVIDIA CUDA Driver API (reference manual): Data types used by CUDA driver, for the
// types, constants and layouts; Error Handling, Initialization, Version Management,
// Device Management, Primary Context Management, Context Management, Module Management,
// Memory Management, Unified Addressing, Stream Management, Stream Memory Operations,
// Event Management, Execution Control, Graph Management, Occupancy, Peer Context Memory
// Access, Texture and Surface Reference Management, for the functions. That some symbols
// carry a version is described there under Driver Entry Point Access. Nothing is taken
// from the toolkit's files.
//
// # Rejected
//
// Weak symbols, so that the binary starts without libcuda: a call through one that is
// not there crashes, and cu's initialiser makes the first. A stub libcuda beside the
// binary: it would have to be found by the loader, and not be found where the real one
// is. A fork of cu without its initialiser: it still needs the toolkit.
package driver
