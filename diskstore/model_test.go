package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"cairn/block"
	"cairn/internal/testseed"
	"cairn/tier"
)

// model follows a store through operations, faults, and restarts, and knows
// what it may say. Object i has versions 1, 2, …; version 0 is its absence.
type model struct {
	t    testing.TB
	fs   *memFS
	cfg  Config
	s    *Store
	last map[int]int          // the last version that was put, by object
	now  map[int]int          // the version that is there
	may  map[int]map[int]bool // the versions that a power loss may leave
	byK  map[block.Key]int
	log  []string
	// faulty: calls fail, so that the files may exceed Capacity for a while.
	faulty bool
}

// keepTwoOfThree says which objects of the model are kept.
func keepTwoOfThree(k block.Key) bool { return k[14]%3 != 0 }

func newModel(t testing.TB, cfg Config) *model {
	return &model{
		t: t, fs: newMemFS(), cfg: cfg.withDefaults(), last: map[int]int{}, now: map[int]int{},
		may: map[int]map[int]bool{}, byK: map[block.Key]int{},
	}
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	tail := m.log[max(0, len(m.log)-30):]
	m.t.Fatalf(m.log[0]+": "+format+"\nlast operations:\n%s", append(args, joinLines(tail))...)
}

func joinLines(lines []string) string {
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

func (m *model) open() error {
	s, err := openFS("memory", m.cfg, m.fs)
	m.note("open: %v", err)
	if err == nil {
		m.s = s
	}
	return err
}

// set records that object i is now at version v.
func (m *model) set(i, v int) {
	m.now[i] = v
	m.allow(i, v)
}

func (m *model) allow(i, v int) {
	if m.may[i] == nil {
		m.may[i] = map[int]bool{0: true}
	}
	m.may[i][v] = true
}

func (m *model) length(i, v int) int { return (i*977 + v*131) % 3000 }

func (m *model) evicted(keys []block.Key) {
	m.t.Helper()
	for _, k := range keys {
		i := m.byK[k]
		m.note("  evicted %d", i)
		if m.now[i] == 0 {
			m.fatalf("object %d, which is not there, was evicted", i)
		}
		if m.cfg.Keep(k) {
			m.fatalf("object %d, which is kept, was evicted", i)
		}
		m.set(i, 0)
	}
}

func (m *model) put(i int) error {
	m.t.Helper()
	v := m.last[i] + 1
	p := content(i, v, m.length(i, v))
	m.byK[keyOf(i)] = i
	keys, err := m.s.Put(context.Background(), block.Describe(keyOf(i), block.Key{}, p), p)
	m.note("put %d version %d, %d bytes: %v", i, v, len(p), err)
	there := m.now[i] != 0
	m.evicted(keys)
	switch {
	case err == nil:
		if there {
			m.fatalf("object %d was put over another", i)
		}
		m.last[i] = v
		m.set(i, v)
	case errors.Is(err, tier.ErrExists), errors.Is(err, tier.ErrConflict):
		if !there {
			m.fatalf("put of %d: %v, but it is not there", i, err)
		}
		return nil
	case errors.Is(err, tier.ErrNoSpace) && m.cfg.Keep(keyOf(i)) && m.s.Kept().Used+m.cfg.keptSize(uint32(len(p))) > m.s.Kept().Limit:
		return nil // as it says
	case errors.Is(err, tier.ErrNoSpace) && m.s.Kept().Used > m.s.Kept().Limit:
		return nil // deleted objects came back after a power loss
	default:
		m.last[i] = v
		m.allow(i, v)
	}
	return err
}

func (m *model) delete(i int) {
	m.t.Helper()
	ok := m.s.Delete(keyOf(i))
	m.note("delete %d: %v", i, ok)
	if ok != (m.now[i] != 0) {
		m.fatalf("delete %d: %v, want version %d to be there", i, ok, m.now[i])
	}
	m.set(i, 0)
	m.evicted(m.s.takeOrphans())
}

func (m *model) get(i int) error {
	m.t.Helper()
	got, err := m.read(i)
	m.note("get %d: version %d, %v", i, got, err)
	switch {
	case err != nil && !errors.Is(err, tier.ErrNotFound):
		if errors.Is(err, tier.ErrCorrupt) {
			m.fatalf("get %d: %v", i, err)
		}
		return err
	case got != m.now[i]:
		m.fatalf("get %d: version %d, want %d", i, got, m.now[i])
	}
	return nil
}

// read returns the version that the store has, after comparing its bytes.
func (m *model) read(i int) (version int, err error) {
	m.t.Helper()
	dst := make([]byte, 3000)
	d, err := m.s.Get(context.Background(), keyOf(i), dst)
	if err != nil {
		return 0, err
	}
	for v := m.last[i]; v > 0; v-- {
		if bytes.Equal(dst[:d.Length], content(i, v, m.length(i, v))) {
			return v, nil
		}
	}
	m.fatalf("get %d: wrong bytes", i)
	return 0, nil
}

func (m *model) sync() error {
	err := m.s.Sync(context.Background())
	m.note("sync: %v", err)
	m.evicted(m.s.takeOrphans())
	if err == nil {
		m.settled()
	}
	return err
}

// settled: what is there is durable.
func (m *model) settled() {
	for i := range m.may {
		m.may[i] = map[int]bool{m.now[i]: true}
	}
}

func (m *model) close() error {
	orphans := m.s.takeOrphans()
	err := m.s.Close()
	m.note("close: %v", err)
	m.evicted(orphans)
	m.evicted(m.s.takeOrphans())
	if err == nil {
		m.settled()
	}
	return err
}

// stop ends the store the hard way. What it was about to report as evicted it
// never does.
func (m *model) stop() {
	m.evicted(m.s.takeOrphans())
	m.fs.mu.Lock()
	m.fs.down = true
	m.fs.mu.Unlock()
	m.s.Close()
}

func (m *model) powerLoss(r *rand.Rand) {
	m.t.Helper()
	m.note("power loss")
	after := m.fs.afterPowerLoss(r)
	m.stop()
	m.fs = after
	m.reopen()
}

func (m *model) kill() {
	m.t.Helper()
	m.note("kill")
	after := m.fs.afterKill()
	m.stop()
	m.fs = after
	before := maps.Clone(m.now)
	m.reopen()
	for i, v := range before {
		if m.cfg.Keep(keyOf(i)) && v != 0 && m.now[i] != v {
			m.fatalf("object %d, which is kept: version %d after the kill, was %d", i, m.now[i], v)
		}
	}
}

// reopen opens the store again, and learns what is there.
func (m *model) reopen() {
	m.t.Helper()
	if err := m.open(); err != nil {
		m.fatalf("open: %v", err)
	}
	m.compare()
}

func (m *model) compare() {
	m.t.Helper()
	for i := range m.may {
		v, err := m.read(i)
		if err != nil && !errors.Is(err, tier.ErrNotFound) && !errors.Is(err, tier.ErrCorrupt) {
			m.fatalf("get %d after the restart: %v", i, err)
		}
		if !m.may[i][v] {
			m.fatalf("object %d: version %d after the restart, may be %v (0 is absent)", i, v, m.may[i])
		}
		m.now[i] = v
	}
	got, limit := m.s.Stats(), m.cfg.Capacity
	if m.faulty && m.s.Kept().Used > 0 {
		limit *= 2
	}
	if got.Used > limit {
		m.fatalf("%d bytes used of %d", got.Used, got.Capacity)
	}
}

// tiny makes segments of a handful of objects.
var tiny = Config{Capacity: 128 << 10, SegmentSize: 16 << 10}

// TestMetamorphic runs random operations with restarts of every kind.
func TestMetamorphic(t *testing.T) {
	runs := 30
	if long() {
		runs = 2000
	}
	first := testseed.Of(t)
	for run := range runs {
		seed := first + uint64(run)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			cfg := tiny
			if run%3 == 1 {
				cfg.PayloadAlign = maxAlign
				cfg.SegmentSize = 32 << 10
				cfg.Capacity = 256 << 10
			}
			if run%5 == 2 {
				cfg.Sync = SyncAlways
			}
			if run%2 == 1 {
				cfg.Keep = keepTwoOfThree
			}
			metamorphic(newModel(t, cfg), r, 400)
		})
	}
}

func metamorphic(m *model, r *rand.Rand, steps int) {
	if err := m.open(); err != nil {
		m.fatalf("open: %v", err)
	}
	for range steps {
		i := r.IntN(60)
		var err error
		switch n := r.IntN(100); {
		case n < 45:
			err = m.put(i)
		case n < 70:
			err = m.get(i)
		case n < 85:
			m.delete(i)
		case n < 95:
			err = m.sync()
		case n < 97:
			if err = m.close(); err == nil {
				m.fs = m.fs.afterKill()
				m.reopen()
			}
		case n < 98:
			m.kill()
		default:
			m.powerLoss(r)
		}
		if err != nil {
			m.fatalf("without a fault: %v", err)
		}
	}
	if err := m.close(); err != nil {
		m.fatalf("close: %v", err)
	}
}
