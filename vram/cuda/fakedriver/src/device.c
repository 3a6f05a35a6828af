// Devices and their contexts: reference sections "Device Management", "Primary Context
// Management" and "Context Management".
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STACK = 16 };
static _Thread_local struct ctx *stack[STACK]; // of this thread; the last one is current
static _Thread_local int depth;
static _Thread_local unsigned age;
static unsigned resets; // stacks of threads that are older than the last one are empty

static int top(void) {
	if (age != resets) {
		age = resets;
		depth = 0;
	}
	return depth;
}

struct ctx *current(void) { return top() ? stack[depth - 1] : NULL; }

void contexts_forget(void) { resets++; }

bool is_device(CUdevice d) { return d >= 0 && d < device_count; }

static bool is_context(struct ctx *c) {
	for (int i = 0; i < device_count; i++)
		if (c == &devices[i].ctx)
			return true;
	return false;
}

API CUresult cuDriverGetVersion(int *version) {
	CUresult r = enter(CALL_cuDriverGetVersion, NEED_NOTHING, NULL);
	if (r)
		return r;
	if (!version)
		return leave(INVALID_VALUE);
	*version = 13000;
	return leave(OK);
}

API CUresult cuDeviceGet(CUdevice *device, int ordinal) {
	CUresult r = enter(CALL_cuDeviceGet, NEED_INIT, NULL);
	if (r)
		return r;
	if (!device)
		return leave(INVALID_VALUE);
	if (!is_device(ordinal))
		return leave(INVALID_DEVICE);
	*device = ordinal;
	return leave(OK);
}

API CUresult cuDeviceGetCount(int *count) {
	CUresult r = enter(CALL_cuDeviceGetCount, NEED_INIT, NULL);
	if (r)
		return r;
	if (!count)
		return leave(INVALID_VALUE);
	*count = device_count;
	return leave(OK);
}

API CUresult cuDeviceGetName(char *name, int n, CUdevice d) {
	CUresult r = enter(CALL_cuDeviceGetName, NEED_INIT, NULL);
	if (r)
		return r;
	if (!name || n <= 0)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	snprintf(name, n, "fake driver");
	return leave(OK);
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice d) {
	CUresult r = enter(CALL_cuDeviceTotalMem, NEED_INIT, NULL);
	if (r)
		return r;
	if (!bytes)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	*bytes = devices[d].memory;
	return leave(OK);
}

API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice d) {
	CUresult r = enter(CALL_cuDeviceGetAttribute, NEED_INIT, NULL);
	if (r)
		return r;
	if (!value || attribute < 1 || attribute > 200)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	switch (attribute) {
	case 1: *value = 1024; break; // threads a block
	case 10: *value = 32; break;  // warp size
	case 16: *value = 1; break;   // multiprocessors
	case 19:                      // can map host memory
	case 31:                      // concurrent kernels
	case 41:                      // unified addressing
	case 78:                      // priorities of streams
	case 99: *value = 1; break;   // can register host memory
	case 33: *value = 0x10 + d; break; // PCI bus
#ifdef FAKE_ALIASES
	case 91: *value = 0; break;
#else
	case 91: *value = 1; break;   // registered host memory has one address for both sides
#endif
	case 40: *value = 2; break;   // copy engines
	case 75: *value = 9; break;   // compute capability
	default: *value = 0;
	}
	return leave(OK);
}

static CUresult uuid(CUuuid *u, CUdevice d) {
	CUresult r = enter(CALL_cuDeviceGetUuid, NEED_INIT, NULL);
	if (r)
		return r;
	if (!u)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	memcpy(u->bytes, "fake driver dev", 15);
	u->bytes[15] = d;
	return leave(OK);
}

API CUresult cuDeviceGetUuid(CUuuid *u, CUdevice d) { return uuid(u, d); }
API CUresult cuDeviceGetUuid_v2(CUuuid *u, CUdevice d) { return uuid(u, d); }

API CUresult cuDeviceGetPCIBusId(char *id, int n, CUdevice d) {
	CUresult r = enter(CALL_cuDeviceGetPCIBusId, NEED_INIT, NULL);
	if (r)
		return r;
	if (!id || n < 13)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	snprintf(id, n, "0000:%02X:00.0", 0x10 + d);
	return leave(OK);
}

API CUresult cuDeviceCanAccessPeer(int *can, CUdevice d, CUdevice peer) {
	CUresult r = enter(CALL_cuDeviceCanAccessPeer, NEED_INIT, NULL);
	if (r)
		return r;
	if (!can)
		return leave(INVALID_VALUE);
	if (!is_device(d) || !is_device(peer))
		return leave(INVALID_DEVICE);
	*can = d != peer;
	return leave(OK);
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice d) {
	CUresult r = enter(CALL_cuDevicePrimaryCtxRetain, NEED_INIT, NULL);
	if (r)
		return r;
	if (!ctx)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	struct ctx *c = &devices[d].ctx;
	while (c->dying)
		pthread_cond_wait(&done, &mu);
	if ((r = sticky(d)))
		return leave(r);
	c->refs++;
	c->alive = true;
	*ctx = c;
	return leave(OK);
}

// ctx_end frees everything that a context holds. What its streams have not begun is dropped.
void ctx_end(struct ctx *c, bool count) {
	while (c->dying)
		pthread_cond_wait(&done, &mu);
	c->refs = 0;
	if (!c->alive)
		return;
	long long n = 0;
	c->alive = false;
	c->dying = true;
	for (struct stream *s = c->streams; s; s = s->next) {
		if (s->submitted != s->completed && !devices[c->device].sticky)
			misuse("the context of device %d ended with %llu entries in a stream", c->device, s->submitted - s->completed);
		if (s->destroyed)
			continue;
		s->destroyed = true;
		s->refs--; // the handle; its thread holds it still
		n += s != c->standard;
	}
	c->standard = NULL;
	wake_all();
	while (c->workers)
		pthread_cond_wait(&done, &mu);
	while (c->events) {
		struct event *e = c->events;
		c->events = e->next;
		if (e->point && !--e->point->refs)
			free(e->point);
		free(e);
		n++;
	}
	allocs_end(c, &n);
	ranges_end(c, &n);
	if (count && !devices[c->device].sticky)
		dropped += n;
	c->dying = false;
	pthread_cond_broadcast(&done);
}

static CUresult give_back(enum call call, CUdevice d, bool all) {
	CUresult r = enter(call, NEED_INIT, NULL);
	if (r)
		return r;
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	struct ctx *c = &devices[d].ctx;
	if (!all && !c->refs) {
		misuse("%s: device %d has no primary context", name_of(call), d);
		return leave(INVALID_CONTEXT);
	}
	r = sticky(d);
	if (all || !--c->refs)
		ctx_end(c, true);
	return leave(r);
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d) { return give_back(CALL_cuDevicePrimaryCtxRelease, d, false); }
API CUresult cuDevicePrimaryCtxReset_v2(CUdevice d) { return give_back(CALL_cuDevicePrimaryCtxReset, d, true); }

API CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned *flags, int *active) {
	CUresult r = enter(CALL_cuDevicePrimaryCtxGetState, NEED_INIT, NULL);
	if (r)
		return r;
	if (!flags || !active)
		return leave(INVALID_VALUE);
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	*flags = devices[d].ctx.flags;
	*active = devices[d].ctx.alive;
	return leave(OK);
}

API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice d, unsigned flags) {
	CUresult r = enter(CALL_cuDevicePrimaryCtxSetFlags, NEED_INIT, NULL);
	if (r)
		return r;
	if (!is_device(d))
		return leave(INVALID_DEVICE);
	devices[d].ctx.flags = flags;
	return leave(OK);
}

API CUresult cuCtxSetCurrent(CUcontext c) {
	CUresult r = enter(CALL_cuCtxSetCurrent, NEED_INIT, NULL);
	if (r)
		return r;
	if (c && !is_context(c))
		return leave(INVALID_CONTEXT);
	if (c && (r = sticky(c->device)))
		return leave(r);
	if (c && !c->alive)
		return leave(INVALID_CONTEXT);
	if (depth)
		depth--;
	if (c)
		stack[depth++] = c;
	return leave(OK);
}

API CUresult cuCtxGetCurrent(CUcontext *c) {
	CUresult r = enter(CALL_cuCtxGetCurrent, NEED_INIT, NULL);
	if (r)
		return r;
	if (!c)
		return leave(INVALID_VALUE);
	*c = current();
	return leave(OK);
}

API CUresult cuCtxPushCurrent_v2(CUcontext c) {
	CUresult r = enter(CALL_cuCtxPushCurrent, NEED_INIT, NULL);
	if (r)
		return r;
	if (!c || !is_context(c) || !c->alive)
		return leave(INVALID_CONTEXT);
	if ((r = sticky(c->device)))
		return leave(r);
	if (depth == STACK)
		return leave(INVALID_VALUE);
	stack[depth++] = c;
	return leave(OK);
}

API CUresult cuCtxPopCurrent_v2(CUcontext *c) {
	CUresult r = enter(CALL_cuCtxPopCurrent, NEED_INIT, NULL);
	if (r)
		return r;
	if (!depth)
		return leave(INVALID_CONTEXT);
	depth--;
	if (c)
		*c = stack[depth];
	return leave(OK);
}

API CUresult cuCtxGetDevice(CUdevice *d) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuCtxGetDevice, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!d)
		return leave(INVALID_VALUE);
	*d = ctx->device;
	return leave(OK);
}

API CUresult cuCtxGetApiVersion(CUcontext c, unsigned *version) {
	CUresult r = enter(CALL_cuCtxGetApiVersion, NEED_INIT, NULL);
	if (r)
		return r;
	if (c && !is_context(c))
		return leave(INVALID_CONTEXT);
	if (!version)
		return leave(INVALID_VALUE);
	*version = 3020;
	return leave(OK);
}

API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
	CUresult r = enter(CALL_cuCtxGetStreamPriorityRange, NEED_CONTEXT, NULL);
	if (r)
		return r;
	if (least)
		*least = 0;
	if (greatest)
		*greatest = -5;
	return leave(OK);
}

API CUresult cuCtxSynchronize(void) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuCtxSynchronize, NEED_CONTEXT, &ctx), first = OK;
	if (r)
		return r;
	for (;;) {
		struct stream *busy = ctx->streams;
		while (busy && busy->submitted == busy->completed && !busy->err)
			busy = busy->next;
		if (!busy)
			return leave(first);
		r = stream_wait(busy);
		if (!ctx->alive || sticky(ctx->device))
			return leave(r);
		if (!first)
			first = r;
	}
}
