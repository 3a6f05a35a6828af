// Package cluster is where Cairn speaks NATS, and the only place: the
// connection, the embedded server, membership by leases, the coherence log,
// placement events, and the router's service.
//
// # Names on NATS
//
// layout.go has every name, and [Ensure] creates what it lists. Everything has
// a description and metadata, so that the nats command explains it by itself;
// "nats stream ls" and "nats micro ls" are the places to begin.
//
//	CAIRN_PLACE       stream, cairn.v1.place.<node>.<what>. What each node holds, as
//	                  ordered batches of changes. In memory, one hour or 64 MiB:
//	                  who was away for longer starts from a snapshot, so nothing
//	                  here needs a disk.
//	                  nats stream view CAIRN_PLACE
//	CAIRN_COH_0       stream, cairn.v1.coh.0.<node>. The coherence log: every change of
//	                  every named block, packed into messages, on disk. The sequence
//	                  of the stream is the order of all of them.
//	                  nats stream subjects CAIRN_COH_0
//	cairn_members     bucket. One record a member, in JSON, which the server expires
//	                  with the member's lease.
//	                  nats kv ls cairn_members; nats kv watch cairn_members
//	cairn_snapshots   object store, place/<node>/<slot>. What each node holds, written
//	                  by itself to two slots in turn, so that the newest is never
//	                  disturbed. From where a late router starts.
//	                  nats object ls cairn_snapshots
//	cairn-node        service, cairn.v1.rpc.<node>.<op>: each node answers for itself.
//	                  nats req cairn.v1.rpc.<node>.<op> '{}'
//	                  And cairn.v1.onboard.<node>: which blocks to bring into memory ahead of
//	                  a request, told by the router that has chosen the node; keys and a
//	                  tier, at most MaxOnboardKeys of them, and nobody waits.
//	cairn-router      service, cairn.v1.route: one router of all answers. What one has
//	                  decided, and what one is told, all hear: cairn.v1.route.>
//	                  nats micro stats cairn-router
//
// Replicas are 3 where the server is part of a NATS cluster and 1 otherwise
// ([ConnConfig].Replicas chooses); Ensure raises them and never lowers them.
// The coherence log's leader repeats every message (RePublish), once for all readers and
// as soon as it is stored. Readers start with a consumer, go over to that when it reaches
// back far enough, and return to a consumer when a sequence is missing: a round trip
// through the log takes 1.5 bare publishes instead of 2.5, and the servers have one
// delivery to make instead of one consumer for each node.
//
// There is no durable consumer: each would be one more Raft group, and a node
// that comes back knows by itself where it was.
//
// # Membership
//
// A member is a record that lives as long as its lease: the author publishes it
// with a time to live and with the sequence that it expects to replace. Three
// clocks are involved, ordered so that nobody acts after others believe it gone:
//
//	holder    TTL from the moment at which it SENT the last renewal that was
//	          confirmed, on its monotonic clock
//	watcher   TTL×(1+drift) from the record's receipt, and only when another
//	          member's record in the log is later by as much
//	server    TTL×(1+drift) in whole seconds, rounded up, from the moment at which it
//	          stored the record; then it leaves a marker
//
// An outage of NATS therefore costs every holder its lease after one TTL, and
// tells watchers nothing: they expire nobody while they cannot see the log.
// A holder that comes back does so as a new incarnation ([Lease.Rejoin]). Assumed
// are a bounded difference in the rate of clocks, and that no two
// processes hold the lock of one data directory. The monotonic clock stands
// while a machine is suspended, so a virtual machine that was paused for longer
// than a lease believes in it until its next renewal is refused.
//
// # The embedded server
//
// [StartServer] runs NATS inside the process. Alone it needs no configuration;
// three of them with routes to each other make a cluster that survives the loss
// of one. Files are synced every two minutes unless SyncAlways is set: a crash
// of the process loses nothing that was acknowledged, a power failure may.
package cluster
