package sequence

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"cairn/block"
)

// pair is one Assignments beside the naive one, which must not differ.
type pair struct {
	real  *Assignments[lease]
	model naive
	log   []string // names of the pins that real has released
}

// model drives two tiers over one sequence by a program of choices.
type model struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
		Logf(string, ...any)
	}
	// choose gives a number from 0 to n−1.
	choose func(n int) int
	keys   []block.Key
	tiers  [2]*pair
	pins   int // pins made, for their names
}

const modelIDs = 24 // few, so that slots meet often

func (m *model) run(steps int) {
	for i := range m.tiers {
		offset := m.choose(4)
		real, err := NewAssignments[lease](offset)
		if err != nil {
			m.t.Fatalf("offset %d: %v", offset, err)
		}
		m.tiers[i] = &pair{real: real, model: naive{offset: offset}}
	}
	for range steps {
		p := m.tiers[m.choose(2)]
		m.step(p)
		m.compare(p)
		m.compareZips()
	}
}

func (m *model) step(p *pair) {
	m.t.Helper()
	switch m.choose(8) {
	case 0, 1:
		list := m.someIDs(p)
		m.same(fmt.Sprintf("ExtendBlockIDs(%v)", list), p.real.ExtendBlockIDs(list), p.model.extendBlockIDs(list))
	case 2:
		blocks := m.someBlocks(p)
		r, err := p.real.ExtendAssigned(blocks)
		want, wantErr := p.model.extendAssigned(blocks)
		m.same(fmt.Sprintf("ExtendAssigned(%v): %v, want %v", blocks, r, want), err, wantErr, r == want)
	case 3:
		keys := m.someKeys()
		r, err := p.real.StagePending(keys)
		want, wantErr := p.model.stagePending(keys)
		m.same(fmt.Sprintf("StagePending(%d keys): %v, want %v", len(keys), r, want), err, wantErr, r == want)
	case 4:
		r, want := p.real.CommitStaged(), p.model.commitStaged()
		m.same(fmt.Sprintf("CommitStaged: %v, want %v", r, want), nil, nil, r == want)
	case 5:
		pins := make([]lease, m.choose(4))
		for i := range pins {
			pins[i] = m.pin(p)
		}
		r, err := p.real.CommitPinned(pins)
		want, wantErr := p.model.commitPinned(pins)
		m.same(fmt.Sprintf("CommitPinned(%d): %v, want %v", len(pins), r, want), err, wantErr, r == want)
	case 6:
		keys := m.someKeys()
		r, err := p.real.AssignPending(keys)
		want, wantErr := p.model.assignPending(keys)
		m.same(fmt.Sprintf("AssignPending(%d keys): %v, want %v", len(keys), r, want), err, wantErr, r == want)
	case 7:
		switch m.choose(4) {
		case 0:
			p.real.Clear()
			p.model.truncate(0)
			m.same("Clear", nil, nil)
			return
		case 1:
			end := m.choose(len(m.keys)) - 1
			p.real.Truncate(end)
			p.model.truncate(end)
			m.same(fmt.Sprintf("Truncate(%d)", end), nil, nil)
			return
		}
		got, want := p.real.TakeStaged(), p.model.takeStaged()
		m.same(fmt.Sprintf("TakeStaged: %v, want %v", got, want), nil, nil, slices.Equal(got, want))
	}
}

// someIDs is a part of the known ids, or none, and then any ids.
func (m *model) someIDs(p *pair) []BlockID {
	known := p.model.ids()
	out := slices.Clone(known[:m.choose(len(known)+1)])
	for range m.choose(5) {
		out = append(out, BlockID(m.choose(modelIDs)))
	}
	return out
}

// someBlocks follow what is assigned; one in four has a wrong key.
func (m *model) someBlocks(p *pair) []Block[lease] {
	var out []Block[lease]
	for i := range m.choose(4) {
		at := p.model.next() + i
		if m.choose(4) == 0 {
			at = m.choose(len(m.keys))
		}
		if at >= len(m.keys) {
			break
		}
		out = append(out, Block[lease]{ID: BlockID(m.choose(modelIDs)), Pin: m.pin(p), Key: m.keys[at]})
	}
	return out
}

// someKeys is the sequence up to some length; one in four has a wrong key.
func (m *model) someKeys() []block.Key {
	keys := slices.Clone(m.keys[:m.choose(len(m.keys)+1)])
	if len(keys) > 0 && m.choose(4) == 0 {
		keys[m.choose(len(keys))] = m.keys[m.choose(len(m.keys))]
	}
	return keys
}

func (m *model) pin(p *pair) lease {
	m.pins++
	return lease{fmt.Sprint("pin ", m.pins), &p.log}
}

// same compares errors by their text, which has every field.
func (m *model) same(what string, err, want error, ok ...bool) {
	m.t.Helper()
	m.t.Logf("%s: %v", what, err)
	if fmt.Sprint(err) != fmt.Sprint(want) || slices.Contains(ok, false) {
		m.t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func (m *model) compare(p *pair) {
	m.t.Helper()
	a, n := p.real, &p.model
	if !slices.Equal(slices.Collect(a.AssignedBlocks()), n.assigned) || !slices.Equal(slices.Collect(a.StagedBlocks()), n.staged) ||
		!slices.Equal(slices.Collect(a.PendingIDs()), n.pending) {
		m.t.Fatalf("assigned %v, staged %v, pending %v; want %v, %v, %v", a.assigned(), a.staged(), a.pending.waiting(), n.assigned, n.staged, n.pending)
	}
	if !slices.Equal(p.log, n.released) {
		m.t.Fatalf("released %v, want %v", p.log, n.released)
	}
	counts := [4]int{a.AssignedCount(), a.StagedCount(), a.PendingCount(), a.NextPosition()}
	if want := [4]int{len(n.assigned), len(n.staged), len(n.pending), n.next()}; counts != want {
		m.t.Fatalf("counts and next position %v, want %v", counts, want)
	}
	ranges := [3]Range{a.AssignedPositions(), a.StagedPositions(), a.PendingPositions()}
	committed := n.offset + len(n.assigned)
	if want := [3]Range{{n.offset, committed}, {committed, n.next()}, {n.next(), n.next() + len(n.pending)}}; ranges != want {
		m.t.Fatalf("ranges %v, want %v", ranges, want)
	}
	for id := range BlockID(modelIDs) {
		if want := slices.Contains(n.ids(), id); a.Contains(id) != want {
			m.t.Fatalf("Contains(%d) = %v", id, !want)
		}
	}
	for i := -2; i < 4*modelIDs; i++ {
		b, ok := a.AtPosition(i)
		want, wantOK := at(n.assigned, i-n.offset)
		id, pending := a.PendingAtPosition(i)
		wantID, wantPending := at(n.pending, i-n.next())
		if b != want || ok != wantOK || id != wantID || pending != wantPending {
			m.t.Fatalf("position %d: %v %v, pending %d %v; want %v %v, %d %v", i, b, ok, id, pending, want, wantOK, wantID, wantPending)
		}
	}
}

func (m *model) compareZips() {
	m.t.Helper()
	for i, source := range m.tiers {
		target := m.tiers[1-i]
		ids := target.model.ids()
		assigned := ids[:len(target.model.assigned)]
		if got, want := ZipAssigned(source.real, target.real), source.model.zip(assigned, target.model.offset); !slices.Equal(got, want) {
			m.t.Fatalf("ZipAssigned: %v, want %v", got, want)
		}
		if got, want := ZipAssignedPending(source.real, target.real), source.model.zip(target.model.pending, target.model.next()); !slices.Equal(got, want) {
			m.t.Fatalf("ZipAssignedPending: %v, want %v", got, want)
		}
	}
}

func TestAssignmentsAgainstModel(t *testing.T) {
	keys := testKeys(t, 40)
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, keys: keys, choose: func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }}
		m.run(rapid.IntRange(1, 60).Draw(t, "steps"))
	})
}

// FuzzAssignments drives the same model by bytes.
func FuzzAssignments(f *testing.F) {
	f.Add([]byte{0, 2, 0, 0, 0, 4, 1, 2, 3, 4, 0, 6, 5, 0, 1, 0, 0, 3, 9, 8, 7, 1, 3, 9, 1, 0, 5, 2, 1, 7, 1, 0, 7, 0})
	f.Add([]byte{3, 0, 1, 2, 3, 1, 5, 1, 6, 1, 7, 0, 0, 0, 4, 1, 1, 2, 2, 0, 3, 40, 1, 0, 4, 0, 2, 2, 1, 9, 1, 9})
	keys := testKeys(f, 40)
	f.Fuzz(func(t *testing.T, program []byte) {
		choose := func(n int) int {
			if len(program) == 0 {
				return 0
			}
			b := program[0]
			program = program[1:]
			return int(b) % n
		}
		m := &model{t: t, keys: keys, choose: choose}
		m.run(min(len(program)/4, 200))
	})
}
