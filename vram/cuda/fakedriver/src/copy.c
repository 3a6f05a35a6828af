// Copies: reference section "Memory Management". They are checked when they are asked for
// and again when a stream comes to them, because what they use may be gone by then.
#include "fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BOUNCE = 64 << 10 };

// transfer moves n bytes between a file and memory. The kernel does it, so that memory that
// is not mapped any more is an error and not the end of the process.
static int transfer(int fd, off_t at, char *p, size_t n, bool out) {
	while (n) {
		ssize_t k = out ? pread(fd, p, n, at) : pwrite(fd, p, n, at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k ? errno : EIO;
		p += k;
		at += k;
		n -= k;
	}
	return 0;
}

static int move(const struct piece *p) {
	if (!p->dst.alloc && !p->src.alloc) {
		memmove(p->dst.host, p->src.host, p->n);
		return 0;
	}
	if (!p->src.alloc)
		return transfer(p->dst.alloc->fd, p->dst.offset, p->src.host, p->n, false);
	if (!p->dst.alloc)
		return transfer(p->src.alloc->fd, p->src.offset, p->dst.host, p->n, true);
	char bounce[BOUNCE];
	for (size_t i = 0; i < p->n; i += BOUNCE) {
		size_t k = p->n - i < BOUNCE ? p->n - i : BOUNCE;
		int e = transfer(p->src.alloc->fd, p->src.offset + i, bounce, k, true);
		if (!e)
			e = transfer(p->dst.alloc->fd, p->dst.offset + i, bounce, k, false);
		if (e)
			return e;
	}
	return 0;
}

static int fill(const struct place *p, size_t n, int byte) {
	char bounce[BOUNCE];
	memset(bounce, byte, sizeof bounce);
	for (size_t i = 0; i < n; i += BOUNCE) {
		int e = transfer(p->alloc->fd, p->offset + i, bounce, n - i < BOUNCE ? n - i : BOUNCE, false);
		if (e)
			return e;
	}
	return 0;
}

static bool gone(const struct place *p, const char *call) {
	if (p->alloc && !p->alloc->live)
		misuse("%s: device memory at %#llx was freed before the copy was over", call, p->alloc->base);
	else if (p->range && !p->range->live)
		misuse("%s: host memory at %p was unregistered before the copy was over", call, (void *)p->range->p);
	else
		return false;
	return true;
}

// copy_perform carries out an entry. It is called with mu held and gives it up meanwhile.
// The pieces of a batch go last to first: nobody may rely on an order.
CUresult copy_perform(struct work *w, struct ctx *ctx) {
	const char *call = name_of(w->call);
	for (size_t i = 0; i < w->count; i++)
		if (gone(&w->pieces[i].dst, call) || gone(&w->pieces[i].src, call)) {
			lose(ctx->device, ILLEGAL_ADDRESS);
			return ILLEGAL_ADDRESS;
		}
	struct device *d = &devices[ctx->device];
	int e = 0;
	d->copying++;
	pthread_mutex_unlock(&mu);
	if (w->fill >= 0)
		e = fill(&w->pieces[0].dst, w->pieces[0].n, w->fill);
	else
		for (size_t i = w->count; i-- && !e;)
			e = move(&w->pieces[i]);
	pthread_mutex_lock(&mu);
	d->copying--;
	if (!e)
		return OK;
	misuse("%s: %s", call, e == EFAULT ? "host memory was unmapped before the copy was over" : strerror(e));
	lose(ctx->device, e == EFAULT ? ILLEGAL_ADDRESS : LAUNCH_FAILED);
	return d->sticky;
}

static void use(struct place *p, int n) {
	if (p->range)
		p->range->queued += n;
	if (!p->alloc)
		return;
	p->alloc->queued += n;
	if (!p->alloc->live && !p->alloc->queued) {
		close(p->alloc->fd);
		p->alloc->fd = -1;
	}
}

// work_end lets go of what an entry uses.
void work_end(struct work *w) {
	for (size_t i = 0; i < w->count; i++) {
		use(&w->pieces[i].dst, -1);
		use(&w->pieces[i].src, -1);
	}
	free(w->pieces);
	free(w->snapshot);
	free(w);
}

// queue submits an entry whose pieces are resolved, and waits for it if it is not asynchronous.
static CUresult queue(struct stream *s, struct work w, bool wait) {
	CUresult r = submit(s, w);
	if (r) {
		free(w.pieces);
		free(w.snapshot);
		return r;
	}
	for (size_t i = 0; i < w.count; i++) {
		use(&w.pieces[i].dst, 1);
		use(&w.pieces[i].src, 1);
	}
	return wait ? stream_wait(s) : OK;
}

static bool overlap(const struct place *a, size_t n, const struct place *b, size_t m) {
	if (a->alloc != b->alloc)
		return false;
	if (a->alloc)
		return a->offset < b->offset + m && b->offset < a->offset + n;
	return a->host < b->host + m && b->host < a->host + n;
}

enum side { HOST, DEVICE, EITHER };

static CUresult side_check(const char *call, const char *which, CUdeviceptr p, enum side side) {
	if (side == EITHER || (side == DEVICE) == is_device_address(p))
		return OK;
	misuse("%s: the %s %#llx is not %s memory", call, which, p, side == HOST ? "host" : "device");
	return INVALID_VALUE;
}

static CUresult piece_of(const char *call, CUdeviceptr dst, enum side to, CUdeviceptr src, enum side from, size_t n, struct piece *p) {
	CUresult r;
	if ((r = side_check(call, "destination", dst, to)) || (r = side_check(call, "source", src, from)))
		return r;
	p->n = n;
	if ((r = place_of(dst, n, call, &p->dst)) || (r = place_of(src, n, call, &p->src)))
		return r;
	if (overlap(&p->dst, n, &p->src, n))
		misuse("%s: %zu bytes from %#llx to %#llx overlap", call, n, src, dst);
	return OK;
}

static CUresult copy(enum call call, CUdeviceptr dst, enum side to, CUdeviceptr src, enum side from, size_t n, CUstream h, bool wait) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = enter(call, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if ((r = stream_find(ctx, h, &s)))
		return leave(r);
	if (!n)
		return leave(wait ? stream_wait(s) : OK);
	struct piece *p = calloc(1, sizeof *p);
	if (!p)
		return leave(OUT_OF_MEMORY);
	if ((r = piece_of(name_of(call), dst, to, src, from, n, p))) {
		free(p);
		return leave(r);
	}
	return leave(queue(s, (struct work){.call = call, .pieces = p, .count = 1, .fill = -1}, wait));
}

#define AT(p) ((CUdeviceptr)(uintptr_t)(p))

API CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t n) {
	return copy(CALL_cuMemcpy, dst, EITHER, src, EITHER, n, NULL, true);
}
API CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t n) {
	return copy(CALL_cuMemcpyHtoD, dst, DEVICE, AT(src), HOST, n, NULL, true);
}
API CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t n) {
	return copy(CALL_cuMemcpyDtoH, AT(dst), HOST, src, DEVICE, n, NULL, true);
}
API CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t n) {
	return copy(CALL_cuMemcpyDtoD, dst, DEVICE, src, DEVICE, n, NULL, true);
}
API CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s) {
	return copy(CALL_cuMemcpyAsync, dst, EITHER, src, EITHER, n, s, false);
}
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t n, CUstream s) {
	return copy(CALL_cuMemcpyHtoDAsync, dst, DEVICE, AT(src), HOST, n, s, false);
}
API CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t n, CUstream s) {
	return copy(CALL_cuMemcpyDtoHAsync, AT(dst), HOST, src, DEVICE, n, s, false);
}
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream s) {
	return copy(CALL_cuMemcpyDtoDAsync, dst, DEVICE, src, DEVICE, n, s, false);
}

static CUresult set(enum call call, CUdeviceptr dst, unsigned char byte, size_t n, CUstream h, bool wait) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = enter(call, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if ((r = stream_find(ctx, h, &s)))
		return leave(r);
	if ((r = side_check(name_of(call), "destination", dst, DEVICE)))
		return leave(r);
	struct piece *p = calloc(1, sizeof *p);
	if (!p)
		return leave(OUT_OF_MEMORY);
	p->n = n;
	if ((r = place_of(dst, n, name_of(call), &p->dst))) {
		free(p);
		return leave(r);
	}
	return leave(queue(s, (struct work){.call = call, .pieces = p, .count = 1, .fill = byte}, wait));
}

API CUresult cuMemsetD8_v2(CUdeviceptr dst, unsigned char byte, size_t n) {
	return set(CALL_cuMemsetD8, dst, byte, n, NULL, true);
}
API CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char byte, size_t n, CUstream s) {
	return set(CALL_cuMemsetD8Async, dst, byte, n, s, false);
}

#ifndef FAKE_NO_BATCH

// attributes_check: every copy has attributes, namely the last whose index is not above its
// own, and the first index is 0.
static CUresult attributes_check(const CUmemcpyAttributes *attrs, const size_t *from, size_t n, size_t count) {
	if (!attrs || !from || !n || n > count || from[0])
		return INVALID_VALUE;
	for (size_t i = 0; i < n; i++)
		if (attrs[i].order < 1 || attrs[i].order > 3 || attrs[i].flags > 1 || from[i] >= count || (i && from[i] <= from[i - 1]))
			return INVALID_VALUE;
	return OK;
}

// take copies the sources in host memory whose attributes say that they are read during the
// call.
static CUresult take(struct work *w, const CUmemcpyAttributes *attrs, const size_t *from, size_t n) {
	size_t total = 0, k = 0;
	for (int pass = 0; pass < 2; pass++) {
		size_t at = 0;
		for (size_t i = k = 0; i < w->count; i++) {
			struct piece *p = &w->pieces[i];
			while (k + 1 < n && from[k + 1] <= i)
				k++;
			if (attrs[k].order != 2 || p->src.alloc)
				continue;
			if (pass) {
				memcpy(w->snapshot + at, p->src.host, p->n);
				p->src = (struct place){.host = w->snapshot + at};
			}
			at += p->n;
		}
		total = at;
		if (!total)
			return OK;
		if (!pass && !(w->snapshot = malloc(total)))
			return OUT_OF_MEMORY;
	}
	return OK;
}

static void batch_overlap(const struct work *w) {
	for (size_t i = 0; i < w->count; i++)
		for (size_t j = 0; j < w->count; j++) {
			const struct piece *a = &w->pieces[i], *b = &w->pieces[j];
			if (i != j && (overlap(&a->dst, a->n, &b->src, b->n) || (i < j && overlap(&a->dst, a->n, &b->dst, b->n)))) {
				misuse("cuMemcpyBatchAsync: copies %zu and %zu of %zu overlap", i, j, w->count);
				return;
			}
		}
}

static CUresult batch(const CUdeviceptr *dst, const CUdeviceptr *src, const size_t *n, size_t count,
	const CUmemcpyAttributes *attrs, const size_t *from, size_t attr_count, size_t *failed, CUstream h) {
	struct ctx *ctx;
	struct stream *s;
	if (failed)
		*failed = SIZE_MAX;
	CUresult r = enter(CALL_cuMemcpyBatchAsync, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if ((uintptr_t)h <= 1) {
		misuse("cuMemcpyBatchAsync: not in the default stream");
		return leave(INVALID_VALUE);
	}
	if ((r = stream_find(ctx, h, &s)))
		return leave(r);
	if (!dst || !src || !n || !count || (r = attributes_check(attrs, from, attr_count, count)))
		return leave(INVALID_VALUE);
	struct work w = {.call = CALL_cuMemcpyBatchAsync, .count = count, .fill = -1};
	if (!(w.pieces = calloc(count, sizeof *w.pieces)))
		return leave(OUT_OF_MEMORY);
	for (size_t i = 0; i < count && !r; i++) {
		r = n[i] ? piece_of("cuMemcpyBatchAsync", dst[i], EITHER, src[i], EITHER, n[i], &w.pieces[i]) : INVALID_VALUE;
#ifdef FAKE_ALIASES
		// A batch is carried out with the addresses as they are.
		if (!r && (w.pieces[i].dst.range || w.pieces[i].src.range)) {
			misuse("cuMemcpyBatchAsync: copy %zu names registered host memory, which has another address on the device", i);
			lose(ctx->device, ILLEGAL_ADDRESS);
			r = sticky(ctx->device);
		}
#endif
		if (r && failed)
			*failed = i;
	}
	if (!r)
		r = take(&w, attrs, from, attr_count);
	if (r) {
		free(w.pieces);
		return leave(r);
	}
	batch_overlap(&w);
	return leave(queue(s, w, false));
}

API CUresult cuMemcpyBatchAsync(CUdeviceptr *dst, CUdeviceptr *src, size_t *n, size_t count,
	CUmemcpyAttributes *attrs, size_t *from, size_t attr_count, size_t *failed, CUstream s) {
	return batch(dst, src, n, count, attrs, from, attr_count, failed, s);
}

#ifndef FAKE_NO_BATCH_V2
API CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dst, CUdeviceptr *src, size_t *n, size_t count,
	CUmemcpyAttributes *attrs, size_t *from, size_t attr_count, CUstream s) {
	return batch(dst, src, n, count, attrs, from, attr_count, NULL, s);
}
#endif
#endif
