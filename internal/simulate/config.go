package simulate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cairn/router"
)

// Defaults of [Config].
const (
	DefaultNodes       = 8
	DefaultBlockTokens = 512
	DefaultBlockBytes  = 512 << 10
	DefaultLoad        = 0.8
	DefaultFetchCost   = 0.1
)

// Config of a simulation. The zero value is usable.
type Config struct {
	// Nodes is the number of nodes; 0 is DefaultNodes.
	Nodes int
	// Capacity is the number of blocks that each node holds.
	Capacity int
	// BlockTokens and BlockBytes are the size of a block; 0 is the default.
	BlockTokens int
	BlockBytes  int64
	// PrefillRate is how fast a node computes, in tokens per second. 0 is such
	// that without any cache the nodes are busy for the share Load of the time.
	PrefillRate float64
	// Load is that share; 0 is DefaultLoad.
	Load float64
	// FetchCost is the time to fetch a block from another node, as a share of the
	// time to compute it; 0 is DefaultFetchCost. LinkBandwidth, bytes per second,
	// gives that time instead when it is not 0.
	FetchCost     float64
	LinkBandwidth float64
	// Policy is a routing policy and, after a slash, an eviction policy.
	Policy string
	// AffinityTolerance is that of cairn-affinity, see router.ScorerConfig; 0 is the
	// built-in value.
	AffinityTolerance float64
	// Seed makes the run repeatable.
	Seed uint64
	// Progress is called now and then with the number of requests done.
	Progress func(done int)
}

func (c Config) withDefaults() Config {
	if c.Nodes == 0 {
		c.Nodes = DefaultNodes
	}
	if c.BlockTokens == 0 {
		c.BlockTokens = DefaultBlockTokens
	}
	if c.BlockBytes == 0 {
		c.BlockBytes = DefaultBlockBytes
	}
	if c.Load == 0 {
		c.Load = DefaultLoad
	}
	if c.FetchCost == 0 {
		c.FetchCost = DefaultFetchCost
	}
	if c.Progress == nil {
		c.Progress = func(int) {}
	}
	return c
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("simulate: "+format, args...)) }
	if c.Nodes < 0 || c.Nodes > router.MaxNodes {
		bad("%d nodes: want 1 to %d, or 0 for %d", c.Nodes, router.MaxNodes, DefaultNodes)
	}
	if c.Capacity < 1 || c.Capacity > 1<<28 {
		bad("a capacity of %d blocks a node: want 1 to %d", c.Capacity, 1<<28)
	}
	if c.BlockTokens < 0 || c.BlockBytes < 0 {
		bad("blocks of %d tokens and %d bytes: want 1 or more, or 0 for the default", c.BlockTokens, c.BlockBytes)
	}
	if !(c.PrefillRate >= 0) || !(c.LinkBandwidth >= 0) || !(c.FetchCost >= 0) {
		bad("prefill rate %g, link bandwidth %g, fetch cost %g: want 0 or more", c.PrefillRate, c.LinkBandwidth, c.FetchCost)
	}
	if !(c.Load >= 0 && c.Load < 10) {
		bad("load %g: want a share of the nodes' time, such as 0.8", c.Load)
	}
	_, _, policyErr := parsePolicy(c.Policy)
	_, scorerErr := router.NamedScorer("affinity", router.ScorerConfig{AffinityTolerance: c.AffinityTolerance})
	errs = append(errs, policyErr, scorerErr)
	return errors.Join(errs...)
}

// Policies are the routing policies, in the order in which tables show them.
func Policies() []string {
	return []string{"random", "round-robin", "least-loaded", "hash", "dynamo", "llm-d", "cairn", "cairn-copy", "cairn-affinity", "cairn-ahead", "pool", "belady"}
}

// Evictions are the eviction policies that may follow one.
func Evictions() []string { return []string{"lru", "hazard"} }

func parsePolicy(s string) (routing, evict string, err error) {
	routing, evict, given := strings.Cut(s, "/")
	if !slices.Contains(Policies(), routing) || given && (!slices.Contains(Evictions(), evict) || routing == "belady") {
		return "", "", fmt.Errorf("simulate: no policy %q: want %s, and except for belady optionally / and %s",
			s, strings.Join(Policies(), ", "), strings.Join(Evictions(), " or "))
	}
	if given {
		return routing, evict, nil
	}
	switch routing {
	case "cairn", "cairn-copy", "cairn-affinity", "cairn-ahead":
		return routing, "hazard", nil
	}
	return routing, "lru", nil
}
