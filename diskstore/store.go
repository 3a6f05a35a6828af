package diskstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"cairn/block"
	"cairn/tier"
)

var (
	_ tier.Store  = (*Store)(nil)
	_ tier.Syncer = (*Store)(nil)
)

// Store is a directory of segment files. All methods may be called in parallel.
type Store struct {
	dir  string
	cfg  Config
	fs   filesystem
	lock *os.File
	id   string

	recovered Recovery

	closing    sync.Once
	ops        sync.WaitGroup // calls under way
	background sync.WaitGroup // sealing, the flushes and their ticker
	stop       chan struct{}  // closed by Close

	// Semaphores of one, held across I/O; taken in this order, none under mu.
	tombing    chan struct{} // writing tombstones
	rolling    chan struct{} // starting a new segment
	reclaiming chan struct{} // removing a segment
	creating   chan struct{} // making a segment the active one

	// roomTaken: a segment was begun outside a Put, with the room that is kept for
	// that; the next Put makes it again.
	roomTaken atomic.Bool

	flushMu   sync.Mutex
	nextFlush *flush        // the flush that has not begun yet
	flushing  chan struct{} // semaphore of one: a flush is running

	// mu guards what follows, and the segments' changing fields. No I/O happens
	// under it.
	mu        sync.Mutex
	closed    bool
	index     map[block.Key]entry
	followers map[block.Key]uint32 // objects in the index, by their parent
	segments  []*segment           // by id
	byID      map[uint32]*segment
	active    *segment // takes the new records; may be nil
	spare     *segment // takes what is moved while the segments exceed the overdraft; or nil
	nextID    uint32
	nextOrder uint64
	puts      map[block.Key]chan struct{} // keys being put; closed when done
	tombs     []tombstone                 // not yet written
	orphans   []block.Key                 // evicted outside a Put: the next Put reports them
	dirDirty  bool                        // a removal may not be durable
	stats     tier.Stats
	kept      Kept
	passed    int    // how many times in succession the oldest segment was passed over
	unread    uint64 // how many times an object could not be read to be moved
}

// entry is where an object is. It has no pointers, so that the garbage
// collector does not walk the index.
type entry struct {
	parent  block.Key
	sum     uint64
	order   uint64
	segment uint32
	unit    uint32 // offset / minAlign
	length  uint32
	read    bool // since it was written
}

func (e entry) at(g *segment, p placed) bool { return e.segment == g.id && e.unit == p.unit }

func (e entry) descriptor(key block.Key) block.Descriptor {
	return block.Descriptor{Key: key, Parent: e.parent, Length: e.length, Sum: e.sum}
}

// Open opens the store in dir, making the directory, private to the user, when
// it is not there. It fails with [ErrLocked] when somebody has it open, and with
// [ErrVersion] when its files are of a format that this program does not know.
// Damage to the files is no error: what cannot be read is not there.
func Open(dir string, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s, err := openDir(dir, cfg.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("diskstore: open %s: %w", dir, err)
	}
	return s, nil
}

func openDir(dir string, cfg Config) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
			err = fmt.Errorf("the directory must be writable by this process: %w", err)
		}
		return nil, err
	}
	s, err := openFS(dir, cfg, osDir(dir))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

// openFS opens the store whose directory is fs. cfg has its defaults.
func openFS(dir string, cfg Config, fs filesystem) (*Store, error) {
	s := &Store{
		dir:        dir,
		cfg:        cfg,
		fs:         fs,
		stop:       make(chan struct{}),
		tombing:    make(chan struct{}, 1),
		rolling:    make(chan struct{}, 1),
		reclaiming: make(chan struct{}, 1),
		creating:   make(chan struct{}, 1),
		flushing:   make(chan struct{}, 1),
		index:      map[block.Key]entry{},
		followers:  map[block.Key]uint32{},
		byID:       map[uint32]*segment{},
		puts:       map[block.Key]chan struct{}{},
		nextID:     1,
		nextOrder:  1,
	}
	s.stats.Capacity = cfg.Capacity
	s.kept.Limit = cfg.KeptLimit()
	if err := s.recover(); err != nil {
		for _, g := range s.segments {
			g.file.Close()
		}
		return nil, err
	}
	if cfg.Sync == SyncInterval {
		s.background.Go(s.syncEvery)
	}
	return s, nil
}

// ID is the store's random identity: 32 hexadecimal digits, made when the
// directory was and kept with it.
func (s *Store) ID() string { return s.id }

// MaxObject is the length in bytes of the largest object that fits.
func (s *Store) MaxObject() int64 { return s.cfg.maxObject() }

// Recovered says what Open found.
func (s *Store) Recovered() Recovery { return s.recovered }

// begin enters a call; end leaves it.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return tier.ErrClosed
	}
	s.ops.Add(1)
	return nil
}

func (s *Store) end() { s.ops.Done() }

// Stat implements [tier.Store].
func (s *Store) Stat(key block.Key) (block.Descriptor, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.index[key]
	if !ok || s.closed {
		return block.Descriptor{}, false
	}
	return e.descriptor(key), true
}

// All implements [tier.Store]. An object that is moved to another segment meanwhile
// may appear twice.
func (s *Store) All(yield func(block.Descriptor) bool) {
	if s.begin() != nil {
		return
	}
	defer s.end()
	var batch []block.Descriptor
	// What is moved goes to a younger segment, so it is met there.
	for g := s.segmentAfter(0); g != nil; g = s.segmentAfter(g.id) {
		for from, more := 0, true; more; from += chunk {
			batch = batch[:0]
			s.mu.Lock()
			to := min(from+chunk, len(g.placed))
			for _, p := range g.placed[min(from, to):to] {
				if e, ok := s.index[p.key]; ok && e.at(g, p) {
					batch = append(batch, e.descriptor(p.key))
				}
			}
			more = to < len(g.placed)
			s.mu.Unlock()
			for _, d := range batch {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// segmentAfter returns the oldest segment younger than id, or nil.
func (s *Store) segmentAfter(id uint32) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.segments, id, func(g *segment, id uint32) int {
		if g.id <= id {
			return -1
		}
		return 1
	})
	if i == len(s.segments) {
		return nil
	}
	return s.segments[i]
}

// Stats implements [tier.Store]. Used counts the segment files whole.
func (s *Store) Stats() tier.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Kept, st.KeptLimit = s.kept.Used, s.kept.Limit
	for _, g := range s.segments {
		st.Used += g.used()
	}
	return st
}

// Close implements [tier.Store]: it also flushes everything, and seals the last
// segment so that the next Open need not scan it. A second Close does nothing.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() { err = s.close() })
	if err != nil {
		return fmt.Errorf("diskstore: close %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.ops.Wait()
	s.background.Wait()

	errs := []error{s.flush(context.Background())}
	s.mu.Lock()
	for _, g := range []*segment{s.active, s.spare} {
		if g != nil {
			s.retireLocked(g)
		}
	}
	segments := s.segments
	s.mu.Unlock()
	for _, g := range segments {
		errs = append(errs, s.seal(g), s.syncSegment(g))
	}
	s.mu.Lock()
	s.index, s.byID, s.segments = nil, nil, nil
	s.mu.Unlock()
	for _, g := range segments {
		errs = append(errs, g.file.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// ioError counts an input or output error and gives it the name that callers
// look for.
func (s *Store) ioError(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	s.stats.Errors++
	s.mu.Unlock()
	return noSpace(err)
}

// fail wraps an error once, with what was done to which object.
func fail(doing string, key block.Key, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("diskstore: %s block %v: %w", doing, key, err)
}
