// Streams and events: reference sections "Stream Management" and "Event Management". A
// stream is a thread that carries out its entries one after another.
#include "fake.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

// wake_all lets every stream and everybody who waits look again.
void wake_all(void) {
	for (int i = 0; i < MAX_DEVICES; i++)
		for (struct stream *s = devices[i].ctx.streams; s; s = s->next)
			pthread_cond_broadcast(&s->wake);
	pthread_cond_broadcast(&done);
}

static void unref(struct stream *s) {
	if (--s->refs)
		return;
	pthread_cond_destroy(&s->wake);
	free(s);
}

static void point_unref(struct point *p) {
	if (p && !--p->refs)
		free(p);
}

// stream_is_dead: what is queued is not carried out any more.
bool stream_is_dead(struct stream *s) { return devices[s->ctx->device].sticky || s->ctx->dying; }

static CUresult dead_result(struct stream *s) {
	CUresult r = devices[s->ctx->device].sticky;
	return r ? r : CONTEXT_IS_DESTROYED;
}

// linger waits as long as tests have ordered.
static void linger(struct stream *s, struct work *w) {
	struct timespec until = delay_of(w->call);
	while (held(w->call) && !stream_is_dead(s))
		pthread_cond_wait(&s->wake, &mu);
	while (until.tv_sec && !stream_is_dead(s) && !pthread_cond_timedwait(&s->wake, &mu, &until))
		;
	while (w->waits && !w->point->done && !stream_is_dead(s))
		pthread_cond_wait(&done, &mu);
}

static void carry_out(struct stream *s, struct work *w) {
	CUresult r = OK;
	linger(s, w);
	if (!stream_is_dead(s)) {
		r = fault(w->call, true, s->ctx);
		if (!r && w->count)
			r = copy_perform(w, s->ctx);
	}
	if (r && !s->err)
		s->err = r;
	if (w->point && !w->waits) {
		w->point->err = stream_is_dead(s) ? dead_result(s) : s->err;
		s->err = OK;
		clock_gettime(CLOCK_MONOTONIC, &w->point->at);
		w->point->done = true;
	}
}

static void *run(void *arg) {
	struct stream *s = arg;
	pthread_mutex_lock(&mu);
	for (;;) {
		while (!s->head && !s->destroyed)
			pthread_cond_wait(&s->wake, &mu);
		struct work *w = s->head;
		if (!w)
			break;
		carry_out(s, w);
		s->head = w->next;
		s->completed++;
		point_unref(w->point);
		work_end(w);
		pthread_cond_broadcast(&done);
	}
	struct stream **at = &s->ctx->streams;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	s->ctx->workers--;
	pthread_cond_broadcast(&done);
	unref(s);
	pthread_mutex_unlock(&mu);
	return NULL;
}

// start runs a thread that no signal of the process reaches.
static bool start(struct stream *s) {
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	if (pthread_attr_init(&attr))
		return false;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	bool ok = !pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED) &&
		!pthread_attr_setstacksize(&attr, 512 << 10) && !pthread_create(&thread, &attr, run, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return ok;
}

static struct stream *stream_new(struct ctx *ctx, unsigned flags, int priority) {
	struct stream *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->ctx = ctx;
	s->flags = flags;
	s->priority = priority;
	s->refs = 2;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (!start(s)) {
		pthread_cond_destroy(&s->wake);
		free(s);
		return NULL;
	}
	ctx->workers++;
	s->next = ctx->streams;
	ctx->streams = s;
	return s;
}

// stream_find resolves a handle. 0, 1 and 2 are the default stream.
CUresult stream_find(struct ctx *ctx, CUstream h, struct stream **out) {
	if ((uintptr_t)h <= 2) {
		if (!ctx->standard)
			ctx->standard = stream_new(ctx, 0, 0);
		*out = ctx->standard;
		return ctx->standard ? OK : OUT_OF_MEMORY;
	}
	for (struct stream *s = ctx->streams; s; s = s->next)
		if (s == h && s != ctx->standard && !s->destroyed) {
			*out = s;
			return OK;
		}
	misuse("stream %p is none of this context", (void *)h);
	return INVALID_HANDLE;
}

// submit queues an entry, whose pieces the stream takes over.
CUresult submit(struct stream *s, struct work w) {
	struct work *own = malloc(sizeof *own);
	if (!own)
		return OUT_OF_MEMORY;
	*own = w;
	own->next = NULL;
	if (s->head)
		s->tail->next = own;
	else
		s->head = own;
	s->tail = own;
	s->submitted++;
	pthread_cond_broadcast(&s->wake);
	return OK;
}

// stream_wait waits for what is queued and gives the error that nobody has been told of.
CUresult stream_wait(struct stream *s) {
	unsigned long long target = s->submitted;
	s->refs++;
	while (s->completed < target && !stream_is_dead(s))
		pthread_cond_wait(&done, &mu);
	CUresult r = sticky(s->ctx->device);
	if (!r && s->completed < target)
		r = CONTEXT_IS_DESTROYED;
	if (!r) {
		r = s->err;
		s->err = OK;
	}
	unref(s);
	return r;
}

static CUresult stream_create(enum call call, CUstream *out, unsigned flags, int priority) {
	struct ctx *ctx;
	CUresult r = enter(call, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!out || flags > 1)
		return leave(INVALID_VALUE);
	struct stream *s = stream_new(ctx, flags, priority);
	if (!s)
		return leave(OUT_OF_MEMORY);
	*out = s;
	return leave(OK);
}

API CUresult cuStreamCreate(CUstream *s, unsigned flags) { return stream_create(CALL_cuStreamCreate, s, flags, 0); }

API CUresult cuStreamCreateWithPriority(CUstream *s, unsigned flags, int priority) {
	return stream_create(CALL_cuStreamCreateWithPriority, s, flags, priority > 0 ? 0 : priority < -5 ? -5 : priority);
}

// resolve is the beginning of a call about a stream.
static CUresult resolve(enum call call, CUstream h, struct ctx **ctx, struct stream **s) {
	CUresult r = enter(call, NEED_CONTEXT, ctx);
	if (r)
		return r;
	if ((r = stream_find(*ctx, h, s)))
		return leave(r);
	return OK;
}

// cuStreamDestroy returns at once; the stream goes when its entries are done.
API CUresult cuStreamDestroy_v2(CUstream h) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = resolve(CALL_cuStreamDestroy, h, &ctx, &s);
	if (r)
		return r;
	if (s == ctx->standard)
		return leave(INVALID_HANDLE);
	s->destroyed = true;
	pthread_cond_broadcast(&s->wake);
	unref(s);
	return leave(OK);
}

API CUresult cuStreamGetFlags(CUstream h, unsigned *flags) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = resolve(CALL_cuStreamGetFlags, h, &ctx, &s);
	if (r)
		return r;
	if (!flags)
		return leave(INVALID_VALUE);
	*flags = s->flags;
	return leave(OK);
}

API CUresult cuStreamGetPriority(CUstream h, int *priority) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = resolve(CALL_cuStreamGetPriority, h, &ctx, &s);
	if (r)
		return r;
	if (!priority)
		return leave(INVALID_VALUE);
	*priority = s->priority;
	return leave(OK);
}

API CUresult cuStreamQuery(CUstream h) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = resolve(CALL_cuStreamQuery, h, &ctx, &s);
	if (r)
		return r;
	if (s->completed < s->submitted)
		return leave(NOT_READY);
	r = s->err;
	s->err = OK;
	return leave(r);
}

API CUresult cuStreamSynchronize(CUstream h) {
	struct ctx *ctx;
	struct stream *s;
	CUresult r = resolve(CALL_cuStreamSynchronize, h, &ctx, &s);
	if (r)
		return r;
	return leave(stream_wait(s));
}

API CUresult cuEventCreate(CUevent *out, unsigned flags) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuEventCreate, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	if (!out || flags > 7 || (flags & 6) == 4) // for other processes only without timing
		return leave(INVALID_VALUE);
	struct event *e = calloc(1, sizeof *e);
	if (!e)
		return leave(OUT_OF_MEMORY);
	e->ctx = ctx;
	e->flags = flags;
	e->next = ctx->events;
	ctx->events = e;
	*out = e;
	return leave(OK);
}

static struct event **event_at(CUevent h) {
	for (int i = 0; i < device_count; i++)
		for (struct event **e = &devices[i].ctx.events; *e; e = &(*e)->next)
			if (*e == h)
				return e;
	misuse("event %p is none", (void *)h);
	return NULL;
}

// resolve_event is the beginning of a call about an event.
static CUresult resolve_event(enum call call, CUevent h, struct ctx **ctx, struct event **e) {
	CUresult r = enter(call, NEED_CONTEXT, ctx);
	if (r)
		return r;
	struct event **at = event_at(h);
	if (!at)
		return leave(INVALID_HANDLE);
	*e = *at;
	if ((r = sticky((*e)->ctx->device)))
		return leave(r);
	return OK;
}

// cuEventDestroy may be called before the event is reached.
API CUresult cuEventDestroy_v2(CUevent h) {
	struct ctx *ctx;
	struct event *e;
	CUresult r = resolve_event(CALL_cuEventDestroy, h, &ctx, &e);
	if (r)
		return r;
	struct event **at = event_at(h);
	if (!at) // another thread was faster while sticky waited
		return leave(INVALID_HANDLE);
	*at = e->next;
	point_unref(e->point);
	free(e);
	return leave(OK);
}

API CUresult cuEventRecord(CUevent h, CUstream hs) {
	struct ctx *ctx;
	struct event *e;
	struct stream *s;
	CUresult r = resolve_event(CALL_cuEventRecord, h, &ctx, &e);
	if (r)
		return r;
	if (e->ctx != ctx)
		return leave(INVALID_HANDLE);
	if ((r = stream_find(ctx, hs, &s)))
		return leave(r);
	struct point *p = calloc(1, sizeof *p);
	if (!p)
		return leave(OUT_OF_MEMORY);
	p->refs = 2;
	if ((r = submit(s, (struct work){.call = CALL_cuEventRecord, .fill = -1, .point = p}))) {
		free(p);
		return leave(r);
	}
	point_unref(e->point);
	e->point = p;
	return leave(OK);
}

API CUresult cuEventQuery(CUevent h) {
	struct ctx *ctx;
	struct event *e;
	CUresult r = resolve_event(CALL_cuEventQuery, h, &ctx, &e);
	if (r)
		return r;
	if (!e->point)
		return leave(OK);
	return leave(e->point->done ? e->point->err : NOT_READY);
}

API CUresult cuEventSynchronize(CUevent h) {
	struct ctx *ctx;
	struct event *e;
	CUresult r = resolve_event(CALL_cuEventSynchronize, h, &ctx, &e);
	if (r)
		return r;
	struct point *p = e->point;
	int device = e->ctx->device;
	if (!p)
		return leave(OK);
	p->refs++; // the event may be destroyed or recorded again meanwhile
	while (!p->done && !devices[device].sticky)
		pthread_cond_wait(&done, &mu);
	r = sticky(device);
	if (!r)
		r = p->err;
	point_unref(p);
	return leave(r);
}

API CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
	struct ctx *ctx;
	struct event *a, *b;
	CUresult r = resolve_event(CALL_cuEventElapsedTime, from, &ctx, &a);
	if (r)
		return r;
	struct event **at = event_at(to);
	if (!at || !ms)
		return leave(at ? INVALID_VALUE : INVALID_HANDLE);
	b = *at;
	if (!a->point || !b->point || (a->flags | b->flags) & 2)
		return leave(INVALID_HANDLE);
	if (!a->point->done || !b->point->done)
		return leave(NOT_READY);
	*ms = (b->point->at.tv_sec - a->point->at.tv_sec) * 1e3f + (b->point->at.tv_nsec - a->point->at.tv_nsec) / 1e6f;
	return leave(OK);
}

API CUresult cuStreamWaitEvent(CUstream hs, CUevent h, unsigned flags) {
	struct ctx *ctx;
	struct event *e;
	struct stream *s;
	CUresult r = resolve_event(CALL_cuStreamWaitEvent, h, &ctx, &e);
	if (r)
		return r;
	if (flags > 1)
		return leave(INVALID_VALUE);
	if ((r = stream_find(ctx, hs, &s)))
		return leave(r);
	if (!e->point)
		return leave(OK);
	e->point->refs++;
	r = submit(s, (struct work){.call = CALL_cuStreamWaitEvent, .fill = -1, .point = e->point, .waits = true});
	if (r)
		e->point->refs--;
	return leave(r);
}
