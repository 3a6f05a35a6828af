package router

import "cairn/block"

// A lane is one holder of a block: the node's slot number, 12 bits, and its
// tiers, 3 bits, never empty. A lane of zero is no holder.
//
// The value word of a block is one of
//
//	0                                     nobody holds the block
//	0 | lane | lane | lane | lane         up to four holders, lowest slot in the lowest
//	                                      bits, 15 bits each; so equal sets are equal words
//	1 | class, 5 bits | offset, 32 bits   a set in the shard's arena
//
// A set in the arena is one word with the number of holders, then their lanes,
// four to a word of 16 bits each, in no order.
type lane = uint16

const (
	tierBits   = block.Tiers
	tierMask   = 1<<tierBits - 1
	laneBits   = 15
	laneMask   = 1<<laneBits - 1
	inlineMost = 4

	setFlag    = 1 << 63
	classShift = 32
	classMask  = 1<<5 - 1
	// classes of arena sets: 8, 16 … 4096 lanes, so that the largest has room
	// for every node.
	classes    = 10
	classLanes = 8
)

// MaxNodes is the largest number of nodes that an index can tell apart, counting
// those that are gone and not swept yet.
const MaxNodes = 1 << (laneBits - tierBits)

func makeLane(slot int, tiers block.TierMask) lane { return lane(slot<<tierBits) | lane(tiers) }
func laneSlot(l lane) int                          { return int(l >> tierBits) }
func laneTiers(l lane) block.TierMask              { return block.TierMask(l & tierMask) }

func isSet(word uint64) bool           { return word&setFlag != 0 }
func setClass(word uint64) int         { return int(word>>classShift) & classMask }
func setOffset(word uint64) int        { return int(uint32(word)) }
func setWord(class, offset int) uint64 { return setFlag | uint64(class)<<classShift | uint64(offset) }
func setLanes(class int) int           { return classLanes << class }
func setWords(class int) int           { return 1 + setLanes(class)/4 }

// inlineLanes appends the holders of an inline word.
func inlineLanes(dst []lane, word uint64) []lane {
	for ; word != 0; word >>= laneBits {
		dst = append(dst, lane(word&laneMask))
	}
	return dst
}

// packInline is the word of at most four lanes; it sorts them.
func packInline(lanes []lane) uint64 {
	for i := 1; i < len(lanes); i++ {
		for j := i; j > 0 && lanes[j] < lanes[j-1]; j-- {
			lanes[j], lanes[j-1] = lanes[j-1], lanes[j]
		}
	}
	var word uint64
	for i := len(lanes) - 1; i >= 0; i-- {
		word = word<<laneBits | uint64(lanes[i])
	}
	return word
}

// withTier is lanes with or without one tier of one node. It works in place, and
// tells whether that changed anything.
func withTier(lanes []lane, slot int, tier block.Tier, stored bool) ([]lane, bool) {
	bit := lane(1) << tier
	for i, l := range lanes {
		if laneSlot(l) != slot {
			continue
		}
		if stored == (l&bit != 0) {
			return lanes, false
		}
		lanes[i] = l ^ bit
		if lanes[i]&tierMask == 0 {
			lanes[i] = lanes[len(lanes)-1]
			lanes = lanes[:len(lanes)-1]
		}
		return lanes, true
	}
	if !stored {
		return lanes, false
	}
	return append(lanes, makeLane(slot, 0)|bit), true
}
