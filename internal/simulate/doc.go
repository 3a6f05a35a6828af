// Package simulate replays requests through the real router and the real eviction
// policies against virtual nodes, in virtual time, beside other ways of routing
// and bounds that no real cluster reaches.
//
// # Model
//
// A node computes one prompt at a time, in order of arrival. A prompt takes the time to
// compute the blocks that are not cached, plus a tenth of that for each block
// fetched from another node ([Config.FetchCost]); a block held by the node itself
// costs nothing. With cairn-ahead blocks come one after another over the node's link from the
// prompt's arrival on, and the prompt begins when the last one is there. The time to first token is the wait and that. Nodes are so fast that
// without any cache they would be busy for the share [Config.Load] of the time.
//
// A hit is a block of the prompt that need not be computed, and so one whose whole
// prefix is held. What a prompt computes is held from its arrival on: a later
// prompt on the same node waits for it anyway. Answers are not cached. Routers know
// the nodes' blocks and queues exactly and at once.
//
// # Policies
//
//	random, round-robin, least-loaded   as they say; every node for itself
//	hash          rendezvous hashing on the first two blocks
//	dynamo        least blocks to compute, queued ones included: the cost of NVIDIA
//	              Dynamo's router where, as here, no prompt is being decoded
//	llm-d         highest 2 × (share of the prompt that is cached) + load score, as
//	              llm-d's inference scheduler weighs its prefix and load scorers
//	cairn         package router: least estimated time to first token, missing
//	              blocks fetched from peers, which keep them
//	cairn-copy    the same; the node keeps what it fetched too
//	cairn-affinity  as cairn, with the router's scorer affinity: of the nodes that cost
//	              little more than the best, the one that the prompt prefers
//	cairn-ahead   as cairn and as nodes and routers are by default: blocks are fetched
//	              while the prompt waits, and one that is fetched again within two
//	              minutes is kept
//	pool          all memory is one cache that every node reads for nothing; least
//	              loaded node: a bound for routing
//	belady        the same with knowledge of the future: evicts the leaf used
//	              again last; a bound for eviction
//
// Each may be followed by / and a policy of package eviction: "dynamo/hazard".
// Without one, cairn its variants have hazard, the others lru.
package simulate
