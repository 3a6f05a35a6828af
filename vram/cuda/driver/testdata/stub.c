/*
 * A library in the driver's place for the tests of loading: it has the driver's
 * symbols, and checks the arguments of the few calls whose parameters are easy to get
 * wrong. It moves no byte. The test adds the other symbols of the list below: those
 * with a version succeed, and the same names without one answer 998.
 */
#include <stddef.h>
#include <string.h>

#define FUNCTION(name, ...) int name(__VA_ARGS__)

#ifndef INIT_RESULT
#define INIT_RESULT 0
#endif

static int started;

int cuInit(unsigned int flags)
{
	if (flags != 0)
		return 1;
	started++;
	/* The process calls it once, however often it loads. */
	return started > 1 ? 999 : INIT_RESULT;
}

FUNCTION(cuDeviceGetCount, int *count)
{
	*count = 3;
	return 0;
}

FUNCTION(cuDriverGetVersion, int *version)
{
	*version = 12080;
	return 0;
}

FUNCTION(cuDeviceGet, int *device, int ordinal)
{
	*device = ordinal + 10;
	return ordinal < 3 ? 0 : 101;
}

/* An older driver: the second of the two names only. */
FUNCTION(cuDeviceGetUuid_v2, char *uuid, int device);
int cuDeviceGetUuid(char *uuid, int device)
{
	for (int i = 0; i < 16; i++)
		uuid[i] = (char)(device + i);
	return 0;
}

FUNCTION(cuDeviceGetPCIBusId, char *id, int length, int device)
{
	const char bus[] = "0000:3b:00.0";
	if (length < (int)sizeof bus || device != 11)
		return 1;
	memcpy(id, bus, sizeof bus);
	return 0;
}

FUNCTION(cuGetErrorName, int code, const char **text)
{
	*text = code == 12345 ? "CUDA_ERROR_OF_TOMORROW" : NULL;
	return *text != NULL ? 0 : 1;
}

FUNCTION(cuGetErrorString, int code, const char **text)
{
	*text = "nobody knows yet";
	return 0;
}

FUNCTION(cuMemAlloc_v2, unsigned long long *address, size_t bytes)
{
	*address = 0x7f0000000000 + bytes;
	return 0;
}

/* A size above 4 GiB arrives whole. */
FUNCTION(cuMemGetInfo_v2, size_t *available, size_t *total)
{
	*available = 140ull << 30;
	*total = 141ull << 30;
	return 0;
}

FUNCTION(cuMemGetAddressRange_v2, unsigned long long *base, size_t *size, unsigned long long address)
{
	*base = address & ~0xffffull;
	*size = 5ull << 30;
	return 0;
}

FUNCTION(cuIpcGetMemHandle, char *handle, unsigned long long address)
{
	for (int i = 0; i < 64; i++)
		handle[i] = (char)(address + i);
	return 0;
}

typedef struct {
	char bytes[64];
} handle_t;

/* The handle comes by value, and the only flag is 1. */
FUNCTION(cuIpcOpenMemHandle_v2, unsigned long long *address, handle_t handle, unsigned int flags)
{
	for (int i = 0; i < 64; i++)
		if (handle.bytes[i] != (char)(handle.bytes[0] + i))
			return 400;
	*address = 0x7e0000000000;
	return flags == 1 ? 0 : 1;
}

typedef struct {
	int order;
	int source_kind, source, target_kind, target;
	unsigned int flags;
} attributes_t;

static int batch_ok(unsigned long long *dst, unsigned long long *src, size_t *sizes, size_t count, attributes_t *a, size_t *first, size_t n, void *stream)
{
	for (size_t i = 0; i < count; i++)
		if (dst[i] != 0x1000 + i || src[i] != 0x2000 + i || sizes[i] != 0x3000 + i)
			return 0;
	return count == 3 && n == 1 && first[0] == 0 && a->order == 1 && a->flags == 0 && stream == (void *)0x77;
}

#ifndef NO_BATCH
FUNCTION(cuMemcpyBatchAsync, unsigned long long *dst, unsigned long long *src, size_t *sizes, size_t count, attributes_t *a, size_t *first, size_t n, size_t *failed, void *stream)
{
#ifdef BATCH_2
	return 998; /* the newer is to be taken */
#endif
	if (!batch_ok(dst, src, sizes, count, a, first, n, stream))
		return 1;
	*failed = 2;
	return 0;
}
#else
FUNCTION(cuMemcpyBatchAsync, );
#endif

#ifdef BATCH_2
FUNCTION(cuMemcpyBatchAsync_v2, unsigned long long *dst, unsigned long long *src, size_t *sizes, size_t count, attributes_t *a, size_t *first, size_t n, void *stream)
{
	return batch_ok(dst, src, sizes, count, a, first, n, stream) ? 0 : 1;
}
#else
FUNCTION(cuMemcpyBatchAsync_v2, );
#endif
