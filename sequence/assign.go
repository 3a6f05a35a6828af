package sequence

import (
	"slices"

	"cairn/block"
)

// ExtendBlockIDs appends slots to the pending ones. ids may be the whole ordered
// list of a tier's slots for this sequence: a leading run of ids that are known
// is skipped. A known id after a new one gives an [*OrderingError], a new id that
// occurs twice a [*DuplicateError]; then nothing is changed.
func (a *Assignments[P]) ExtendBlockIDs(ids []BlockID) error {
	before := len(a.pending.ids)
	firstNew := len(ids)
	for i, id := range ids {
		if a.known.add(id) {
			firstNew = min(firstNew, i)
			a.pending.ids = append(a.pending.ids, id)
			continue
		}
		if i < firstNew {
			continue
		}
		added := a.pending.ids[before:]
		var err error = &OrderingError{KnownID: id, NewID: ids[firstNew], KnownIndex: i, FirstNewIndex: firstNew}
		if slices.Contains(added, id) {
			err = &DuplicateError{ID: id}
		}
		for _, id := range added {
			a.known.remove(id)
		}
		a.pending.ids = a.pending.ids[:before]
		return err
	}
	return nil
}

// ExtendAssigned appends blocks whose bytes are already in their slots, such as
// hits in a cache, behind the assigned ones, and takes over their pins. It
// returns the range of their indices among the assigned blocks. Slots that are
// pending stay so, and move up by as many positions.
//
// A block whose key is not of the next position gives a [*PositionMismatchError],
// an id that is known or occurs twice a [*DuplicateError], and a call while
// blocks are staged a [*StagedError]; then nothing is changed, and the pins
// remain the caller's.
func (a *Assignments[P]) ExtendAssigned(blocks []Block[P]) (Range, error) {
	first := a.committed
	none := Range{first, first}
	if staged := a.StagedCount(); staged > 0 {
		return none, &StagedError{Staged: staged}
	}
	for i, b := range blocks {
		err := checkKey(b.Key, a.NextPosition()+i, b.ID)
		if err == nil && !a.known.add(b.ID) {
			err = &DuplicateError{ID: b.ID}
		}
		if err != nil {
			a.forget(blocks[:i])
			return none, err
		}
	}
	a.blocks = append(a.blocks, blocks...)
	a.committed = len(a.blocks)
	return Range{first, a.committed}, nil
}

// StagePending gives pending slots, in order, the keys of the next blocks of the
// sequence, as far as there are slots and keys. keys is the keys of all whole
// blocks of the sequence from its start, as [TokenSequence.Keys] has them; it is
// only read. It returns the range of what was staged, as indices among the
// staged blocks.
//
// A key that is not of its position gives a [*PositionMismatchError]; then
// nothing is changed.
func (a *Assignments[P]) StagePending(keys []block.Key) (Range, error) {
	first := a.StagedCount()
	next := a.NextPosition()
	keys = keys[min(next, len(keys)):]
	ids := a.pending.waiting()
	n := min(len(keys), len(ids))
	for i, id := range ids[:n] {
		if err := checkKey(keys[i], next+i, id); err != nil {
			return Range{first, first}, err
		}
	}
	a.blocks = slices.Grow(a.blocks, n)
	for i, id := range ids[:n] {
		a.blocks = append(a.blocks, Block[P]{ID: id, Key: keys[i]})
	}
	a.pending.drop(n)
	return Range{first, first + n}, nil
}

// CommitStaged makes the staged blocks assigned, without pins, and returns the
// range of their indices among the assigned blocks. The bytes are in the slots
// now, and whoever owns these keeps them there.
func (a *Assignments[P]) CommitStaged() Range {
	first := a.committed
	a.committed = len(a.blocks)
	return Range{first, a.committed}
}

// CommitPinned makes the first len(pins) staged blocks assigned: their bytes are
// registered in the tier now, and pins[i] holds those of the i-th. It takes over
// the pins, and returns the range of the blocks' indices among the assigned ones.
// More pins than staged blocks give a [*PinsError]; then nothing is changed, and
// the pins remain the caller's.
func (a *Assignments[P]) CommitPinned(pins []P) (Range, error) {
	first := a.committed
	staged := a.staged()
	if len(pins) > len(staged) {
		return Range{first, first}, &PinsError{Pins: len(pins), Staged: len(staged)}
	}
	for i, pin := range pins {
		staged[i].Pin = pin
	}
	a.committed += len(pins)
	return Range{first, a.committed}, nil
}

// AssignPending is [Assignments.StagePending] and then
// [Assignments.CommitStaged], whose range it returns: what had been staged
// before is in it.
func (a *Assignments[P]) AssignPending(keys []block.Key) (Range, error) {
	if _, err := a.StagePending(keys); err != nil {
		return Range{a.committed, a.committed}, err
	}
	return a.CommitStaged(), nil
}

// TakeStaged removes the staged blocks and returns them, by ascending position:
// their bytes will not come. Their ids are unknown afterwards. The caller owns
// the result.
func (a *Assignments[P]) TakeStaged() []Block[P] {
	staged := slices.Clone(a.staged())
	a.forget(staged)
	a.blocks = a.assigned()
	return staged
}

// Truncate follows a sequence that was truncated or unwound to end blocks, such as
// [TokenSequence.Blocks] says. It releases the pins of the assigned blocks at position
// end or beyond, by ascending position, and forgets every slot there, whichever its
// phase; slots that waited for a block before end go on waiting. With an end that no
// slot reaches it does nothing.
func (a *Assignments[P]) Truncate(end int) {
	keep := max(end-a.offset, 0)
	for _, id := range a.pending.cut(max(keep-len(a.blocks), 0)) {
		a.known.remove(id)
	}
	if keep >= len(a.blocks) {
		return
	}
	for _, b := range a.blocks[min(keep, a.committed):a.committed] {
		b.Pin.Release()
	}
	cut := a.blocks[keep:]
	a.forget(cut)
	clear(cut)
	a.blocks, a.committed = a.blocks[:keep], min(keep, a.committed)
}

// Clear releases every pin, by ascending position, and forgets every slot. The
// offset stays.
func (a *Assignments[P]) Clear() {
	for _, b := range a.assigned() {
		b.Pin.Release()
	}
	clear(a.blocks)
	a.blocks, a.committed = a.blocks[:0], 0
	a.pending.drop(a.PendingCount())
	clear(a.known)
}

func (a *Assignments[P]) forget(blocks []Block[P]) {
	for _, b := range blocks {
		a.known.remove(b.ID)
	}
}

// checkKey accepts the key of a sequence's block at position, for the slot id.
func checkKey(key block.Key, position int, id BlockID) error {
	if key.Named() || key.Position() != position {
		return &PositionMismatchError{Expected: position, Actual: key.Position(), ID: id}
	}
	return nil
}
