// Package replay plays a recorded trace against a running cluster, with real
// bytes, and checks every byte that comes back.
//
// For each request of the trace, as an inference engine would do it: ask where
// the request should go; match its blocks there; read the prefix that the cluster
// has; put the blocks that it lacks. A block's bytes are generated from its key
// ([Fill]), so the replay knows them without keeping them, and a wrong byte is
// found wherever it came from ([Check]).
//
// # Order
//
// Several workers play the trace, and still every block is put once, and the hit
// ratio of a cluster with room enough equals the one of an infinite cache: a
// request that shares blocks with an earlier one that is about to put them waits
// for it, as the second request of an engine waits for the first to compute their
// common prefix. Requests wait only for earlier ones, so the earliest unfinished
// request always runs, and there is no deadlock.
//
//	trace → dispatch (order.go: who puts what) → workers (request.go) → collector → Summary
//
// # Failure
//
// An error at a node is counted and the request is routed again without it. A
// request that fails everywhere is counted and left; when no request succeeds
// for [Config.GiveUp], the run ends with [ErrClusterDown].
package replay
