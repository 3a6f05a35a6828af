// Memory shared by processes: cuIpcGetMemHandle and its kin in reference section "Memory
// Management".
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trailer.h"

static const char magic[8] = "fakedrv1";

struct trailer {
	char magic[8];
	unsigned char cookie[16];
	size_t size;
	atomic_int valid, users;
};

// A handle, as it travels.
struct handle {
	char magic[8];
	int pid, fd;
	size_t size;
	unsigned char cookie[16];
	unsigned char rest[24];
};
_Static_assert(sizeof(struct handle) == sizeof(CUipcMemHandle), "a handle has 64 bytes");

static size_t page(void) { return sysconf(_SC_PAGESIZE); }
static off_t trailer_offset(size_t size) { return (size + page() - 1) / page() * page(); }

int trailer_file(size_t size) {
	if (size > (size_t)1 << 60)
		return -1;
	int fd = memfd_create("fake driver", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, trailer_offset(size) + page())) {
		close(fd);
		return -1;
	}
	return fd;
}

bool trailer_map(struct alloc *a) {
	struct trailer *t = mmap(NULL, page(), PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, trailer_offset(a->size));
	if (t == MAP_FAILED)
		return false;
	if (a->imported) {
		memcpy(a->cookie, t->cookie, sizeof a->cookie);
		atomic_fetch_add(&t->users, 1);
	} else {
		if (getrandom(a->cookie, sizeof a->cookie, 0) != sizeof a->cookie) {
			munmap(t, page());
			return false;
		}
		memcpy(t->magic, magic, sizeof magic);
		memcpy(t->cookie, a->cookie, sizeof a->cookie);
		t->size = a->size;
		atomic_store(&t->valid, 1);
	}
	a->trailer = t;
	return true;
}

void trailer_end(struct alloc *a) {
	if (a->imported)
		atomic_fetch_sub(&a->trailer->users, 1);
	else
		atomic_store(&a->trailer->valid, 0);
	munmap(a->trailer, page());
	a->trailer = NULL;
}

bool trailer_valid(struct alloc *a) { return atomic_load(&a->trailer->valid); }
int trailer_users(struct alloc *a) { return atomic_load(&a->trailer->users); }

API CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr p) {
	CUresult r = enter(CALL_cuIpcGetMemHandle, NEED_CONTEXT, NULL);
	if (r)
		return r;
	struct alloc *a;
	if (!out)
		return leave(INVALID_VALUE);
	if ((r = find(p, 1, "cuIpcGetMemHandle", &a)))
		return leave(r);
	if (a->base != p || a->imported) {
		misuse("cuIpcGetMemHandle: %#llx is not what cuMemAlloc has returned", p);
		return leave(INVALID_VALUE);
	}
	if (a->size < BLOCK)
		misuse("cuIpcGetMemHandle: %#llx of %zu bytes lies with others in a block, all of which the handle opens", p, a->size);
	struct handle h = {.pid = getpid(), .fd = a->fd, .size = a->size};
	memcpy(h.magic, magic, sizeof magic);
	memcpy(h.cookie, a->cookie, sizeof h.cookie);
	memcpy(out, &h, sizeof h);
	return leave(OK);
}

// open_file opens the file of a handle, if it is still that of the handle.
static int open_file(const struct handle *h) {
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", h->pid, h->fd);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	struct trailer t;
	off_t at = trailer_offset(h->size);
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size == at + (off_t)page() &&
		pread(fd, &t, sizeof t, at) == sizeof t && !memcmp(t.magic, magic, sizeof magic) &&
		!memcmp(t.cookie, h->cookie, sizeof t.cookie) && t.size == h->size && atomic_load(&t.valid))
		return fd;
	close(fd);
	return -1;
}

API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *p, CUipcMemHandle handle, unsigned flags) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuIpcOpenMemHandle, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	struct handle h;
	memcpy(&h, &handle, sizeof h);
	if (!p || flags != 1) // CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, the only flag, must be set
		return leave(INVALID_VALUE);
	if (memcmp(h.magic, magic, sizeof magic) || h.size > (size_t)1 << 60)
		return leave(INVALID_HANDLE);
	if (h.pid == getpid()) {
		misuse("cuIpcOpenMemHandle: the handle is of this process");
		return leave(INVALID_CONTEXT);
	}
	struct alloc *a = alloc_by_cookie(ctx, h.cookie);
	if (a && trailer_valid(a)) {
		a->opens++;
		*p = a->base;
		return leave(OK);
	}
	int fd = open_file(&h);
	if (fd < 0)
		return leave(INVALID_HANDLE);
	if ((r = alloc_add(ctx, fd, h.size, true, &a))) {
		close(fd);
		return leave(r);
	}
	a->opens = 1;
	*p = a->base;
	return leave(OK);
}

API CUresult cuIpcCloseMemHandle(CUdeviceptr p) {
	struct ctx *ctx;
	CUresult r = enter(CALL_cuIpcCloseMemHandle, NEED_CONTEXT, &ctx);
	if (r)
		return r;
	struct alloc *a = import_at(p);
	if (!a) {
		misuse("cuIpcCloseMemHandle: %#llx is not mapped", p);
		return leave(INVALID_VALUE);
	}
	if (--a->opens)
		return leave(OK);
	if (a->queued)
		misuse("cuIpcCloseMemHandle: %#llx is used by %d copies under way", p, a->queued);
	alloc_end(a);
	return leave(OK);
}
