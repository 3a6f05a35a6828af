package diskstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	gosync "sync"

	"golang.org/x/sys/unix"
)

// memFS is a directory in memory that knows what a power loss would leave, and
// fails the calls that it is told to fail.
type memFS struct {
	mu      gosync.Mutex
	names   map[string]*memNode // as the process sees them
	durable map[string]*memNode // as the device has them
	calls   int
	// fault, if not nil, is asked before each call.
	fault func(call int, op string) faultKind
	down  bool // every call fails: the machine is gone
	limit int  // bytes that files may have together; 0: any
}

type memNode struct {
	data   []byte       // as the process sees it
	synced []byte       // as the device has it
	dirty  map[int]bool // pages that the next Sync writes
}

const memPage = 512

type faultKind int

const (
	noFault    faultKind = iota
	failEIO              // fails without effect; a Sync loses the dirty pages
	failFull             // ENOSPC after half of the bytes
	shortWrite           // half of the bytes, without an error
	tornCrash            // half of the bytes, then the machine stops
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"none", "EIO", "ENOSPC", "short write", "torn write and crash"}[k]
}

var errDown = errors.New("the machine is down")

// state is how many calls there were, and whether the machine is down.
func (m *memFS) state() (calls int, down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls, m.down
}

// inject sets the source of faults, and continues its count of calls.
func (m *memFS) inject(fault func(call int, op string) faultKind, calls int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.calls = fault, calls
}

func newMemFS() *memFS {
	return &memFS{names: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// enter counts a call and says how it fails. m.mu is held.
func (m *memFS) enter(op string) (faultKind, error) {
	if m.down {
		return noFault, errDown
	}
	m.calls++
	k := noFault
	if m.fault != nil {
		k = m.fault(m.calls, op)
	}
	switch {
	case k == noFault:
		return k, nil
	case op == "write":
		return k, nil // the write itself does it
	case k == failEIO:
		return k, unix.EIO
	case k == failFull && (op == "create" || op == "rename"):
		return k, unix.ENOSPC
	case k == shortWrite && op == "read":
		return k, nil
	case k == tornCrash:
		m.down = true
		return k, errDown
	}
	return noFault, nil
}

func (m *memFS) Open(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter("open"); err != nil {
		return nil, err
	}
	n, ok := m.names[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &memFile{m, n}, nil
}

func (m *memFS) Create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter("create"); err != nil {
		return nil, err
	}
	if m.names[name] != nil {
		return nil, fmt.Errorf("create %s: %w", name, fs.ErrExist)
	}
	n := &memNode{dirty: map[int]bool{}}
	m.names[name] = n
	return &memFile{m, n}, nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter("remove"); err != nil {
		return err
	}
	delete(m.names, name)
	return nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter("rename"); err != nil {
		return err
	}
	m.names[to] = m.names[from]
	delete(m.names, from)
	return nil
}

func (m *memFS) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter("list"); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(m.names)), nil
}

func (m *memFS) SyncDir() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter("syncdir"); err != nil {
		return err
	}
	m.durable = maps.Clone(m.names)
	return nil
}

func (m *memFS) Free() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free(), nil
}

// free is what limit leaves. m.mu is held.
func (m *memFS) free() int64 {
	if m.limit == 0 {
		return math.MaxInt64
	}
	free := int64(m.limit)
	for _, n := range m.names {
		free -= int64(len(n.data))
	}
	return free
}

type memFile struct {
	m *memFS
	*memNode
}

func (f *memFile) ReadV(bufs [][]byte, off int64) (n int, err error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	k, err := f.m.enter("read")
	if err != nil {
		return 0, err
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	for _, b := range bufs {
		c := copy(b, f.data[min(off+int64(n), int64(len(f.data))):])
		if k == shortWrite && c > 1 {
			return n + c/2, nil
		}
		n += c
		if c < len(b) {
			break
		}
	}
	return n, nil
}

func (f *memFile) WriteV(bufs [][]byte, off int64) (n int, err error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	k, err := f.m.enter("write")
	if err != nil {
		return 0, err
	}
	p := slices.Concat(bufs...)
	switch k {
	case failEIO:
		return 0, unix.EIO
	case failFull, tornCrash, shortWrite:
		p = p[:len(p)/2]
	}
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		if end-int64(len(f.data)) > f.m.free() {
			return 0, unix.ENOSPC
		}
		f.data = append(f.data, make([]byte, end-int64(len(f.data)))...)
	}
	copy(f.data[off:], p)
	for page := off / memPage; page*memPage < off+int64(len(p)); page++ {
		f.dirty[int(page)] = true
	}
	switch k {
	case failFull:
		return 0, unix.ENOSPC
	case tornCrash:
		f.m.down = true
		return 0, errDown
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.enter("sync"); err != nil {
		if err == unix.EIO {
			clear(f.dirty) // the kernel takes them for clean, but they were never written
		}
		return err
	}
	f.synced = resize(f.synced, len(f.data))
	for page := range f.dirty {
		copyPage(f.synced, f.data, page)
	}
	clear(f.dirty)
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.m.enter("truncate"); err != nil {
		return err
	}
	f.data = resize(f.data, int(size))
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	_, err := f.m.enter("size")
	return int64(len(f.data)), err
}

func (f *memFile) Close() error { return nil }

func resize(p []byte, n int) []byte {
	if n <= len(p) {
		return p[:n:n]
	}
	return append(p[:len(p):len(p)], make([]byte, n-len(p))...)
}

func copyPage(dst, src []byte, page int) {
	from := page * memPage
	if from < min(len(dst), len(src)) {
		copy(dst[from:min(from+memPage, len(dst))], src[from:])
	}
}

// afterKill is what the next process finds when this one is killed.
func (m *memFS) afterKill() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	to := newMemFS()
	nodes := map[*memNode]*memNode{}
	clone := func(n *memNode) *memNode {
		if nodes[n] == nil {
			nodes[n] = &memNode{slices.Clone(n.data), slices.Clone(n.synced), maps.Clone(n.dirty)}
		}
		return nodes[n]
	}
	for name, n := range m.names {
		to.names[name] = clone(n)
	}
	for name, n := range m.durable {
		to.durable[name] = clone(n)
	}
	return to
}

// afterPowerLoss is what the device holds: of what was not synced, any pages and
// any names.
func (m *memFS) afterPowerLoss(r *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	to := newMemFS()
	names := maps.Clone(m.durable)
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		if r.IntN(2) == 0 {
			names[name] = m.names[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.durable)) {
		if m.names[name] == nil && r.IntN(2) == 0 {
			delete(names, name)
		}
	}
	for name, n := range names {
		p := slices.Clone(n.synced)
		if r.IntN(2) == 0 {
			p = resize(p, len(n.data))
		}
		for page := 0; page*memPage < len(n.data); page++ {
			if r.IntN(2) == 0 {
				copyPage(p, n.data, page)
			}
		}
		node := &memNode{data: p, synced: slices.Clone(p), dirty: map[int]bool{}}
		to.names[name], to.durable[name] = node, node
	}
	return to
}
