package cluster

import "cairn/block"

// Held tells whether another member is known to hold the block. It neither waits nor
// allocates, unless the block has more than a few holders.
func (v *View) Held(key block.Key) bool {
	return v.index.HeldBesides(key, v.cfg.Self)
}
