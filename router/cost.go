package router

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	"cairn/block"
)

// Defaults of [Config].
const (
	DefaultPrefillTokensPerSecond = 8000
	DefaultBlockTokens            = 16
	DefaultBlockBytes             = 512 << 10
	DefaultVRAMBandwidth          = 1e12
	DefaultHostBandwidth          = 20e9
	DefaultDiskBandwidth          = 2.5e9
	DefaultPeerBandwidth          = 3e9
	DefaultPeerLatency            = 0.0005
	DefaultQueueWeight            = 1
	DefaultRoutedTTL              = 120
	DefaultChunkTokens            = 2048
	DefaultStickyFactor           = 1.5
	DefaultSessionTTL             = 600
	DefaultMaxSessions            = 1 << 17
)

// Bandwidth is bytes per second into the memory of the GPU.
type Bandwidth struct {
	VRAM float64 `json:"vram"`
	Host float64 `json:"host"`
	Disk float64 `json:"disk"`
	// Peer is the network between two nodes.
	Peer float64 `json:"peer"`
}

// Config says what things cost. The zero value is usable; every field that is 0
// takes its default. Measure your machines: the ratios decide.
type Config struct {
	// PrefillTokensPerSecond is how fast a node computes the attention state of
	// uncached tokens, for nodes that do not say so themselves.
	PrefillTokensPerSecond float64 `json:"prefill_tokens_per_second"`
	// BlockTokens and BlockBytes are the size of a block, for requests that do
	// not say so.
	BlockTokens int   `json:"block_tokens"`
	BlockBytes  int64 `json:"block_bytes"`
	// Bandwidth is how fast a block gets to the GPU from where it is.
	Bandwidth Bandwidth `json:"bandwidth"`
	// PeerLatency is what the first block from a peer costs besides its bytes,
	// in seconds.
	PeerLatency float64 `json:"peer_latency_seconds"`
	// NoPeers says that the engines cannot use blocks of other nodes.
	NoPeers bool `json:"no_peers"`
	// Prefetch is the tier, "host" or "vram", into which a chosen node is told to bring
	// the cached blocks that it lacks there, ahead of the request (ahead.go). What that
	// takes counts as a cost only as far as it is longer than the wait in the queue. "" and
	// "off": nodes are told nothing.
	Prefetch string `json:"prefetch,omitempty"`
	// QueueWeight multiplies the estimated time in the queue; above 1 it spreads
	// load at the price of overlap.
	QueueWeight float64 `json:"queue_weight"`
	// Temperature, in seconds of cost, makes the choice random: a node is taken with a
	// probability proportional to exp(−cost/Temperature). 0 takes the cheapest.
	Temperature float64 `json:"temperature_seconds"`
	// Seed makes that randomness repeatable.
	Seed uint64 `json:"seed"`
	// RoutedTTL is for how many seconds a request that was routed and never
	// reported done counts as waiting.
	RoutedTTL float64 `json:"routed_ttl_seconds"`
	// ChunkTokens is how many tokens of a prompt an engine computes between two steps of
	// the requests that it decodes; each such step reads all of their blocks.
	ChunkTokens int `json:"chunk_tokens"`
	// StickyFactor bounds what a session may cost to stay on its node, as a multiple of
	// the cheapest node's cost; below 1, sessions do not stay.
	StickyFactor float64 `json:"sticky_factor"`
	// SessionTTL is for how many seconds an idle session is remembered, MaxSessions how
	// many are.
	SessionTTL  float64 `json:"session_ttl_seconds"`
	MaxSessions int     `json:"max_sessions"`
	// LearnTTL, in seconds, makes the router take the blocks of a prompt for held by the
	// node that it was sent to, for nodes that announce nothing: for at least half as long,
	// and at most as long. 0 learns nothing.
	LearnTTL float64 `json:"learn_ttl_seconds"`
	// Layout is what requests and nodes have to agree with, where they say anything.
	Layout Layout `json:"layout,omitzero"`
	// Scorer ranks nodes by something else than time to first token; nil does not.
	Scorer Scorer `json:"-"`
}

// withDefaults is the configuration that is in effect.
func (c Config) withDefaults() Config {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.PrefillTokensPerSecond, DefaultPrefillTokensPerSecond)
	def(&c.Bandwidth.VRAM, DefaultVRAMBandwidth)
	def(&c.Bandwidth.Host, DefaultHostBandwidth)
	def(&c.Bandwidth.Disk, DefaultDiskBandwidth)
	def(&c.Bandwidth.Peer, DefaultPeerBandwidth)
	def(&c.PeerLatency, DefaultPeerLatency)
	def(&c.QueueWeight, DefaultQueueWeight)
	def(&c.RoutedTTL, DefaultRoutedTTL)
	def(&c.StickyFactor, DefaultStickyFactor)
	def(&c.SessionTTL, DefaultSessionTTL)
	c.ChunkTokens = cmp.Or(c.ChunkTokens, DefaultChunkTokens)
	c.MaxSessions = cmp.Or(c.MaxSessions, DefaultMaxSessions)
	c.BlockTokens = cmp.Or(c.BlockTokens, c.Layout.BlockTokens, DefaultBlockTokens)
	c.BlockBytes = cmp.Or(c.BlockBytes, DefaultBlockBytes)
	return c
}

// Validate reports every problem at once; each matches [ErrConfig].
func (c Config) Validate() error {
	var problems []error
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"prefill_tokens_per_second", c.PrefillTokensPerSecond}, {"block_tokens", float64(c.BlockTokens)},
		{"block_bytes", float64(c.BlockBytes)}, {"bandwidth.vram", c.Bandwidth.VRAM}, {"bandwidth.host", c.Bandwidth.Host},
		{"bandwidth.disk", c.Bandwidth.Disk}, {"bandwidth.peer", c.Bandwidth.Peer}, {"peer_latency_seconds", c.PeerLatency},
		{"queue_weight", c.QueueWeight}, {"temperature_seconds", c.Temperature}, {"routed_ttl_seconds", c.RoutedTTL},
		{"chunk_tokens", float64(c.ChunkTokens)}, {"sticky_factor", c.StickyFactor}, {"session_ttl_seconds", c.SessionTTL}, {"learn_ttl_seconds", c.LearnTTL},
		{"max_sessions", float64(c.MaxSessions)}, {"layout.block_tokens", float64(c.Layout.BlockTokens)},
	} {
		if f.value < 0 || math.IsNaN(f.value) || math.IsInf(f.value, 0) {
			problems = append(problems, fmt.Errorf("%w: %s is %v: want a number of at least 0", ErrConfig, f.name, f.value))
		}
	}
	if err := differs(ErrConfig, "block_tokens", c.Layout, Layout{BlockTokens: c.BlockTokens}); err != nil {
		problems = append(problems, err)
	}
	if _, _, err := c.prefetch(); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Terms are the parts of a cost, in seconds.
type Terms struct {
	// Queue is the estimated wait for requests ahead, times the queue weight.
	Queue float64 `json:"queue_seconds"`
	// Prefill is the time to compute what is not cached.
	Prefill float64 `json:"prefill_seconds"`
	// VRAM, Host and Disk are the time to read what the node holds itself.
	VRAM float64 `json:"vram_seconds"`
	Host float64 `json:"host_seconds"`
	Disk float64 `json:"disk_seconds"`
	// Peer is the time to fetch what only others hold.
	Peer float64 `json:"peer_seconds"`
	// Decode is what the prefill loses to the requests that the node is decoding: their
	// tokens, and the reading of their blocks.
	Decode float64 `json:"decode_seconds"`
	// Scorer is by how much a scorer made the cost another than the time to first token.
	Scorer float64 `json:"scorer_seconds,omitempty"`
}

// Local is the time to read what the node holds itself.
func (t Terms) Local() float64 { return t.VRAM + t.Host + t.Disk }

// Total is the cost: the estimated time to first token, unless a scorer says otherwise.
func (t Terms) Total() float64 { return t.Queue + t.Prefill + t.Local() + t.Peer + t.Decode + t.Scorer }

// Candidate is a node that a request may go to, and what that would cost.
type Candidate struct {
	Node string `json:"node"`
	Addr string `json:"addr"`
	// Cost is the estimated time to first token, in seconds: the sum of Terms.
	Cost  float64 `json:"cost_seconds"`
	Terms Terms   `json:"terms"`
	// Prefix is how many blocks from the first on the node holds itself.
	Prefix int `json:"prefix_blocks"`
	// Cached is how many blocks from the first on need not be computed: Overlap
	// of them from the node's own tiers, Peers from others.
	Cached  int        `json:"cached_blocks"`
	Overlap TierBlocks `json:"overlap_blocks"`
	Peers   int        `json:"peer_blocks"`
	// PrefillTokens is how many tokens are left to compute.
	PrefillTokens int `json:"prefill_tokens"`
	// QueueTokens is how many are estimated to wait ahead.
	QueueTokens int `json:"queue_tokens"`
	// Active is what the node is decoding.
	Active Active `json:"active"`
	// Assigned is how many requests this router has sent to the node; it breaks
	// ties.
	Assigned uint64 `json:"assigned_requests"`
}

// shape is what a request asks, in the units of cost.
type shape struct {
	tokens, blockTokens int
	blockBytes          float64
}

// cost is the cheapest way to serve the request on a node: with all that the
// cluster holds, with only what the node holds from the first block on, or with
// nothing.
func (c *Config) cost(s shape, m *Match, o *Overlap, queue, rate float64, active Active) Candidate {
	best := c.cut(s, rate, 0, TierBlocks{}, TierBlocks{})
	consider := func(d Candidate) {
		c.overlap(&d.Terms, queue/rate)
		if d.Terms.Total() < best.Terms.Total() {
			best = d
		}
	}
	if o.Prefix > 0 {
		consider(c.cut(s, rate, o.Prefix, o.PrefixTiers, TierBlocks{}))
	}
	if !c.NoPeers && m.Blocks > o.Prefix {
		var peers TierBlocks
		for t := range peers {
			peers[t] = m.Tiers[t] - o.best[t]
		}
		consider(c.cut(s, rate, m.Blocks, o.Held, peers))
	}
	best.Prefix = o.Prefix
	best.QueueTokens = int(math.Ceil(queue))
	best.Terms.Queue = c.QueueWeight * queue / rate
	best.Active = active
	best.Terms.Decode = c.decode(s, queue+float64(best.PrefillTokens), rate, active)
	best.Cost = best.Terms.Total()
	return best
}

// decode is what the decoding of others adds to the prefill of so many tokens. Between
// two chunks of it, every active request computes one token and has its blocks read.
func (c *Config) decode(s shape, tokens, rate float64, active Active) float64 {
	steps := math.Ceil(tokens / float64(c.ChunkTokens))
	return steps * (float64(active.Requests)/rate + float64(active.Blocks)*s.blockBytes/c.Bandwidth.VRAM)
}

// cut is the candidate that takes the first cached blocks from where they are
// and computes the rest.
func (c *Config) cut(s shape, rate float64, cached int, local, peers TierBlocks) Candidate {
	// An engine computes at least the last token, for its output.
	prefill := max(s.tokens-cached*s.blockTokens, 1)
	d := Candidate{Cached: cached, Overlap: local, Peers: peers.Total(), PrefillTokens: prefill}
	d.Terms = Terms{
		Prefill: float64(prefill) / rate,
		VRAM:    float64(local[block.VRAM]) * s.blockBytes / c.Bandwidth.VRAM,
		Host:    float64(local[block.Host]) * s.blockBytes / c.Bandwidth.Host,
		Disk:    float64(local[block.Disk]) * s.blockBytes / c.Bandwidth.Disk,
	}
	if d.Peers > 0 {
		d.Terms.Peer = c.PeerLatency
	}
	// A peer reads while it sends, so the slower of the two counts.
	for t, from := range [block.Tiers]float64{c.Bandwidth.VRAM, c.Bandwidth.Host, c.Bandwidth.Disk} {
		d.Terms.Peer += float64(peers[t]) * s.blockBytes / min(from, c.Bandwidth.Peer)
	}
	return d
}
