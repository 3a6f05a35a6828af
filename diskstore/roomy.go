package diskstore

// Room implements [tier.Roomy]: what is left of the active segment, and the segments
// that can be begun before one must be reclaimed. What deleted objects occupy does not
// count.
func (s *Store) Room() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var room int64
	if g := s.active; g != nil && !g.sealed {
		room = max(s.cfg.SegmentSize-g.tail-footerSize(g.slots+1), 0)
	}
	keep := 1 // as in crowded
	if s.kept.Used+s.kept.coming > 0 {
		keep = 2
	}
	fit := (s.cfg.Capacity - s.chargedLocked()) / s.cfg.SegmentSize
	fit = min(fit, int64(s.cfg.maxSegments()-len(s.segments)))
	return room + max(fit-int64(keep), 0)*s.cfg.SegmentSize
}
