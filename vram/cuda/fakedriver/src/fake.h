// The fake driver: host memory behind the names of the CUDA Driver API. This header is
// shared by its source files and by nobody else; see doc.go for what it imitates.
//
// One mutex, mu, guards all state. The threads that carry out streams give it up only while
// they move bytes and while they wait.
#ifndef FAKE_H
#define FAKE_H

#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

// The types of the Driver API that occur here, written from its documentation.
typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct ctx *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;
typedef struct { unsigned char bytes[16]; } CUuuid;
typedef struct { unsigned char bytes[64]; } CUipcMemHandle;
typedef struct { int type, id; } CUmemLocation;
typedef struct {
	int order; // when the source is read: 1 in stream order, 2 during the call, 3 any time
	CUmemLocation src, dst;
	unsigned flags;
} CUmemcpyAttributes;

enum {
	OK = 0,
	INVALID_VALUE = 1,
	OUT_OF_MEMORY = 2,
	NOT_INITIALIZED = 3,
	DEVICE_UNAVAILABLE = 46,
	NO_DEVICE = 100,
	INVALID_DEVICE = 101,
	INVALID_CONTEXT = 201,
	MAP_FAILED_ERROR = 205,
	OPERATING_SYSTEM = 304,
	INVALID_HANDLE = 400,
	NOT_READY = 600,
	ILLEGAL_ADDRESS = 700,
	CONTEXT_IS_DESTROYED = 709,
	HOST_MEMORY_ALREADY_REGISTERED = 712,
	HOST_MEMORY_NOT_REGISTERED = 713,
	LAUNCH_FAILED = 719,
	NOT_SUPPORTED = 801,
};

#define API __attribute__((visibility("default")))

// The calls that are counted and can fail, without the suffix _v2. 1: it queues work, so
// that a delay and a hold apply to the work and not to the call.
#define CALLS(X) \
	X(cuInit, 0) X(cuDriverGetVersion, 0) \
	X(cuDeviceGet, 0) X(cuDeviceGetCount, 0) X(cuDeviceGetName, 0) X(cuDeviceTotalMem, 0) \
	X(cuDeviceGetAttribute, 0) X(cuDeviceGetUuid, 0) X(cuDeviceGetPCIBusId, 0) \
	X(cuDeviceCanAccessPeer, 0) \
	X(cuDevicePrimaryCtxRetain, 0) X(cuDevicePrimaryCtxRelease, 0) X(cuDevicePrimaryCtxReset, 0) \
	X(cuDevicePrimaryCtxGetState, 0) X(cuDevicePrimaryCtxSetFlags, 0) \
	X(cuCtxSetCurrent, 0) X(cuCtxGetCurrent, 0) X(cuCtxPushCurrent, 0) X(cuCtxPopCurrent, 0) \
	X(cuCtxGetDevice, 0) X(cuCtxGetApiVersion, 0) X(cuCtxGetStreamPriorityRange, 0) \
	X(cuCtxSynchronize, 0) \
	X(cuMemAlloc, 0) X(cuMemFree, 0) X(cuMemGetInfo, 0) X(cuMemGetAddressRange, 0) \
	X(cuMemHostAlloc, 0) X(cuMemAllocHost, 0) X(cuMemFreeHost, 0) \
	X(cuMemHostRegister, 0) X(cuMemHostUnregister, 0) X(cuPointerGetAttribute, 0) \
	X(cuMemcpy, 1) X(cuMemcpyHtoD, 1) X(cuMemcpyDtoH, 1) X(cuMemcpyDtoD, 1) X(cuMemsetD8, 1) \
	X(cuMemcpyAsync, 1) X(cuMemcpyHtoDAsync, 1) X(cuMemcpyDtoHAsync, 1) X(cuMemcpyDtoDAsync, 1) \
	X(cuMemsetD8Async, 1) X(cuMemcpyBatchAsync, 1) \
	X(cuStreamCreate, 0) X(cuStreamCreateWithPriority, 0) X(cuStreamDestroy, 0) \
	X(cuStreamQuery, 0) X(cuStreamSynchronize, 0) X(cuStreamWaitEvent, 1) \
	X(cuStreamGetFlags, 0) X(cuStreamGetPriority, 0) \
	X(cuEventCreate, 0) X(cuEventDestroy, 0) X(cuEventRecord, 1) X(cuEventQuery, 0) \
	X(cuEventSynchronize, 0) X(cuEventElapsedTime, 0) \
	X(cuIpcGetMemHandle, 0) X(cuIpcOpenMemHandle, 0) X(cuIpcCloseMemHandle, 0)

enum call {
#define X(name, queues) CALL_##name,
	CALLS(X)
#undef X
	CALL_COUNT,
	CALL_ANY = -1,
};

enum {
	MAX_DEVICES = 16,
	DEFAULT_DEVICES = 2,
	BLOCK = 2 << 20, // bytes: what a driver cuts small allocations out of, and shares as a whole
};
#define DEFAULT_MEMORY (1ll << 30) // bytes a device

// alloc is device memory: a file in memory that is mapped nowhere, so that only the driver
// reaches it, and an address that no process can have. One page behind the bytes is the
// trailer, which processes share.
struct alloc {
	CUdeviceptr base;
	size_t size, charge; // as asked for; as counted against the device
	int fd, device;
	struct ctx *ctx;
	struct trailer *trailer;
	unsigned char cookie[16];
	int opens;  // of an import: how often it is open
	int queued; // copies under way that use it
	bool live, imported;
};

// range is page-locked host memory.
struct range {
	char *p;
	size_t n;
	struct ctx *ctx;
	int queued; // copies under way that use it
	bool live, owned; // owned: made by cuMemHostAlloc
	struct range *next;
};

// place is one end of a copy.
struct place {
	struct alloc *alloc; // NULL for host memory
	size_t offset;
	char *host;
	struct range *range; // of host memory that is page-locked
};

struct piece {
	struct place dst, src;
	size_t n;
};

// point is what an event stands for since it was last recorded.
struct point {
	int refs;
	bool done;
	CUresult err; // of the work before it
	struct timespec at;
};

struct event {
	struct ctx *ctx;
	unsigned flags;
	struct point *point; // NULL until it is recorded
	struct event *next;
};

// work is an entry of a stream: pieces to copy, bytes to set, or a point to reach or await.
struct work {
	enum call call;
	struct piece *pieces;
	size_t count;
	int fill; // -1, or the byte that the first piece's destination is filled with
	char *snapshot; // of sources that were read during the call
	struct point *point;
	bool waits; // for the point, rather than completing it
	struct work *next;
};

struct stream {
	struct ctx *ctx;
	unsigned flags;
	int priority;
	int refs; // the handle, the thread, and who waits
	bool destroyed;
	struct work *head, *tail;
	unsigned long long submitted, completed;
	CUresult err; // of work that failed and that nobody has been told of
	pthread_cond_t wake;
	struct stream *next;
};

struct ctx {
	int device, refs;
	bool alive, dying;
	unsigned flags;
	int workers;
	struct stream *streams, *standard; // standard: the default stream, also in streams
	struct event *events;
};

struct device {
	struct ctx ctx; // the primary context: the only one
	long long memory, used; // bytes
	CUresult sticky;
	int copying; // threads that are moving bytes
};

extern pthread_mutex_t mu;
extern pthread_cond_t done; // broadcast whenever something that somebody may await is over
extern struct device devices[MAX_DEVICES];
extern int device_count;

// state.c
enum need { NEED_NOTHING, NEED_INIT, NEED_CONTEXT };
CUresult enter(enum call call, enum need need, struct ctx **ctx);
CUresult leave(CUresult r);
CUresult fault(enum call call, bool queued, struct ctx *ctx);
CUresult sticky(int device);
void lose(int device, CUresult result);
bool held(enum call call);
struct timespec delay_of(enum call call);
void misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *name_of(enum call call);

// device.c
struct ctx *current(void);
void ctx_end(struct ctx *ctx, bool count);
void contexts_forget(void);
bool is_device(CUdevice d);

// memory.c
CUresult find(CUdeviceptr p, size_t n, const char *what, struct alloc **a);
CUresult place_of(CUdeviceptr p, size_t n, const char *what, struct place *out);
bool is_device_address(CUdeviceptr p);
CUresult alloc_add(struct ctx *ctx, int fd, size_t size, bool imported, struct alloc **out);
void alloc_end(struct alloc *a);
void ranges_end(struct ctx *ctx, long long *dropped);
void allocs_end(struct ctx *ctx, long long *dropped);
void allocs_forget(void);
struct alloc *import_at(CUdeviceptr p);
struct alloc *alloc_by_cookie(struct ctx *ctx, const unsigned char *cookie);

// stream.c
CUresult submit(struct stream *s, struct work w);
CUresult stream_find(struct ctx *ctx, CUstream h, struct stream **s);
CUresult stream_wait(struct stream *s);
bool stream_is_dead(struct stream *s);
void wake_all(void);

// copy.c
CUresult copy_perform(struct work *w, struct ctx *ctx);
void work_end(struct work *w);

// What tests are told: see fake_leaks.
struct counts {
	long long contexts, allocations, bytes, streams, events, registrations, host_allocations, imports;
	long long dropped; // what the end of a context has freed
	long long queued; // entries in streams
};
extern long long dropped;

#endif
