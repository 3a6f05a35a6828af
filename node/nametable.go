package node

import (
	"sync"
	"sync/atomic"

	"cairn/block"
	"cairn/coherency/ledger"
)

// nameTable is the newest pointer of every named block of the cluster, as the log
// has it. It is a ledger.Table whose readers run in parallel with its one writer.
// Its entries hold no Go pointers, so that a million of them cost the collector
// nothing; the names' bytes lie in a few large chunks.
type nameTable struct {
	shards [shards]nameShard
	spaces atomic.Pointer[[]*nameSpace] // by number; only grows
	chunks atomic.Pointer[[][]byte]     // by number; nil where one was given back
	size   atomic.Int64

	// The rest is the writer's alone.
	interned map[string]uint16
	open     int         // the chunk that is being filled, -1: none
	fill     int         // bytes of it that are taken
	used     int         // bytes of names in all chunks, dead ones included
	dead     int         // of these, bytes of names that are gone
	left     []block.Key // objects that no pointer names any more, since takeLeft
}

// nameShard is one part of the table.
type nameShard struct {
	// mu guards names.
	mu    sync.RWMutex
	names map[block.Key]nameEntry
}

// nameSpace is what the table knows of one namespace.
type nameSpace struct {
	name    string
	live    atomic.Int64  // names that are not absent
	cleared atomic.Uint64 // place of the last Clear
}

// nameEntry is a ledger.Pointer without Go pointers, in 96 bytes.
type nameEntry struct {
	object      block.Key
	version     ledger.Version
	sum         uint64
	expires     int64
	changed     ledger.Place
	token       ledger.Version
	incarnation uint64
	length      uint32
	chunk       uint32
	offset      uint32
	size        uint32
	homes       ledger.Homes
	owner       uint16
	space       uint16
	copies      uint8
	lease       bool
}

// nameChunk is the size of a chunk of names in bytes; a longer name gets a chunk of
// its own.
const nameChunk = 1 << 20

var _ ledger.Table = (*nameTable)(nil)

func newNameTable() *nameTable {
	t := &nameTable{interned: map[string]uint16{}, open: -1}
	t.spaces.Store(new([]*nameSpace))
	t.chunks.Store(new([][]byte))
	return t
}

// Load implements ledger.Table. Pointer.Name, here and below, is the table's memory,
// which stays as it is and must not be written to.
func (t *nameTable) Load(key block.Key) (ledger.Pointer, bool) {
	s := &t.shards[shardOf(key)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.names[key]
	if !ok {
		return ledger.Pointer{Key: key}, false
	}
	return t.expand(key, &e), true
}

// lookup is Load for readers: a name that was cleared with its namespace is absent.
func (t *nameTable) lookup(key block.Key) (ledger.Pointer, bool) {
	p, ok := t.Load(key)
	if ok {
		t.mask(&p)
	}
	return p, ok
}

// mask shows what a Clear has made of a pointer, as the ledger does.
func (t *nameTable) mask(p *ledger.Pointer) {
	sp := t.space(p.Namespace)
	if sp == nil {
		return
	}
	if c := ledger.Place(sp.cleared.Load()); ledger.Version(c) > p.Version {
		p.Version, p.Value = ledger.Version(c), ledger.Value{}
		p.Changed = max(p.Changed, c)
	}
}

// space finds a namespace among the few that there are.
func (t *nameTable) space(name string) *nameSpace {
	for _, sp := range *t.spaces.Load() {
		if sp.name == name {
			return sp
		}
	}
	return nil
}

// Store implements ledger.Table.
func (t *nameTable) Store(p ledger.Pointer) {
	number := t.intern(p.Namespace)
	sp := (*t.spaces.Load())[number]
	s := &t.shards[shardOf(p.Key)]
	old, known := s.names[p.Key] // the writer may read without the lock
	e := nameEntry{
		object: p.Value.Object, version: p.Version, sum: p.Value.Sum, expires: p.Value.Expires, changed: p.Changed,
		token: p.Token, incarnation: p.OwnerIncarnation, length: p.Value.Length, homes: p.Value.Homes,
		chunk: old.chunk, offset: old.offset, size: old.size, owner: p.Owner, space: number, copies: p.Copies, lease: p.Lease,
	}
	if old.object != e.object && !old.object.IsZero() {
		t.left = append(t.left, old.object)
	}
	if e.size == 0 && len(p.Name) > 0 {
		e.chunk, e.offset = t.keep(p.Name)
		e.size = uint32(len(p.Name))
	}
	cleared := ledger.Version(sp.cleared.Load())
	delta := counts(&e, cleared)
	if known {
		delta -= counts(&old, cleared)
	} else {
		t.size.Add(1)
	}
	if delta != 0 {
		sp.live.Add(int64(delta))
	}
	s.mu.Lock()
	if s.names == nil {
		s.names = make(map[block.Key]nameEntry)
	}
	s.names[p.Key] = e
	s.mu.Unlock()
}

// counts is 1 for a name that is not absent.
func counts(e *nameEntry, cleared ledger.Version) int {
	if e.object.IsZero() || e.version < cleared {
		return 0
	}
	return 1
}

// takeLeft returns the objects that pointers have left since the last call. What a Clear
// hides stays in the table until its name changes.
func (t *nameTable) takeLeft() []block.Key {
	list := t.left
	t.left = nil
	return list
}

// Delete implements ledger.Table.
func (t *nameTable) Delete(key block.Key) {
	s := &t.shards[shardOf(key)]
	e, ok := s.names[key]
	if !ok {
		return
	}
	sp := (*t.spaces.Load())[e.space]
	sp.live.Add(-int64(counts(&e, ledger.Version(sp.cleared.Load()))))
	s.mu.Lock()
	delete(s.names, key)
	s.mu.Unlock()
	t.size.Add(-1)
	if !e.object.IsZero() { // it was hidden by a Clear
		t.left = append(t.left, e.object)
	}
	t.dead += int(e.size)
	if t.dead > t.used/2 && t.dead > nameChunk {
		t.compact()
	}
}

// Range implements ledger.Table. What changes meanwhile may be seen before or after
// its change; yield may use the table.
func (t *nameTable) Range(yield func(ledger.Pointer) bool) {
	var list []ledger.Pointer
	for shard := range shards {
		list = t.scan(shard, list[:0])
		for _, p := range list {
			if !yield(p) {
				return
			}
		}
	}
}

// scan appends the pointers of one shard, as Load returns them.
func (t *nameTable) scan(shard int, to []ledger.Pointer) []ledger.Pointer {
	s := &t.shards[shard]
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, e := range s.names {
		to = append(to, t.expand(k, &e))
	}
	return to
}

// reset forgets everything.
func (t *nameTable) reset() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.names = nil
		s.mu.Unlock()
	}
	t.size.Store(0)
	for _, sp := range *t.spaces.Load() {
		sp.live.Store(0)
		sp.cleared.Store(0)
	}
	t.chunks.Store(new([][]byte))
	t.open, t.fill, t.used, t.dead = -1, 0, 0, 0
}

// Len implements ledger.Table.
func (t *nameTable) Len() int { return int(t.size.Load()) }

// live is the number of names that are not absent in a namespace.
func (t *nameTable) live(namespace string) int {
	if sp := t.space(namespace); sp != nil {
		return int(sp.live.Load())
	}
	return 0
}

// liveAll is live of all namespaces.
func (t *nameTable) liveAll() int {
	total := 0
	for _, sp := range *t.spaces.Load() {
		total += int(sp.live.Load())
	}
	return total
}

// clear makes every name of a namespace absent whose version is older than place, and
// calls hidden, if it is not nil, for each that had an object.
func (t *nameTable) clear(namespace string, place ledger.Place, hidden func(name, object block.Key)) {
	number := t.intern(namespace)
	sp := (*t.spaces.Load())[number]
	sp.cleared.Store(uint64(place))
	live := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for k, e := range s.names {
			if e.space != number {
				continue
			}
			n := counts(&e, ledger.Version(place))
			live += n
			if n == 0 && hidden != nil && !e.object.IsZero() {
				hidden(k, e.object)
			}
		}
		s.mu.RUnlock()
	}
	sp.live.Store(int64(live))
}

func (t *nameTable) expand(key block.Key, e *nameEntry) ledger.Pointer {
	return ledger.Pointer{
		Key: key, Namespace: (*t.spaces.Load())[e.space].name, Name: t.text(e), Version: e.version,
		Value:   ledger.Value{Object: e.object, Length: e.length, Sum: e.sum, Expires: e.expires, Homes: e.homes},
		Changed: e.changed, Token: e.token, Owner: e.owner, OwnerIncarnation: e.incarnation, Copies: e.copies, Lease: e.lease,
	}
}

// text is what the user calls the name.
func (t *nameTable) text(e *nameEntry) []byte {
	if e.size == 0 {
		return nil
	}
	return (*t.chunks.Load())[e.chunk][e.offset : e.offset+e.size : e.offset+e.size]
}

// intern returns the number of a namespace.
func (t *nameTable) intern(name string) uint16 {
	if i, ok := t.interned[name]; ok {
		return i
	}
	list := *t.spaces.Load()
	i := uint16(len(list))
	list = append(list[:i:i], &nameSpace{name: name})
	t.spaces.Store(&list)
	t.interned[name] = i
	return i
}

// keep copies a name into a chunk. Readers see the bytes only after the entry
// that names them.
func (t *nameTable) keep(name []byte) (chunk, offset uint32) {
	list := *t.chunks.Load()
	if t.open < 0 || len(list[t.open])-t.fill < len(name) {
		t.open, t.fill = len(list), 0
		for i, c := range list {
			if c == nil {
				t.open = i
				break
			}
		}
		next := make([][]byte, max(len(list), t.open+1))
		copy(next, list)
		next[t.open] = make([]byte, max(nameChunk, len(name)))
		t.chunks.Store(&next)
		list = next
	}
	offset = uint32(t.fill)
	t.fill += copy(list[t.open][t.fill:], name)
	t.used += len(name)
	return uint32(t.open), offset
}

// compact writes the names that live into new chunks, and then gives the old ones back.
// Readers that hold a name keep its chunk alive.
func (t *nameTable) compact() {
	old := *t.chunks.Load()
	t.open, t.used, t.dead = -1, 0, 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for k, e := range s.names {
			if e.size > 0 {
				e.chunk, e.offset = t.keep(old[e.chunk][e.offset : e.offset+e.size])
				s.names[k] = e
			}
		}
		s.mu.Unlock()
	}
	left := append([][]byte(nil), *t.chunks.Load()...)
	for i, c := range old {
		if c != nil { // else keep has taken the place of one given back before
			left[i] = nil
		}
	}
	t.chunks.Store(&left)
}
