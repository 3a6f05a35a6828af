package router

import "cairn/block"

// Transfer says that a node should fetch a run of blocks from a peer.
type Transfer struct {
	From     string `json:"from"`
	FromAddr string `json:"from_addr"`
	To       string `json:"to"`
	// First is the place in the request of the first block, Count how many
	// follow one another from there.
	First int `json:"first_block"`
	Count int `json:"count"`
	// Tier is where the peer has them.
	Tier block.Tier `json:"tier"`
}

// plan says from whom the candidate should fetch the cached blocks that it
// lacks: from the fastest tier, and of equals from where the run goes on, then
// from the node with the fewest planned so far.
func (ix *Index) plan(keys []block.Key, c Candidate, work *scratch) []Transfer {
	plan := []Transfer{}
	if c.Peers == 0 {
		return plan
	}
	clear(work.planned)
	for i, k := range keys[:c.Cached] {
		work.holders = ix.Holders(k, work.holders[:0])
		from, ok := source(work, c.Node, plan, i)
		if !ok {
			continue
		}
		tier, _ := from.Tiers.Fastest()
		work.planned[from.Node]++
		if n := len(plan) - 1; n >= 0 && continues(plan[n], from.Node, i) && plan[n].Tier == tier {
			plan[n].Count++
			continue
		}
		plan = append(plan, Transfer{From: from.Node, FromAddr: from.Addr, To: c.Node, First: i, Count: 1, Tier: tier})
	}
	return plan
}

func continues(t Transfer, from string, at int) bool { return t.From == from && t.First+t.Count == at }

// source is the best of work.holders to fetch block i from; ok is false when to
// holds it itself or nobody does any more.
func source(work *scratch, to string, plan []Transfer, i int) (best Holder, ok bool) {
	better := func(a, b Holder) bool {
		ta, _ := a.Tiers.Fastest()
		tb, _ := b.Tiers.Fastest()
		if ta != tb {
			return ta < tb
		}
		if len(plan) > 0 {
			last := plan[len(plan)-1]
			if ca, cb := continues(last, a.Node, i), continues(last, b.Node, i); ca != cb {
				return ca
			}
		}
		if pa, pb := work.planned[a.Node], work.planned[b.Node]; pa != pb {
			return pa < pb
		}
		return a.Node < b.Node
	}
	for _, h := range work.holders {
		if h.Node == to {
			return Holder{}, false
		}
		if !ok || better(h, best) {
			best, ok = h, true
		}
	}
	return best, ok
}
