package client

import "sync/atomic"

// session is how far into the coherence log this client has seen, through whichever
// node. Nodes say so behind the answer to every read and change of a name, in the same
// round trip, and a Session read tells the node.
type session struct {
	sequence atomic.Uint64
	// blind: a change was acknowledged, but the connection broke before the sequence
	// came. Session reads are strict until a strict one has made up for it.
	blind atomic.Bool
}

func (s *session) learn(sequence uint64) {
	for {
		old := s.sequence.Load()
		if sequence <= old || s.sequence.CompareAndSwap(old, sequence) {
			return
		}
	}
}

// Session is how far this client has seen the changes of names: the sequence of a
// message in the coherence log. Another process that gives it to Resume continues
// the session: its Session reads see at least as much.
func (c *Client) Session() uint64 { return c.session.sequence.Load() }

// Resume makes the client continue a session, in addition to its own.
func (c *Client) Resume(sequence uint64) { c.session.learn(sequence) }
