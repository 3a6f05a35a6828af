// Package mutant breaks the coherency protocol on purpose, so that its proofs can
// show that they would notice. In an ordinary build [Is] is constant and false,
// and the compiler removes what depends on it; a build with the tag cairn_mutant
// can choose one of the mutations.
package mutant

// Name is one way to break the protocol.
type Name uint8

// The mutations.
const (
	None             Name = iota
	AckOnPublish          // a write is acknowledged when its record is sent, not when it is applied
	SkipFence             // a strict read is served without a fence
	ServeUnsettled        // in lease mode a version is served before all live members have applied it
	WriteWhileFlush       // an owner writes while a flush of its own is undecided
	ImplicitRevoke        // the death of an owner frees its blocks without a declared loss
	LeaseFromReceipt      // a lease runs from when the node's message came back
	CollectEarly          // a staged object is collected while its record may still be effective
	ExpireAnyway          // an Expire counts although the member was heard of later
	WriteAfterLapse       // an owner writes without a lease
	AckBarrierEarly       // a barrier is acknowledged before everything dirty is flushed
	TakeStale             // a message that comes twice counts twice
	ZombieFlush           // a Flush counts whatever its token
	AckBeforeStaged       // a replicated write is acknowledged before it is staged
	IgnoreVersion         // the condition of a commit is not looked at
	SettleEarly           // an acknowledgement by all waits for nobody
	names
)

// All are the mutations, without None.
func All() []Name {
	all := make([]Name, 0, names-1)
	for n := None + 1; n < names; n++ {
		all = append(all, n)
	}
	return all
}

// String is the mutation's name in words.
func (n Name) String() string {
	if n >= names {
		return "unknown"
	}
	return words[n]
}

var words = [names]string{"none", "ack on publish", "skip the fence", "serve unsettled", "write while a flush is undecided",
	"implicit revoke", "lease from receipt", "collect early", "expire anyway", "write after lapse", "ack barrier early",
	"take stale messages", "zombie flush", "ack before staged", "ignore version", "settle early"}
