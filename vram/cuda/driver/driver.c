//go:build cuda && cgo

/*
 * The trampolines: each function of cuda.h, calling the driver through a table that
 * cairn_driver_load fills. doc.go says why.
 */
#define _GNU_SOURCE
#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The layouts that the driver was compiled with, on every 64-bit machine. */
_Static_assert(sizeof(void *) == 8 && sizeof(size_t) == 8, "the driver's ABI is declared for 64-bit machines only");
_Static_assert(sizeof(CUdeviceptr) == 8 && sizeof(CUresult) == 4, "scalars");
_Static_assert(sizeof(CUuuid) == 16 && sizeof(CUipcMemHandle) == 64, "names of devices and allocations");
_Static_assert(sizeof(CUmemLocation) == 8 && sizeof(CUmemcpyAttributes) == 24, "attributes of a batch");
_Static_assert(sizeof(CUDA_ARRAY_DESCRIPTOR) == 24 && sizeof(CUDA_ARRAY3D_DESCRIPTOR) == 40, "arrays");
_Static_assert(sizeof(CUDA_MEMCPY2D) == 128 && offsetof(CUDA_MEMCPY2D, dstXInBytes) == 56, "copies in two dimensions");
_Static_assert(sizeof(CUDA_MEMCPY3D) == 200 && offsetof(CUDA_MEMCPY3D, dstXInBytes) == 88, "copies in three dimensions");
_Static_assert(sizeof(CUDA_MEMCPY3D_PEER) == 200 && offsetof(CUDA_MEMCPY3D_PEER, dstContext) == 152, "copies between devices");
_Static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS) == 56 && sizeof(CUDA_MEMSET_NODE_PARAMS) == 40 && sizeof(CUDA_HOST_NODE_PARAMS) == 16, "nodes of graphs");

struct table {
#define CU_FUNCTION(name, symbols, parameters, arguments) CUresult(*name) parameters;
#define CU_REQUIRED(name, symbols, parameters, arguments) CUresult(*name) parameters;
#include "cuda_functions.h"
#undef CU_FUNCTION
#undef CU_REQUIRED
};

static struct table functions;

/* &functions once a driver is loaded and initialised, NULL before. Written once, with
 * release, after the last write to functions; never changed or freed afterwards, so
 * that any thread may be inside a trampoline at any time. */
static const struct table *loaded;

static const struct table *driver(void)
{
	return __atomic_load_n(&loaded, __ATOMIC_ACQUIRE);
}

/* cu's package initialiser ends the process when cuInit fails. So this one never does,
 * and does nothing: cairn_driver_load calls the driver's. */
CUresult cuInit(unsigned int flags)
{
	(void)flags;
	return CUDA_SUCCESS;
}

#define CU_FUNCTION(name, symbols, parameters, arguments) \
	CUresult name parameters                          \
	{                                                 \
		const struct table *t = driver();         \
		if (t == NULL)                            \
			return CUDA_ERROR_NOT_INITIALIZED; \
		if (t->name == NULL)                      \
			return CUDA_ERROR_NOT_FOUND;      \
		return t->name arguments;                 \
	}
#define CU_REQUIRED CU_FUNCTION
#include "cuda_functions.h"
#undef CU_FUNCTION
#undef CU_REQUIRED

/* The address of the first of the symbols that the library has; NULL if it has none. */
static void *look_up(void *library, const char *symbols)
{
	while (*symbols != '\0') {
		char name[128];
		size_t n = strcspn(symbols, " ");
		if (n < sizeof name) {
			memcpy(name, symbols, n);
			name[n] = '\0';
			void *found = dlsym(library, name);
			if (found != NULL)
				return found;
		}
		symbols += n;
		symbols += strspn(symbols, " ");
	}
	return NULL;
}

static void *must(void *library, const char *symbols, char *missing, size_t size)
{
	void *found = look_up(library, symbols);
	if (found == NULL) {
		size_t n = strlen(missing);
		snprintf(missing + n, size - n, "%s%s", n == 0 ? "" : ", ", symbols);
	}
	return found;
}

int cairn_driver_load(const char *path, CUresult *result, char *text, size_t size)
{
	CUresult (*init)(unsigned int);
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) {
		const char *why = dlerror();
		snprintf(text, size, "%s", why != NULL ? why : path);
		return CAIRN_NO_LIBRARY;
	}

	text[0] = '\0';
	*(void **)&init = must(library, "cuInit", text, size);
#define CU_FUNCTION(name, symbols, parameters, arguments) *(void **)&functions.name = look_up(library, symbols);
#define CU_REQUIRED(name, symbols, parameters, arguments) *(void **)&functions.name = must(library, symbols, text, size);
#include "cuda_functions.h"
#undef CU_FUNCTION
#undef CU_REQUIRED
	if (text[0] != '\0') {
		dlclose(library);
		return CAIRN_NO_FUNCTION;
	}

	/* From here on the library stays: a driver that has begun to start may have
	 * threads of its own. */
	Dl_info info;
	snprintf(text, size, "%s", dladdr(*(void **)&init, &info) != 0 && info.dli_fname != NULL ? info.dli_fname : path);
	*result = init(0);
	if (*result != CUDA_SUCCESS)
		return CAIRN_INIT_REFUSED;
	__atomic_store_n(&loaded, &functions, __ATOMIC_RELEASE);
	return CAIRN_LOADED;
}

const char *cairn_driver_missing(size_t index)
{
	const struct table *t = driver();
	if (t == NULL)
		return NULL;
#define CU_FUNCTION(name, symbols, parameters, arguments) \
	if (t->name == NULL && index-- == 0)              \
		return symbols;
#define CU_REQUIRED CU_FUNCTION
#include "cuda_functions.h"
#undef CU_FUNCTION
#undef CU_REQUIRED
	return NULL;
}

int cairn_driver_has_batch(void)
{
	const struct table *t = driver();
	return t != NULL && (t->cuMemcpyBatchAsync_v2 != NULL || t->cuMemcpyBatchAsync != NULL);
}

CUresult cairn_driver_batch(const CUdeviceptr *dst, const CUdeviceptr *src, const size_t *sizes, size_t count, uintptr_t stream)
{
	/* One set of attributes for all copies, from the first on: sources are read when
	 * the stream gets there, as with single copies. */
	CUmemcpyAttributes attributes = {.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};
	size_t first = 0;
	const struct table *t = driver();
	if (t != NULL && t->cuMemcpyBatchAsync_v2 != NULL)
		return t->cuMemcpyBatchAsync_v2(dst, src, sizes, count, &attributes, &first, 1, (CUstream)stream);

	/* The older form takes pointers to what it only reads, and tells which copy it
	 * refused; the code is enough here. */
	size_t failed = 0;
	return cuMemcpyBatchAsync((CUdeviceptr *)dst, (CUdeviceptr *)src, (size_t *)sizes, count, &attributes, &first, 1, &failed, (CUstream)stream);
}
