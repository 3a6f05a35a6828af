package cluster_test

import (
	"sync"
	"testing"

	"cairn/cluster"
	"cairn/internal/natstest"
)

// TestReadBesideSnapshots: who starts to read the log finds its snapshots at once, also when
// others replace theirs at that moment, once, and are silent then.
func TestReadBesideSnapshots(t *testing.T) {
	conn := natstest.Run(t)
	first := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
	first.sayAll("a", 10)
	first.save()
	store := snapshotStore(t, conn)
	replace := func(name string) {
		if _, err := store.PutBytes(t.Context(), name, []byte(name)); err != nil {
			t.Error(err)
		}
	}
	names := []string{"place/x/0", "place/x/1", "place/y/0"}
	for _, name := range names {
		replace(name)
	}
	for range 60 {
		var writers sync.WaitGroup
		for _, name := range names {
			writers.Go(func() { replace(name) })
		}
		r := newReader(t, conn, cluster.CoherenceConfig{}).run().ready()
		writers.Wait()
		if got := r.sequence(); got != 10 {
			t.Fatalf("a reader begins at sequence %d, want that of the snapshot, 10", got)
		}
		r.stop()
	}
}

func (r *reader) sequence() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.led.Sequence()
}
