package cluster

import (
	"testing"
	"time"
)

// Snapshots are written by the number of changes, which grows with what a node holds.
func TestSnapshotIsDue(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		newest   *SnapshotInfo
		position uint64
		due      bool
	}{
		"none yet":                           {nil, 0, true},
		"of an incarnation before":           {&SnapshotInfo{Incarnation: 1, Covered: 5, Written: now}, 5, true},
		"nothing has changed":                {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now.Add(-time.Hour)}, 5, false},
		"a change, and long ago":             {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now.Add(-time.Hour)}, 6, true},
		"a change":                           {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now}, 6, false},
		"less than enough":                   {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now}, 104, false},
		"enough changes":                     {&SnapshotInfo{Incarnation: 2, Covered: 5, Written: now}, 105, true},
		"enough, but not for so many blocks": {&SnapshotInfo{Incarnation: 2, Covered: 5, Blocks: 2000, Written: now}, 1004, false},
		"half as many as blocks":             {&SnapshotInfo{Incarnation: 2, Covered: 5, Blocks: 2000, Written: now}, 1005, true},
	} {
		p := &Publisher{cfg: PublisherConfig{SnapshotChanges: 100, SnapshotInterval: time.Minute}, incarnation: 2, position: c.position}
		s := newSnapshotter(p)
		s.newest.Store(c.newest)
		if due := s.due(); due != c.due {
			t.Errorf("%s: due is %v", name, due)
		}
	}
}
