// Package node puts the tiers of one machine under the coherency protocol and
// serves their blocks.
//
// It knows the tiers only as the interfaces of package tier, and the cluster only
// as the interfaces of ports.go. One file holds one step of the data path:
//
//	serve.go → commands_*.go   a request arrives
//	get.go                     local tiers, fastest way to host memory first
//	fetch.go                   peers, batched, one fetch for concurrent misses
//	put.go                     reserve, receive in place, verify, commit
//	offload.go                 dirty blocks go to their home tier in the background
//	promote.go                 blocks in use go up to GPU memory
//	directory.go               which tier holds which block: the one truth of a node
//	names.go                   names that users give to blocks, ordered by the cluster's log
//
// The directory announces its own changes: a copy that becomes valid, or stops
// being so, is an event by construction, in the order in which it happened.
//
// # Locks
//
// A directory shard's lock is held for a transition of one block's state and for
// queueing its announcement, never while bytes move. The stores have locks of
// their own and are never called with a shard locked, except for Stat, which
// takes only the store's.
package node
