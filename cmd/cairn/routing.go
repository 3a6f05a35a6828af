package main

import (
	"errors"
	"time"

	"cairn/router"
)

// costFlags are what a router reckons with, and how it keeps its index.
type costFlags struct {
	PrefillRate       float64       `help:"Tokens a node's engine prefills in a second; 0 is the built-in value." default:"0"`
	BlockTokens       int           `help:"Tokens of a block, for requests that do not say." default:"0"`
	BlockBytes        size          `help:"Bytes of a block, for requests that do not say." default:"0"`
	BandwidthVRAM     size          `name:"bandwidth-vram" help:"Bytes a second from GPU memory." default:"0"`
	BandwidthHost     size          `help:"Bytes a second from host memory to the GPU." default:"0"`
	BandwidthDisk     size          `help:"Bytes a second from disk." default:"0"`
	BandwidthPeer     size          `help:"Bytes a second from another node." default:"0"`
	QueueWeight       float64       `help:"Weight of the time in the queue; above 1 spreads load." default:"0"`
	ChunkTokens       int           `help:"Tokens of a prompt that an engine computes between two steps of decoding; 0 is the built-in value." default:"0"`
	Temperature       float64       `help:"Seconds of cost by which the choice is random; 0 takes the cheapest." default:"0"`
	Scorer            string        `help:"What ranks nodes: ${enum}. ttft is the estimated time to first token; affinity the same, but of nearly equal nodes it takes the one that the prompt prefers: for conversations in small caches." enum:"ttft,affinity,prefix,load" default:"ttft"`
	AffinityTolerance float64       `help:"With the scorer affinity, how much later than from the fastest node the first token may come, as a share of the time to compute what is cached nowhere; up to 1; 0 is the built-in value." default:"0"`
	Prefetch          string        `help:"Tier into which a chosen node is told to bring the cached blocks that it lacks there, while the request is still on its way: ${enum}. off for engines that do not take blocks from Cairn." enum:"off,host,vram" default:"host"`
	StickyFactor      float64       `help:"Multiple of the cheapest cost at which a session still stays on its node; below 1, never; 0 is the built-in value." default:"0"`
	SessionTTL        time.Duration `name:"session-ttl" help:"How long an idle session is remembered; 0 is the built-in value." default:"0s"`
	MaxSessions       int           `help:"Sessions that are remembered; 0 is the built-in value." default:"0"`
	LearnTTL          time.Duration `name:"learn-ttl" help:"How long a node that announces nothing is taken to hold the blocks of what it was sent; 0 learns nothing." default:"0s"`

	RequireBlockTokens int    `help:"Refuse requests, and leave out nodes, that say another number of tokens a block." default:"0"`
	RequireHash        string `help:"The same for the hash that makes keys, such as sha256." placeholder:"NAME"`
	RequireSalt        string `help:"The same for the salt of the hash." placeholder:"SALT"`

	Match         string `help:"How prefixes are looked up: ${enum}. bisect relies on nodes that hold whole prefixes, and audits them." enum:"exact,bisect" default:"exact"`
	AuditEvery    int    `help:"With bisect, one of so many look-ups is repeated exactly; 0 is the built-in value, below 0 none." default:"0"`
	MaxIndexBytes size   `help:"Memory of the index of blocks; 0 for no bound. At the bound the blocks deepest in their sequences are forgotten." default:"0"`
}

func (c costFlags) layout() router.Layout {
	return router.Layout{BlockTokens: c.RequireBlockTokens, Hash: c.RequireHash, Salt: c.RequireSalt}
}

// config is what the flags say of costs; it reports every problem at once.
func (c costFlags) config() (router.Config, error) {
	scorer, err := router.NamedScorer(c.Scorer, router.ScorerConfig{AffinityTolerance: c.AffinityTolerance})
	cfg := router.Config{
		PrefillTokensPerSecond: c.PrefillRate, BlockTokens: c.BlockTokens, BlockBytes: int64(c.BlockBytes),
		Bandwidth: router.Bandwidth{
			VRAM: float64(c.BandwidthVRAM), Host: float64(c.BandwidthHost), Disk: float64(c.BandwidthDisk), Peer: float64(c.BandwidthPeer),
		},
		Prefetch: c.Prefetch, QueueWeight: c.QueueWeight, ChunkTokens: c.ChunkTokens, Temperature: c.Temperature, Scorer: scorer,
		StickyFactor: c.StickyFactor, SessionTTL: c.SessionTTL.Seconds(), MaxSessions: c.MaxSessions,
		LearnTTL: c.LearnTTL.Seconds(), Layout: c.layout(),
	}
	return cfg, errors.Join(err, cfg.Validate(), c.index().Validate())
}

// index is what they say of the index.
func (c costFlags) index() router.IndexConfig {
	cfg := router.IndexConfig{AuditEvery: c.AuditEvery, MaxBytes: int64(c.MaxIndexBytes), Layout: c.layout()}
	if c.Match == "bisect" {
		cfg.Mode = router.Bisect
	}
	return cfg
}
