package eviction

import (
	"math"
	"math/rand/v2"
	"time"
)

// Hazard evicts the leaf that is worth least; the package comment says what that
// means.
type Hazard struct {
	cfg     Config
	entries chunks[entry]
	ids     map[uint64]uint32 // by fingerprint
	// waiting is the number of children of blocks that are not here, by
	// fingerprint.
	waiting map[uint64]uint32
	groups  []group
	ghosts  ghosts
	learner learner
	rng     *rand.Rand

	n    int
	hand uint32 // the next entry to sweep
	// search is where anyBlocks stopped.
	search uint32
	uses   int  // since the values were computed
	swept  bool // every entry and ghost, since then
}

var _ Policy = (*Hazard)(nil)

// entry is a block in the store. It has no pointers.
type entry struct {
	key, parent uint64 // fingerprints; key 0 is nobody
	at          time.Duration
	children    uint32
	leaf        uint32 // place in group.leaves plus one; 0 is not there
	group       uint16
	spell       spell
	count       uint8
	kind        uint8
	flags
}

type flags uint8

const (
	parked flags = 1 << iota
	copied
	inner // a block followed it, at some time
)

// group is the blocks that can take each other's room.
type group struct {
	leaves []uint32
	// eligible is the number of blocks that are not parked.
	eligible int
	// kept are fingerprints of blocks that are likely victims.
	kept [2]uint64
}

const (
	// sweepSteps is how many entries, or sets of ghosts, each use settles.
	sweepSteps = 4
	// computeEvery is the least number of uses between two computations of values.
	computeEvery = 500
)

// NewHazard is an empty policy, or tells what is wrong with cfg.
func NewHazard(cfg Config) (*Hazard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	h := &Hazard{
		cfg: cfg, ids: map[uint64]uint32{}, waiting: map[uint64]uint32{},
		ghosts: newGhosts(cfg.Ghosts, cfg.GhostsMost), rng: rand.New(rand.NewPCG(cfg.Seed, 0)),
	}
	h.learner.compute(1)
	return h, nil
}

// Len implements Policy.
func (h *Hazard) Len() int { return h.n }

// Insert implements Policy.
func (h *Hazard) Insert(id uint32, b Block, now time.Duration) {
	h.entries.grow(id)
	for len(h.groups) <= b.Group {
		h.groups = append(h.groups, group{})
	}
	e := h.entries.at(id)
	*e = entry{group: uint16(b.Group), kind: b.Kind}
	e.key, e.parent = b.fingerprints()
	if g, ok := h.ghosts.take(e.key); ok {
		h.learner.end(g.spell, now-g.time())
		e.count = g.count
	}
	if n, ok := h.waiting[e.key]; ok {
		delete(h.waiting, e.key)
		e.children, e.flags = n, inner
	}
	h.use(e, now)
	h.n++
	h.groups[e.group].eligible++
	h.ids[e.key] = id
	if e.parent != 0 {
		h.adopt(e.parent)
	}
	h.place(id, e)
	h.upkeep(now)
}

// use counts a use of a block and begins its next spell.
func (h *Hazard) use(e *entry, now time.Duration) {
	e.count = min(e.count+1, countMost)
	e.at = now
	e.spell = h.learner.start(classOf(e.kind, e.count, e.flags&inner != 0))
}

// adopt tells a parent that it has one more child.
func (h *Hazard) adopt(key uint64) {
	id, ok := h.ids[key]
	if !ok {
		h.waiting[key]++
		return
	}
	p := h.entries.at(id)
	p.children++
	if p.flags&inner == 0 {
		p.flags |= inner
		h.learner.change(&p.spell, classOf(p.kind, p.count, true))
	}
	h.place(id, p)
}

// disown tells a parent that it has one child less.
func (h *Hazard) disown(key uint64) {
	if id, ok := h.ids[key]; ok {
		// Two keys with one fingerprint may have left fewer than there were.
		p := h.entries.at(id)
		p.children = max(p.children, 1) - 1
		h.place(id, p)
		return
	}
	switch n := h.waiting[key]; n {
	case 0:
	case 1:
		delete(h.waiting, key)
	default:
		h.waiting[key] = n - 1
	}
}

// place puts a block among the leaves of its group or takes it out, as it must be.
func (h *Hazard) place(id uint32, e *entry) {
	g := &h.groups[e.group]
	switch leaf := e.key != 0 && e.children == 0 && e.flags&parked == 0; {
	case leaf && e.leaf == 0:
		g.leaves = append(g.leaves, id)
		e.leaf = uint32(len(g.leaves))
	case !leaf && e.leaf != 0:
		last := g.leaves[len(g.leaves)-1]
		g.leaves[e.leaf-1] = last
		h.entries.at(last).leaf = e.leaf
		g.leaves = g.leaves[:len(g.leaves)-1]
		e.leaf = 0
	}
}

// Touch implements Policy.
func (h *Hazard) Touch(id uint32, now time.Duration) {
	e := h.entries.at(id)
	h.learner.end(e.spell, now-e.at)
	h.use(e, now)
	h.setFlag(id, e, parked, false)
	h.upkeep(now)
}

// Park implements Policy.
func (h *Hazard) Park(id uint32) { h.setFlag(id, h.entries.at(id), parked, true) }

// Unpark implements Policy.
func (h *Hazard) Unpark(id uint32) { h.setFlag(id, h.entries.at(id), parked, false) }

// SetCopied implements Policy.
func (h *Hazard) SetCopied(id uint32, yes bool) { h.setFlag(id, h.entries.at(id), copied, yes) }

func (h *Hazard) setFlag(id uint32, e *entry, f flags, on bool) {
	if on == (e.flags&f != 0) {
		return
	}
	e.flags ^= f
	if f == parked {
		h.groups[e.group].eligible += 1 - 2*int(e.flags&parked)
	}
	h.place(id, e)
}

// Evict implements Policy.
func (h *Hazard) Evict(id uint32, now time.Duration) {
	e := h.entries.at(id)
	h.learner.settle(&e.spell, now-e.at)
	h.ghosts.add(ghost{key: e.key, at: uint32(e.at / ghostTick), spell: e.spell, count: e.count})
	h.groups[e.group].kept[0] = e.parent
	h.Remove(id)
}

// Remove implements Policy.
func (h *Hazard) Remove(id uint32) {
	e := h.entries.at(id)
	delete(h.ids, e.key)
	key, parent, children := e.key, e.parent, e.children
	e.key = 0
	h.place(id, e)
	if children > 0 {
		h.waiting[key] = children
	}
	if parent != 0 {
		h.disown(parent)
	}
	if e.flags&parked == 0 {
		h.groups[e.group].eligible--
	}
	h.n--
}

// upkeep does a bounded share of settling spells under way, and computes the
// values when all have been settled.
func (h *Hazard) upkeep(now time.Duration) {
	h.uses++
	if !h.swept {
		h.swept = h.sweep(now)
		return
	}
	if h.uses < computeEvery {
		return
	}
	fade := 1.0
	if life := h.cfg.HalfLife * (h.n + h.ghosts.n); life > 0 {
		fade = math.Exp2(-float64(h.uses) / float64(max(life, computeEvery)))
	}
	h.learner.compute(fade)
	h.ghosts.fit(h.n)
	h.uses, h.swept = 0, false
}

// sweep settles a few entries and then sets of ghosts; it reports whether they
// were the last.
func (h *Hazard) sweep(now time.Duration) (done bool) {
	for range sweepSteps {
		if int(h.hand) < h.entries.len() {
			if e := h.entries.at(h.hand); e.key != 0 {
				h.learner.settle(&e.spell, now-e.at)
			}
			h.hand++
			continue
		}
		if h.ghosts.sweep(&h.learner, now) {
			h.hand = 0
			return true
		}
	}
	return false
}
