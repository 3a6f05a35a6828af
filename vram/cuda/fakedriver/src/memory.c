// Device memory and page-locked host memory: reference sections "Memory Management" and
// "Unified Addressing".
#include "fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trailer.h"

// Device addresses have bit 55 set, which no address of a process has: to dereference one
// is a fault on x86-64 and on arm64. They are never given twice, so that a use after the
// end is always noticed.
static const CUdeviceptr lowest = 0xd0ull << 48, highest = 0xe0ull << 48;
static CUdeviceptr next_address = 0xd0ull << 48;

enum {
	CHARGE = 512,    // bytes: what an allocation is rounded up to
	GRANULE = BLOCK, // what addresses are aligned to, and at least this much lies between two
};

static struct alloc **allocs; // by address, those that have ended too
static size_t alloc_count, alloc_room;
static struct range *ranges;

bool is_device_address(CUdeviceptr p) { return p >= lowest && p < highest; }

static struct alloc *at(CUdeviceptr p) {
	size_t from = 0, to = alloc_count;
	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (allocs[middle]->base <= p)
			from = middle + 1;
		else
			to = middle;
	}
	return from ? allocs[from - 1] : NULL;
}

// find gives the allocation in which n bytes at p lie. An address that nobody has is
// noticed by the driver; one that has been freed, by the device, whose end it is.
CUresult find(CUdeviceptr p, size_t n, const char *what, struct alloc **out) {
	struct alloc *a = is_device_address(p) ? at(p) : NULL;
	if (!a || p - a->base > a->size || n > a->size - (p - a->base)) {
		misuse("%s: %zu bytes at %#llx lie in no allocation", what, n, p);
		return INVALID_VALUE;
	}
	if (!a->live) {
		misuse("%s: %zu bytes at %#llx have been freed", what, n, p);
		lose(a->device, ILLEGAL_ADDRESS);
		return sticky(a->device);
	}
	if (a->imported && !trailer_valid(a)) {
		misuse("%s: %zu bytes at %#llx have been freed by the process that exported them", what, n, p);
		lose(a->device, ILLEGAL_ADDRESS);
		return sticky(a->device);
	}
	*out = a;
	return sticky(a->device);
}

// place_of resolves one end of a copy. Host memory is either not registered at all or lies
// in one registration ("Memory regions requested must be either entirely registered […]").
CUresult place_of(CUdeviceptr p, size_t n, const char *what, struct place *out) {
	memset(out, 0, sizeof *out);
	if (is_device_address(p)) {
		CUresult r = find(p, n, what, &out->alloc);
		if (!r)
			out->offset = p - out->alloc->base;
		return r;
	}
	char *h = (char *)(uintptr_t)p;
	if (!h && n) {
		misuse("%s: %zu bytes at address 0", what, n);
		return INVALID_VALUE;
	}
	out->host = h;
	for (struct range *g = ranges; g; g = g->next) {
		if (!g->live || h + n <= g->p || h >= g->p + g->n)
			continue;
		if (h < g->p || h + n > g->p + g->n) {
			misuse("%s: %zu bytes of host memory at %p are only partly page-locked by one registration", what, n, (void *)h);
			return INVALID_VALUE;
		}
		out->range = g;
	}
	return OK;
}

// alloc_add takes over fd.
CUresult alloc_add(struct ctx *ctx, int fd, size_t size, bool imported, struct alloc **out) {
	if (alloc_count == alloc_room) {
		size_t room = alloc_room ? 2 * alloc_room : 64;
		struct alloc **more = realloc(allocs, room * sizeof *more);
		if (!more)
			return OUT_OF_MEMORY;
		allocs = more;
		alloc_room = room;
	}
	struct alloc *a = calloc(1, sizeof *a);
	if (!a)
		return OUT_OF_MEMORY;
	a->base = next_address;
	a->size = size;
	a->fd = fd;
	a->device = ctx->device;
	a->ctx = ctx;
	a->imported = imported;
	a->live = true;
	if (!trailer_map(a)) {
		free(a);
		return MAP_FAILED_ERROR;
	}
	next_address += (size / GRANULE + 2) * GRANULE;
	allocs[alloc_count++] = a;
	*out = a;
	return OK;
}

// alloc_end ends an allocation or an import. Who still uses it keeps the structure, which
// allocs_forget frees, and the file.
void alloc_end(struct alloc *a) {
	a->live = false;
	devices[a->device].used -= a->charge;
	trailer_end(a);
	if (!a->queued) {
		close(a->fd);
		a->fd = -1;
	}
}

API CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t n) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuMemAlloc, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!p || !n)
		return leave(INVALID_VALUE);
	struct device *d = &devices[ctx->device];
	size_t room = d->memory > d->used ? d->memory - d->used : 0;
	size_t charge = (n + CHARGE - 1) / CHARGE * CHARGE;
	if (n > room || charge > room)
		return leave(OUT_OF_MEMORY);
	int fd = trailer_file(n);
	if (fd < 0)
		return leave(OPERATING_SYSTEM);
	struct alloc *a;
	if ((r = alloc_add(ctx, fd, n, false, &a))) {
		close(fd);
		return leave(r);
	}
	a->charge = charge;
	d->used += charge;
	*p = a->base;
	return leave(OK);
}

API CUresult cuMemFree_v2(CUdeviceptr p) {
	CUresult r = enter(CALL_cuMemFree, NEED_CONTEXT, NULL);
	if (r)
		return r;
	struct alloc *a = is_device_address(p) ? at(p) : NULL;
	if (!a || a->base != p || !a->live || a->imported) {
		misuse("cuMemFree: %#llx is not an allocation%s", p, a && a->base == p && !a->live ? " any more" : "");
		return leave(INVALID_VALUE);
	}
	if ((r = sticky(a->device)))
		return leave(r);
	if (a->queued)
		misuse("cuMemFree: %#llx is used by %d copies under way", p, a->queued);
	int users = trailer_users(a);
	if (users)
		misuse("cuMemFree: %#llx is mapped %d times by other processes", p, users);
	alloc_end(a);
	return leave(OK);
}

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuMemGetInfo, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!free_bytes || !total)
		return leave(INVALID_VALUE);
	struct device *d = &devices[ctx->device];
	*free_bytes = d->memory > d->used ? d->memory - d->used : 0;
	*total = d->memory;
	return leave(OK);
}

API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr p) {
	CUresult r = enter(CALL_cuMemGetAddressRange, NEED_CONTEXT, NULL);
	if (r)
		return r;
	struct alloc *a = is_device_address(p) ? at(p) : NULL;
	if (!a || !a->live || p - a->base >= a->size)
		return leave(INVALID_VALUE);
	if (base)
		*base = a->base;
	if (size)
		*size = a->size;
	return leave(OK);
}

API CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr p) {
	CUresult r = enter(CALL_cuPointerGetAttribute, NEED_CONTEXT, NULL);
	if (r)
		return r;
	if (!data)
		return leave(INVALID_VALUE);
	struct alloc *a = is_device_address(p) ? at(p) : NULL;
	if (a && (!a->live || p - a->base >= a->size))
		a = NULL;
	struct range *g = ranges;
	while (g && (!g->live || (char *)(uintptr_t)p < g->p || (char *)(uintptr_t)p >= g->p + g->n))
		g = g->next;
	if (!a && !g)
		return leave(INVALID_VALUE);
	switch (attribute) {
	case 1: *(CUcontext *)data = a ? a->ctx : g->ctx; break;
	case 2: *(unsigned *)data = a ? 2 : 1; break; // the kind: device or host
	case 3: *(CUdeviceptr *)data = p; break;
	case 4:
		if (a)
			return leave(INVALID_VALUE);
		*(CUdeviceptr *)data = p;
		break;
	case 8: *(unsigned *)data = 0; break; // managed
	case 9: *(int *)data = a ? a->device : g->ctx->device; break;
	case 11: *(CUdeviceptr *)data = a ? a->base : (CUdeviceptr)(uintptr_t)g->p; break;
	case 12: *(size_t *)data = a ? a->size : g->n; break;
	default: return leave(NOT_SUPPORTED);
	}
	return leave(OK);
}

// mapped tells whether the process has memory at all of these pages.
static bool mapped(char *p, size_t n) {
	uintptr_t page = sysconf(_SC_PAGESIZE), from = (uintptr_t)p / page * page;
	return !msync((void *)from, (uintptr_t)p + n - from, MS_ASYNC);
}

static CUresult range_add(struct ctx *ctx, char *p, size_t n, bool owned) {
	struct range *g = calloc(1, sizeof *g);
	if (!g)
		return OUT_OF_MEMORY;
	*g = (struct range){.p = p, .n = n, .ctx = ctx, .live = true, .owned = owned, .next = ranges};
	ranges = g;
	return OK;
}

API CUresult cuMemHostRegister_v2(void *p, size_t n, unsigned flags) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuMemHostRegister, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!p || !n || flags & ~0xfu || is_device_address((uintptr_t)p))
		return leave(INVALID_VALUE);
	if (!mapped(p, n)) {
		misuse("cuMemHostRegister: %zu bytes at %p are not all mapped", n, p);
		return leave(INVALID_VALUE);
	}
	for (struct range *g = ranges; g; g = g->next)
		if (g->live && (char *)p < g->p + g->n && (char *)p + n > g->p)
			return leave(HOST_MEMORY_ALREADY_REGISTERED);
	return leave(range_add(ctx, p, n, false));
}

static CUresult range_end(enum call call, void *p, bool owned, CUresult unknown) {
	CUresult r = enter(call, NEED_CONTEXT, NULL);
	if (r)
		return r;
	struct range **g = &ranges;
	while (*g && (!(*g)->live || (*g)->p != p || (*g)->owned != owned))
		g = &(*g)->next;
	if (!*g) {
		misuse("%s: %p is not known", name_of(call), p);
		return leave(unknown);
	}
	struct range *old = *g;
	if (old->queued)
		misuse("%s: %p is used by %d copies under way", name_of(call), p, old->queued);
	if (!owned && !mapped(old->p, old->n))
		misuse("%s: %p has been unmapped already", name_of(call), p);
	old->live = false;
	if (owned && munmap(old->p, old->n))
		misuse("%s: %p: %s", name_of(call), p, strerror(errno));
	if (!old->queued) { // or else it stays until the context ends
		*g = old->next;
		free(old);
	}
	return leave(OK);
}

API CUresult cuMemHostUnregister(void *p) {
	return range_end(CALL_cuMemHostUnregister, p, false, HOST_MEMORY_NOT_REGISTERED);
}

API CUresult cuMemFreeHost(void *p) { return range_end(CALL_cuMemFreeHost, p, true, INVALID_VALUE); }

static CUresult host_alloc(enum call call, void **p, size_t n) {
	struct ctx *ctx;
	CUresult r = enter(call, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!p || !n)
		return leave(INVALID_VALUE);
	void *m = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return leave(OUT_OF_MEMORY);
	if ((r = range_add(ctx, m, n, true)))
		munmap(m, n);
	else
		*p = m;
	return leave(r);
}

API CUresult cuMemHostAlloc(void **p, size_t n, unsigned flags) {
	(void)flags;
	return host_alloc(CALL_cuMemHostAlloc, p, n);
}

API CUresult cuMemAllocHost_v2(void **p, size_t n) { return host_alloc(CALL_cuMemAllocHost, p, n); }

void ranges_end(struct ctx *ctx, long long *n) {
	for (struct range **g = &ranges; *g;) {
		struct range *old = *g;
		if (old->ctx != ctx) {
			g = &old->next;
			continue;
		}
		if (old->live)
			++*n;
		if (old->live && old->owned)
			munmap(old->p, old->n);
		if (old->queued) { // by a stream of another device
			old->live = false;
			g = &old->next;
			continue;
		}
		*g = old->next;
		free(old);
	}
}

void allocs_end(struct ctx *ctx, long long *n) {
	for (size_t i = 0; i < alloc_count; i++) {
		if (allocs[i]->ctx != ctx || !allocs[i]->live)
			continue;
		alloc_end(allocs[i]);
		++*n;
	}
}

void allocs_forget(void) {
	size_t kept = 0;
	for (size_t i = 0; i < alloc_count; i++)
		if (allocs[i]->live || allocs[i]->queued)
			allocs[kept++] = allocs[i];
		else
			free(allocs[i]);
	alloc_count = kept;
}

// import_at gives the live import with this address.
struct alloc *import_at(CUdeviceptr p) {
	struct alloc *a = is_device_address(p) ? at(p) : NULL;
	return a && a->base == p && a->live && a->imported ? a : NULL;
}

struct alloc *alloc_by_cookie(struct ctx *ctx, const unsigned char *cookie) {
	for (size_t i = 0; i < alloc_count; i++)
		if (allocs[i]->live && allocs[i]->imported && allocs[i]->ctx == ctx &&
			!memcmp(allocs[i]->cookie, cookie, sizeof allocs[i]->cookie))
			return allocs[i];
	return NULL;
}

// fake_leaks tells what is still held.
API void fake_leaks(struct counts *c) {
	memset(c, 0, sizeof *c);
	pthread_mutex_lock(&mu);
	c->dropped = dropped;
	for (size_t i = 0; i < alloc_count; i++) {
		struct alloc *a = allocs[i];
		c->allocations += a->live && !a->imported;
		c->bytes += a->live && !a->imported ? (long long)a->size : 0;
		c->imports += a->live && a->imported ? a->opens : 0;
	}
	for (struct range *g = ranges; g; g = g->next) {
		c->registrations += g->live && !g->owned;
		c->host_allocations += g->live && g->owned;
	}
	for (int i = 0; i < MAX_DEVICES; i++) {
		struct ctx *x = &devices[i].ctx;
		c->contexts += x->refs;
		for (struct stream *s = x->streams; s; s = s->next) {
			c->streams += s != x->standard && !s->destroyed;
			c->queued += s->submitted - s->completed;
		}
		for (struct event *e = x->events; e; e = e->next)
			c->events++;
	}
	pthread_mutex_unlock(&mu);
}
