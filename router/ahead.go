package router

import (
	"fmt"

	"cairn/block"
)

// A node can fetch what a request needs while the request is on its way and waits for its
// turn, if somebody tells it: the router, which knows both first. So with
// [Config].Prefetch the time to fetch is hidden behind the wait, and a node where a
// request waits anyway is a better place for it than the sum of both would say.

// Ahead is what the chosen node is to bring into memory ahead of the request.
type Ahead struct {
	// Tier is where to, Blocks how many of the prompt's blocks, from the first on.
	Tier   block.Tier `json:"tier"`
	Blocks int        `json:"blocks"`
	// Lacking is how many of them the node does not have in memory, or not in GPU memory
	// where that is the tier.
	Lacking int `json:"lacking_blocks"`
	// Wait is how long the request is expected to wait for its turn there, in seconds.
	Wait float64 `json:"wait_seconds"`
	// Told says that the node has been told; it is not for a dry run. Whoever tells
	// it sets this.
	Told bool `json:"told,omitempty"`
}

// prefetch is the tier of Config.Prefetch; ok is false when there is none.
func (c *Config) prefetch() (t block.Tier, ok bool, err error) {
	switch c.Prefetch {
	case "", "off":
		return 0, false, nil
	case block.Host.String():
		return block.Host, true, nil
	case block.VRAM.String():
		return block.VRAM, true, nil
	}
	return 0, false, fmt.Errorf("%w: prefetch is %q: want off, host or vram", ErrConfig, c.Prefetch)
}

// overlap takes out of the terms what is hidden behind a wait of so many seconds.
func (c *Config) overlap(t *Terms, wait float64) {
	if _, ok, _ := c.prefetch(); ok {
		t.Peer = max(0, t.Peer-wait)
		t.Disk = max(0, t.Disk-wait)
	}
}

// ahead is what the candidate, once chosen, should bring; nil for nothing.
func (c *Config) ahead(d *Candidate) *Ahead {
	t, ok, _ := c.prefetch()
	if !ok {
		return nil
	}
	lacking := d.Peers + d.Overlap[block.Disk]
	if t == block.VRAM {
		lacking += d.Overlap[block.Host]
	}
	if lacking == 0 {
		return nil
	}
	return &Ahead{Tier: t, Blocks: d.Cached, Lacking: lacking, Wait: d.Terms.Queue / c.QueueWeight}
}
