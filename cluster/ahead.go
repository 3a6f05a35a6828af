package cluster

import (
	"encoding/json"
	"fmt"
	"time"

	"cairn/block"
	"cairn/router"
)

// opOnboard names the endpoint of [OnboardMessage].
const opOnboard = "onboard"

// MaxOnboardKeys bounds the keys of an [OnboardMessage], so that it stays far below what
// NATS takes in a message, 1 MiB: of a longer prompt the first part is fetched ahead.
const MaxOnboardKeys = 8192

// OnboardMessage tells a node, on cairn.v1.onboard.<node>, to bring the leading blocks of
// a sequence into memory ahead of a request. Nobody waits for an answer; who asks gets
// an [OnboardAnswer]. A message that is lost costs the request the time that it would have
// saved.
type OnboardMessage struct {
	Tier block.Tier `json:"tier"` // host or vram
	// Keys are those of all blocks, from the first one of the sequence on, 35 bytes each.
	Keys []block.Key `json:"keys"`
	// Wait is in how many milliseconds the request is expected to need them.
	Wait int64 `json:"wait_ms,omitempty"`
}

// OnboardAnswer says how many blocks the node has taken on.
type OnboardAnswer struct {
	Blocks int `json:"blocks"`
}

// Validate reports what is wrong with a message that somebody has sent.
func (m *OnboardMessage) Validate() error {
	switch {
	case m.Tier != block.Host && m.Tier != block.VRAM:
		return fmt.Errorf("cluster: onboard into %s: want host or vram", m.Tier)
	case len(m.Keys) == 0 || len(m.Keys) > MaxOnboardKeys:
		return fmt.Errorf("cluster: onboard of %d keys: want 1 to %d", len(m.Keys), MaxOnboardKeys)
	case m.Wait < 0:
		return fmt.Errorf("cluster: onboard in %d ms", m.Wait)
	}
	return nil
}

// serveOnboard answers for a node.
func serveOnboard(cfg NodeServiceConfig, m OnboardMessage) (OnboardAnswer, error) {
	if err := m.Validate(); err != nil {
		return OnboardAnswer{}, &RPCError{CodeBadRequest, err.Error()}
	}
	if err := cfg.Onboard(m); err != nil {
		return OnboardAnswer{}, &RPCError{CodeUnavailable, err.Error()}
	}
	return OnboardAnswer{Blocks: len(m.Keys)}, nil
}

// tellAhead tells the chosen node what to bring ahead of the request with these keys. It
// does not wait, and reports whether the message is on its way.
func (s *RouterService) tellAhead(node string, a *router.Ahead, keys []block.Key) bool {
	m := OnboardMessage{Tier: a.Tier, Keys: keys[:min(a.Blocks, MaxOnboardKeys)], Wait: int64(a.Wait * float64(time.Second/time.Millisecond))}
	body, err := json.Marshal(m)
	if err == nil {
		err = s.view.conn.NC.Publish(OnboardSubject(node), body)
	}
	if err != nil {
		s.cfg.Logger.Debug("a node was not told to fetch ahead", "to", node, "error", err)
		return false
	}
	s.toldAhead.Add(1)
	return true
}
