package router

import (
	"cmp"
	"fmt"
)

// Scorer decides by what nodes are ranked. The costs that it sets take the place
// of the estimated time to first token: the least wins. The difference is shown as a
// term of its own. A scorer is called under a lock: it must not block or call the router,
// and it may be called from several goroutines, one at a time.
type Scorer interface {
	// Name is what Explain calls it.
	Name() string
	// Score sets the Cost of every one of nodes to what it costs to send q there, in
	// seconds or what it takes for them. Before, it is the estimated time to first token.
	// All else is only read, and only during the call; there is at least one node, and
	// their order says nothing.
	Score(q *Request, nodes []Candidate)
}

// The scorers that come with the package, by name.
const (
	// ScoreTTFT is the estimated time to first token, and the default.
	ScoreTTFT = "ttft"
	// ScoreAffinity is the same, but of the nodes that cost little more than the cheapest
	// it takes the one that the prompt prefers (affinity.go).
	ScoreAffinity = "affinity"
	// ScorePrefix takes the node that holds most of the prompt itself, whatever waits
	// there; of equals the cheapest.
	ScorePrefix = "prefix"
	// ScoreLoad takes the node with the least to do, whatever it holds; of equals the
	// cheapest.
	ScoreLoad = "load"
)

// ScorerConfig is what the scorers that come with the package need to know. The zero
// value is usable.
type ScorerConfig struct {
	// AffinityTolerance is how much later than from the cheapest node the first token may
	// come from the one that the prompt prefers, as a share, up to 1, of the least time
	// that any node needs to compute what it finds nowhere. 0 is
	// DefaultAffinityTolerance; only ScoreAffinity uses it.
	AffinityTolerance float64 `json:"affinity_tolerance"`
}

// Validate reports what is wrong; it matches [ErrConfig].
func (c ScorerConfig) Validate() error {
	if !(c.AffinityTolerance >= 0 && c.AffinityTolerance <= 1) {
		return fmt.Errorf("%w: affinity_tolerance is %v: want a share of up to 1, or 0 for %v",
			ErrConfig, c.AffinityTolerance, DefaultAffinityTolerance)
	}
	return nil
}

// NamedScorer is the scorer of that name; nil for ScoreTTFT, which needs none.
func NamedScorer(name string, c ScorerConfig) (Scorer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch name {
	case "", ScoreTTFT:
		return nil, nil
	case ScoreAffinity:
		return affinity{cmp.Or(c.AffinityTolerance, DefaultAffinityTolerance)}, nil
	case ScorePrefix:
		return each{ScorePrefix, func(q *Request, c *Candidate) float64 {
			return float64(len(q.Keys)-c.Prefix) + c.Cost*tieBreak
		}}, nil
	case ScoreLoad:
		return each{ScoreLoad, func(_ *Request, c *Candidate) float64 {
			return c.Terms.Queue + c.Terms.Decode + c.Cost*tieBreak
		}}, nil
	}
	return nil, fmt.Errorf("%w: scorer %q: want %s, %s, %s or %s", ErrConfig, name, ScoreTTFT, ScoreAffinity, ScorePrefix, ScoreLoad)
}

// tieBreak is the weight of the time to first token where something else decides.
const tieBreak = 1e-3

// each is a scorer that looks at one node at a time.
type each struct {
	name string
	cost func(*Request, *Candidate) float64
}

func (s each) Name() string { return s.name }

func (s each) Score(q *Request, nodes []Candidate) {
	for i := range nodes {
		nodes[i].Cost = s.cost(q, &nodes[i])
	}
}

// score replaces the costs of the candidates, if the configuration says so.
func (c *Config) score(q *Request, nodes []Candidate) {
	if c.Scorer == nil {
		return
	}
	c.Scorer.Score(q, nodes)
	for i := range nodes {
		d := &nodes[i]
		d.Terms.Scorer = d.Cost - d.Terms.Total()
	}
}
