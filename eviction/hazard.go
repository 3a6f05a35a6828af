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
	family  family
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
	kin
	at    time.Duration
	leaf  uint32 // place in group.leaves plus one; 0 is not there
	group uint16
	spell spell
	count uint8
	kind  uint8
	flags
}

type flags uint8

const (
	parked flags = 1 << iota
	inner        // a block followed it, at some time
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
		cfg:    cfg,
		ghosts: newGhosts(cfg.Ghosts, cfg.GhostsMost), rng: rand.New(rand.NewPCG(cfg.Seed, 0)),
	}
	h.family = newFamily(func(id uint32) *kin { return &h.entries.at(id).kin })
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
	parent, follows := h.family.join(id, &b)
	if g, ok := h.ghosts.take(e.key); ok {
		h.learner.end(g.spell, now-g.time())
		e.count = g.count
	}
	if e.children > 0 {
		e.flags = inner
	}
	h.use(e, now)
	h.n++
	h.groups[e.group].eligible++
	if follows {
		h.followed(parent)
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

// followed tells a block that it has got a child.
func (h *Hazard) followed(id uint32) {
	p := h.entries.at(id)
	if p.flags&inner == 0 {
		p.flags |= inner
		h.learner.change(&p.spell, classOf(p.kind, p.count, true))
	}
	h.place(id, p)
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
	parent, follows := h.family.leave(id)
	h.place(id, e)
	if follows {
		h.place(parent, h.entries.at(parent))
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
