package router

import "cairn/block"

// DefaultAffinityTolerance is that of [ScorerConfig].
const DefaultAffinityTolerance = 0.3

// affinity ranks by time to first token, but lets a prompt have its way where that
// hardly matters. A prompt prefers nodes in the order of rendezvous hashing on the first
// of its blocks that no node can use. What has been evicted from there on was
// computed, and may be asked for again, under that same block: so it comes back to the
// node that knew it, which remembers how its blocks were used. Prompts with nothing to tell
// nodes apart are spread evenly, and every router that sees the same nodes agrees.
//
// The tolerance is a share of what there is to compute in any case. A prompt that is
// cached almost wholly thus goes to its holder, and nobody waits for long in vain.
type affinity struct {
	tolerance float64
}

func (affinity) Name() string { return ScoreAffinity }

// Score lowers the cost of the preferred node among the nearly cheapest by the tolerance,
// so that it is first; the others keep theirs.
func (a affinity) Score(q *Request, nodes []Candidate) {
	if len(q.Keys) == 0 {
		return // nothing tells this prompt from others
	}
	preferred, compute, cached := &nodes[0], nodes[0].Terms.Prefill, 0
	for i := range nodes {
		c := &nodes[i]
		if c.Cost < preferred.Cost {
			preferred = c
		}
		compute = min(compute, c.Terms.Prefill)
		cached = max(cached, c.Cached)
	}
	tolerance := a.tolerance * compute
	key := q.Keys[min(cached, len(q.Keys)-1)]
	most, bound := preference(key, preferred.Node), preferred.Cost+tolerance
	for i := range nodes {
		c := &nodes[i]
		if c.Cost > bound {
			continue
		}
		if w := preference(key, c.Node); w > most {
			preferred, most = c, w
		}
	}
	preferred.Cost -= tolerance
}

// preference is the weight of a node in the rendezvous hashing of a block: a number drawn
// by both. Routers have to agree on it.
func preference(key block.Key, node string) uint64 {
	// FNV-1a of the name, then the finalizer of splitmix64.
	h := uint64(0xcbf29ce484222325)
	for i := range len(node) {
		h = (h ^ uint64(node[i])) * 0x100000001b3
	}
	h ^= key.Hash64()
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
