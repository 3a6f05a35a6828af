// Package client is what an application imports to use a Cairn cluster: blocks by
// key, named blocks, the longest cached prefix, and the best node for a request.
//
// A [Client] speaks to any of the nodes it is given and moves on to the next when
// one fails; [Client.Node] is one particular node, for an application that goes
// where a [Client.Route] sends it. Both may be used in parallel.
//
// Blocks are received into the caller's memory and their checksums verified on
// arrival: a read returns the right bytes, [ErrNotFound], or another error. Names
// travel as plain Redis values, which have no checksum of their own.
//
// A Client remembers how far each node's announcements went when it answered a Put,
// and later Matches wait until the node that is asked has seen as much. So what
// a Client has put, it finds, at whichever node it asks.
package client
