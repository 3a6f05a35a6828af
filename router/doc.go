// Package router knows which node holds which block, and sends requests where
// their blocks are. It does no I/O and starts no goroutine: whoever owns it feeds
// it events and asks it questions. It lives in the router process and, as an
// index of peers, in every node.
//
// # Index
//
// [Index] is a flat table from block key to the set of {node, tiers} that hold
// the block. There is no tree, because a block's key already names its prefix
// (package sequence). Readers take no lock and do not allocate; one writer at a time
// changes the table (table.go says how they meet). A prefix is found by looking every block
// up (exact.go), or by bisection, which needs nodes to advertise prefix-closed sets
// (bisect.go).
//
// A node numbers the changes of what it holds 1, 2, 3… from each start, its
// incarnation. [Index.Apply] takes batches of them in any grouping: what was
// seen before is skipped, a gap is refused with [*GapError], upon which the
// owner asks the node for a snapshot and calls [Index.Load]. Incarnations must
// grow from start to start of a node (the time of start does): events of an older
// one are ignored, a newer one discards what was known. A node is visible in
// answers from [Index.SetNode] until [Index.RemoveNode]; both take effect at once,
// and the entries of the departed are swept out of the table bit by bit.
//
// The index trails the truth by the delay of events, and tells keys apart by 57
// bits of hash and 6 of depth. So every answer is a hint: whoever fetches a block from
// a holder verifies what arrives, and takes "not found" for a miss.
//
// Memory may be bounded ([IndexConfig].MaxBytes). At the bound the deepest blocks go,
// for all nodes at once, so that what stays is prefix-closed (memory.go).
//
// # Cost
//
// [Router] ranks nodes by estimated time to first token, in seconds:
//
//	queue     tokens waiting for prefill ahead of this request / prefill rate
//	prefill   tokens of the request that are not cached / prefill rate
//	local     bytes held by the node's own tiers / bandwidth of each tier
//	peer      bytes held only by others / bandwidth of the network and of their tier
//	decode    per chunk of prefill, one token and the blocks of every request being decoded
//
// A block that the node holds counts as local and no other; of the blocks that it
// lacks, those that a peer holds count as peer as far as the prefix goes on
// unbroken. Where computing is faster than fetching, the cached prefix is cut
// shorter. Where nodes are told to fetch ahead of the request (ahead.go), of peer and of what is
// read from disk only what takes longer than the queue counts. A [Scorer] may put something else in
// the place of this cost; affinity.go has one that decides among nodes that cost nearly the same.
// [Decision.Explain] prints every term.
//
// Who may be chosen at all is a matter of filters: names, labels, nodes that drain, and
// layouts (filter.go, layout.go). A session stays on its node while that is not much
// dearer (session.go). Routers that share nodes tell each other what they decide
// ([Router.Observe]).
package router
