// Package client is what an application imports to use a Cairn cluster: blocks by
// key, named blocks, the longest cached prefix, and the best node for a request.
//
// A [Client] speaks to any of the nodes it is given and moves on to the next when
// one fails; [Client.Node] is one particular node, for an application that goes
// where a [Client.Route] sends it. Both may be used in parallel.
//
// Blocks are received into the caller's memory and their checksums verified on
// arrival: a read returns the right bytes, [ErrNotFound], or another error. Named
// blocks travel as plain Redis values, which have no checksum of their own.
//
// # Named blocks
//
// A named block is a pointer that can be changed, to bytes that cannot. Its changes
// and its [Strict] reads are linearizable: they behave as if one machine did them, one
// after the other. Weaker reads are cheaper, and say how old they may be: [Session],
// which is the default, [Bounded], [Local]. To change a block by what it was, use
// [Client.Update], or [Client.CompareAndSet] with the version that was read.
// [Client.Watch] tells of changes.
//
// A change ends in one of three ways, and errors.Is tells which: it was made (nil); it
// was not made, and never will be by this call (all other errors); or nobody can tell
// ([ErrUnknownOutcome]), because the answer was lost on its way. The third is never
// tried again behind the caller's back; [Resend] allows it where twice is as good as
// once. What is only unavailable at one node is tried at the others.
//
// # Engrams
//
// An [Engram] is a sparse vector that is stored as a named block: a memory that several
// workers learn into. It is loaded, changed on host or on a device, and committed with the
// version that it builds upon; see [cairn/engram].
//
// # Sequences
//
// A [Sequence] is one request of an engine at one node. [Sequence.Onboard] brings what is
// cached of it into GPU memory or host memory of that node, from wherever it is, and
// keeps it in place; [Sequence.Commit] stores what the engine computes. It is for who
// decodes there; who only wants the bytes uses [Node.GetBatch].
//
// # GPU memory
//
// A [Device] is the GPU memory of a node on the same machine, mapped by an engine: a
// [View] is a block that is read where it lies, a [Slot] is room that the engine fills and
// commits as a block or as a version of a name.
//
// # Sessions
//
// A Client remembers how far each node's announcements went when it answered a Put,
// and later Matches wait until the node that is asked has seen as much. So what
// a Client has put, it finds, at whichever node it asks. Likewise it remembers how far
// into the coherence log its reads and changes of names went, and its [Session] reads
// are never older than that; [Client.Resume] hands this on to another process.
package client
