// What every call goes through: counters, injected errors, the current context, the error
// that stays.
#include "fake.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t done = PTHREAD_COND_INITIALIZER;
struct device devices[MAX_DEVICES];
int device_count = DEFAULT_DEVICES;
long long dropped;

static const struct {
	const char *name;
	bool queues;
} table[CALL_COUNT] = {
#define X(name, queues) {#name, queues},
	CALLS(X)
#undef X
};

static bool initialized;
static long long counted[CALL_COUNT];

// What is to go wrong.
static struct trap {
	bool armed, queued, sticky;
	enum call call;
	long long at; // how many calls more
	CUresult result;
} traps[64];
static long long delays[CALL_COUNT]; // nanoseconds
static bool holds[CALL_COUNT];

static struct {
	char text[128][200];
	int n;
	long long more; // that found no room
} ledger;

const char *name_of(enum call call) { return table[call].name; }

void misuse(const char *format, ...) {
	if (ledger.n == sizeof ledger.text / sizeof *ledger.text) {
		ledger.more++;
		return;
	}
	va_list args;
	va_start(args, format);
	vsnprintf(ledger.text[ledger.n++], sizeof *ledger.text, format, args);
	va_end(args);
}

// fault gives the error that was ordered for this call, if any.
CUresult fault(enum call call, bool queued, struct ctx *ctx) {
	CUresult r = OK;
	for (size_t i = 0; i < sizeof traps / sizeof *traps; i++) {
		struct trap *t = &traps[i];
		if (!t->armed || t->queued != queued || (t->call != call && t->call != CALL_ANY))
			continue;
		if (--t->at > 0)
			continue;
		t->armed = false;
		r = t->result;
		if (t->sticky && ctx)
			lose(ctx->device, r);
	}
	return r;
}

// sticky is the error that all calls of a device give from now on. Whoever is told of it
// may rely on the device touching no memory any more.
CUresult sticky(int device) {
	struct device *d = &devices[device];
	while (d->sticky && d->copying)
		pthread_cond_wait(&done, &mu);
	return d->sticky;
}

void lose(int device, CUresult result) {
	if (!devices[device].sticky)
		devices[device].sticky = result;
	wake_all();
}

// enter begins a call: it returns OK with mu held, or the error with which the call must
// return at once.
CUresult enter(enum call call, enum need need, struct ctx **out) {
	CUresult r;
	pthread_mutex_lock(&mu);
	counted[call]++;
	if (delays[call] && !table[call].queues) {
		struct timespec t = {delays[call] / 1000000000, delays[call] % 1000000000};
		pthread_mutex_unlock(&mu);
		while (nanosleep(&t, &t) && errno == EINTR)
			;
		pthread_mutex_lock(&mu);
	}
	struct ctx *ctx = current();
	if ((r = fault(call, false, ctx))) {
		if (ctx)
			sticky(ctx->device); // it may have become that
		return leave(r);
	}
	if (need >= NEED_INIT && !initialized)
		return leave(NOT_INITIALIZED);
	if (need >= NEED_CONTEXT) {
		if (!ctx)
			return leave(INVALID_CONTEXT);
		if ((r = sticky(ctx->device)))
			return leave(r);
		if (!ctx->alive)
			return leave(CONTEXT_IS_DESTROYED);
	}
	if (out)
		*out = ctx;
	return OK;
}

CUresult leave(CUresult r) {
	pthread_mutex_unlock(&mu);
	return r;
}

bool held(enum call call) { return holds[call]; }

struct timespec delay_of(enum call call) {
	struct timespec t = {0, 0};
	if (!delays[call])
		return t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	long long ns = t.tv_nsec + delays[call];
	t.tv_sec += ns / 1000000000;
	t.tv_nsec = ns % 1000000000;
	return t;
}

API CUresult cuInit(unsigned flags) {
	CUresult r = enter(CALL_cuInit, NEED_NOTHING, NULL);
	if (r)
		return r;
	if (flags)
		return leave(INVALID_VALUE);
	if (!device_count)
		return leave(NO_DEVICE);
	initialized = true;
	return leave(OK);
}

// What follows is for tests. No such name exists in a real driver.

// find_call gives the index of a name, with or without its _v2; CALL_ANY for "" and
// CALL_COUNT for one that is not known.
static enum call find_call(const char *name) {
	size_t n = strlen(name);
	if (!n)
		return CALL_ANY;
	if (n > 3 && !strcmp(name + n - 3, "_v2"))
		n -= 3;
	for (int i = 0; i < CALL_COUNT; i++)
		if (strlen(table[i].name) == n && !strncmp(table[i].name, name, n))
			return i;
	return CALL_COUNT;
}

API const char *fake_call_name(int i) { return i >= 0 && i < CALL_COUNT ? table[i].name : NULL; }

API int fake_fail(const char *call, long long at, int result, int stays, int queued) {
	enum call c = find_call(call);
	if (c == CALL_COUNT || at < 1 || result == OK)
		return -1;
	pthread_mutex_lock(&mu);
	for (size_t i = 0; i < sizeof traps / sizeof *traps; i++) {
		if (traps[i].armed)
			continue;
		traps[i] = (struct trap){true, queued, stays, c, at, result};
		return leave(0);
	}
	return leave(-1);
}

API int fake_pending(void) {
	int n = 0;
	pthread_mutex_lock(&mu);
	for (size_t i = 0; i < sizeof traps / sizeof *traps; i++)
		n += traps[i].armed;
	return leave(n);
}

API int fake_delay(const char *call, long long ns) {
	enum call c = find_call(call);
	if (c == CALL_COUNT || ns < 0)
		return -1;
	pthread_mutex_lock(&mu);
	for (int i = 0; i < CALL_COUNT; i++)
		if (i == c || (c == CALL_ANY && table[i].queues))
			delays[i] = ns;
	wake_all();
	return leave(0);
}

API int fake_hold(const char *call, int on) {
	enum call c = find_call(call);
	if (c == CALL_COUNT)
		return -1;
	pthread_mutex_lock(&mu);
	for (int i = 0; i < CALL_COUNT; i++)
		if (i == c || (c == CALL_ANY && table[i].queues))
			holds[i] = on;
	wake_all();
	return leave(0);
}

API long long fake_calls(const char *call) {
	enum call c = find_call(call);
	if (c == CALL_COUNT)
		return -1;
	long long n = 0;
	pthread_mutex_lock(&mu);
	for (int i = 0; i < CALL_COUNT; i++)
		if (i == c || c == CALL_ANY)
			n += counted[i];
	pthread_mutex_unlock(&mu);
	return n;
}

API int fake_misuse(int i, char *text, int n) {
	pthread_mutex_lock(&mu);
	if (i < ledger.n)
		snprintf(text, n, "%s", ledger.text[i]);
	else if (i == ledger.n && ledger.more)
		snprintf(text, n, "and %lld more", ledger.more);
	else
		return leave(0);
	return leave(1);
}

// restore takes back what was ordered and heals the devices; what they hold stays.
static void restore(void) {
	memset(traps, 0, sizeof traps);
	memset(delays, 0, sizeof delays);
	memset(holds, 0, sizeof holds);
	for (int i = 0; i < MAX_DEVICES; i++)
		devices[i].sticky = OK;
	wake_all();
}

API void fake_restore(void) {
	pthread_mutex_lock(&mu);
	restore();
	pthread_mutex_unlock(&mu);
}

static void defaults(void);

// fake_reset ends every context, takes it from all threads and makes everything as it was
// when the driver was loaded, except that it stays initialized.
API void fake_reset(void) {
	pthread_mutex_lock(&mu);
	memset(holds, 0, sizeof holds);
	for (int i = 0; i < MAX_DEVICES; i++)
		ctx_end(&devices[i].ctx, false);
	restore();
	contexts_forget();
	allocs_forget();
	memset(counted, 0, sizeof counted);
	memset(&ledger, 0, sizeof ledger);
	dropped = 0;
	defaults();
	pthread_mutex_unlock(&mu);
}

API void fake_lose(int device, int result) {
	pthread_mutex_lock(&mu);
	if (is_device(device) && result) {
		lose(device, result);
		sticky(device);
	}
	pthread_mutex_unlock(&mu);
}

API int fake_set_memory(int device, long long bytes) {
	if (bytes < 0)
		return -1;
	pthread_mutex_lock(&mu);
	if (!is_device(device))
		return leave(-1);
	devices[device].memory = bytes;
	return leave(0);
}

API int fake_devices(int n) {
	if (n < 0 || n > MAX_DEVICES)
		return -1;
	pthread_mutex_lock(&mu);
	device_count = n;
	return leave(0);
}

static long long number(const char *name, long long otherwise, long long most) {
	const char *s = getenv(name);
	if (!s || !*s)
		return otherwise;
	char *end;
	long long n = strtoll(s, &end, 10);
	if (!*end && n >= 0 && n <= most)
		return n;
	fprintf(stderr, "fake driver: %s=%s is not a number from 0 to %lld\n", name, s, most);
	return otherwise;
}

static void defaults(void) {
	device_count = (int)number("CAIRN_FAKE_DEVICES", DEFAULT_DEVICES, MAX_DEVICES);
	long long memory = number("CAIRN_FAKE_MEMORY", DEFAULT_MEMORY, 1ll << 50);
	for (int i = 0; i < MAX_DEVICES; i++) {
		devices[i].ctx.device = i;
		devices[i].memory = memory;
	}
}

// A process that nobody can reach with fake_ calls is told by its environment what to do.
__attribute__((constructor)) static void configure(void) {
	defaults();
	const char *s = getenv("CAIRN_FAKE_FAIL");
	while (s && *s) { // call:at:result:sticky:queued, separated by commas
		char call[64];
		long long at;
		int result, stays = 0, queued = 0;
		if (sscanf(s, "%63[^:,]:%lld:%d:%d:%d", call, &at, &result, &stays, &queued) < 3 ||
			fake_fail(strcmp(call, "*") ? call : "", at, result, stays, queued))
			fprintf(stderr, "fake driver: CAIRN_FAKE_FAIL: want call:at:result[:sticky[:queued]], not %s\n", s);
		s = strchr(s, ',');
		s = s ? s + 1 : NULL;
	}
}
