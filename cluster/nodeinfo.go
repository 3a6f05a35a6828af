package cluster

import (
	"fmt"
	"strconv"

	"cairn/router"
)

// Labels in which a member says what routers reckon with. All labels of a member are what
// requests may choose it by.
const (
	// LabelPrefillRate says how many tokens a second its engine prefills; routers use it
	// instead of their default.
	LabelPrefillRate = "prefill_tokens_per_second"
	// LabelDrain set to true asks routers to send no new request.
	LabelDrain = "drain"
	// LabelBlockTokens, LabelHash and LabelSalt say how its blocks are cut and named. A
	// router that expects otherwise leaves the member out.
	LabelBlockTokens = "block_tokens"
	LabelHash        = "hash_version"
	LabelSalt        = "salt"
	// LabelQueuedTokens says how many tokens wait for prefill in its engine;
	// LabelActiveRequests and LabelActiveBlocks what it decodes. Routers take them as that
	// node's load.
	LabelQueuedTokens   = "queued_tokens"
	LabelActiveRequests = "active_requests"
	LabelActiveBlocks   = "active_blocks"
)

// nodeInfo is what the index is told of a member. A label that cannot be read is an
// error, and counts as not being there; draining counts as wanted.
func nodeInfo(m Member, generation uint64) (router.NodeInfo, error) {
	info := router.NodeInfo{
		ID: m.ID, Incarnation: generation, Addr: m.Addr, Labels: m.Labels,
		Layout: router.Layout{Hash: m.Labels[LabelHash], Salt: m.Labels[LabelSalt]},
	}
	var bad error
	if text, ok := m.Labels[LabelPrefillRate]; ok {
		rate, err := strconv.ParseFloat(text, 64)
		if err == nil && rate >= 0 {
			info.PrefillTokensPerSecond = rate
		} else {
			bad = labelError(LabelPrefillRate, text, "a number of tokens a second")
		}
	}
	if text, ok := m.Labels[LabelBlockTokens]; ok {
		n, err := strconv.Atoi(text)
		if err == nil && n > 0 {
			info.Layout.BlockTokens = n
		} else {
			bad = labelError(LabelBlockTokens, text, "a number of tokens")
		}
	}
	if text, ok := m.Labels[LabelDrain]; ok {
		drain, err := strconv.ParseBool(text)
		if err != nil {
			drain, bad = true, labelError(LabelDrain, text, "true or false")
		}
		info.Draining = drain
	}
	return info, bad
}

// memberLoad is the load that a member tells in its labels; ok is false when it tells none.
func memberLoad(m Member) (load router.Load, ok bool, err error) {
	number := func(label string) int {
		text, there := m.Labels[label]
		if !there {
			return 0
		}
		ok = true
		n, e := strconv.Atoi(text)
		if e != nil {
			err = labelError(label, text, "a number")
		}
		return n
	}
	load.QueuedTokens = number(LabelQueuedTokens)
	queued := ok
	ok = false
	active := router.Active{Requests: number(LabelActiveRequests), Blocks: number(LabelActiveBlocks)}
	if ok {
		load.Active = &active
	}
	return load, ok || queued, err
}

func labelError(label, text, want string) error {
	return fmt.Errorf("cluster: label %s is %.80q: want %s", label, text, want)
}
