//go:build cuda && cgo

/* driver.h: what driver.c offers to the Go side of this package. */
#ifndef CAIRN_DRIVER_H
#define CAIRN_DRIVER_H

#include <cuda.h>

#pragma GCC visibility push(hidden)

/* What became of cairn_driver_load. */
enum {
	CAIRN_LOADED = 0,
	CAIRN_NO_LIBRARY = 1,    /* the dynamic loader's words are in text */
	CAIRN_NO_FUNCTION = 2,   /* the symbols that are lacking are in text */
	CAIRN_INIT_REFUSED = 3   /* cuInit's answer is in *result */
};

/* Loads the library, looks up every function, calls the real cuInit, and only when all
 * of that went well makes the trampolines call it. text of size bytes gets the path of
 * the library or the reason. Not to be called twice at once, nor again after success. */
int cairn_driver_load(const char *path, CUresult *result, char *text, size_t size);

/* The symbols of the index-th function that the loaded driver lacks; NULL beyond the
 * last. */
const char *cairn_driver_missing(size_t index);

/* Is there a function that copies in batches? */
int cairn_driver_has_batch(void);

/* Queues count copies on stream with whichever form of the call the driver has. */
CUresult cairn_driver_batch(const CUdeviceptr *dst, const CUdeviceptr *src, const size_t *sizes, size_t count, uintptr_t stream);

#pragma GCC visibility pop

#endif
