package node

import (
	"fmt"

	"cairn/block"
	"cairn/tier"
)

// Origin says where the bytes of a read came from.
type Origin uint8

// The origins; the first three are the tiers of this node.
const (
	FromVRAM Origin = Origin(block.VRAM)
	FromHost Origin = Origin(block.Host)
	FromDisk Origin = Origin(block.Disk)
	FromPeer Origin = block.Tiers

	origins = block.Tiers + 1
)

// String is the tier's name, or "peer".
func (o Origin) String() string {
	if o == FromPeer {
		return "peer"
	}
	return block.Tier(o).String()
}

// Loan is the bytes of a block, lent to one reader until Release.
type Loan struct {
	block.Descriptor
	// Bytes are read-only and valid until Release.
	Bytes []byte
	// Origin says who gave them.
	Origin Origin

	view    tier.View  // set when the bytes lie in the host tier
	room    *broadcast // who waits for room there
	fetched *fetched   // set when they came from a peer
}

// Release ends the loan. It must be called exactly once.
func (l *Loan) Release() {
	switch {
	case l.fetched != nil:
		l.fetched.release()
	default:
		l.view.Release()
		if l.room != nil {
			l.room.notify()
		}
	}
	l.Bytes = nil
}

func (l *Loan) String() string {
	return fmt.Sprintf("%s: %d bytes from %s", l.Key, l.Length, l.Origin)
}
