package diskstore

import (
	"context"
	"errors"
	"slices"

	"cairn/block"
	"cairn/tier"
)

// follows tells whether an object has one before it in a sequence: one that claims to come
// after it is none.
func follows(key, parent block.Key) bool {
	return !parent.IsZero() && !key.Named() && parent.Position() < key.Position()
}

// rescue gives objects of g a second chance, within budget bytes: those that were read,
// and those that objects follow which stay. What fails is not rescued. It returns those
// that were found to be damaged.
func (s *Store) rescue(ctx context.Context, g *segment, budget int64) (gone []block.Key) {
	var buf []byte
	lost := map[block.Key]bool{} // not rescued: what follows them is of no use
	for _, p := range s.worthSaving(g) {
		s.mu.Lock()
		e, ok := s.index[p.key]
		ok = ok && e.at(g, p)
		s.mu.Unlock()
		if !ok {
			continue
		}
		size := recordSize(int64(e.length), int64(s.cfg.PayloadAlign))
		if lost[e.parent] || size > budget {
			lost[p.key] = true
			continue
		}
		if err := s.relocate(g, p, &buf, s.roomInActive, nil); errors.Is(err, tier.ErrCorrupt) {
			gone, lost[p.key] = append(gone, p.key), true
			continue
		} else if err != nil || ctx.Err() != nil {
			break
		}
		budget -= size
	}
	return gone
}

// worthSaving is the objects in g that were read since they were written, or that an
// object follows which does not go with g, every parent before its children.
func (s *Store) worthSaving(g *segment) []placed {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(g.placed)
	slices.SortFunc(all, func(a, b placed) int { return b.key.Compare(a.key) })
	going := map[block.Key]uint32{} // by their parent
	saved := all[:0]
	for i, p := range all {
		if i%chunk == chunk-1 {
			s.mu.Unlock()
			s.mu.Lock()
		}
		e, ok := s.index[p.key]
		switch {
		case !ok || !e.at(g, p):
		case e.read || s.followers[p.key] > going[p.key]:
			saved = append(saved, p)
		case follows(p.key, e.parent):
			going[e.parent]++
		}
	}
	slices.Reverse(saved)
	return saved
}
