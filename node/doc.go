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
//	sequence.go, sequence_*.go what an engine's request has in place: onboarded, committed, cut
//	sequences.go               all of them, and how much they may pin
//	prefetch.go                blocks brought into memory ahead of the requests for them
//	handover.go, handover_*.go what only this node has goes to others, while it drains
//	take.go                    the other side of that
//	names.go, names_*.go       named blocks: read, written, ended
//	nametable.go, overlay.go   their pointers, as the log has them, and what only this node has
//
// Named blocks are kept coherent by package protocol, whose machine is run by one
// goroutine (coherence.go). Events reach it by a queue (coherence_queue.go): from
// the log (coherence_log.go), from clients, and from what it asked for before. What it
// asks for is done in coherence_effects.go; the part that takes time, beside it:
//
//	coherence_stage.go         objects go to their homes, in batches
//	coherence_home.go          this node is a home: what is staged here, also after a restart
//	coherence_ask.go           questions to owners and homes
//	coherence_drain.go         which members are about to leave
//	coherence_snapshot.go      the state of the log, kept and restored
//
// A read looks at the overlay, then at the table. If that is enough for the
// freshness it asks for, the goroutine is not involved.
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
