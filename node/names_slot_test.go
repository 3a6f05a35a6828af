package node

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/tier"
)

// What readers remember of where an object lay never shows them an older value, while
// values are written, flushed and deleted, and other objects take their slots.
func TestReadersNeverGoBack(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 1 << 20, disk: 64 << 20}.open(t), func(c *Config) {
		patient(c)
		c.FlushAfter = time.Millisecond
	})
	names := benchNames(4)
	acknowledged := make([]atomic.Uint64, len(names))
	write := func(i int, value uint64, policy coherency.WritePolicy) {
		in, err := n.Reserve(t.Context(), 3000)
		if err != nil {
			t.Error(err)
			return
		}
		binary.LittleEndian.PutUint64(in.Bytes(), value)
		binary.LittleEndian.PutUint64(in.Bytes()[8:], uint64(i))
		if _, err := n.SetName(t.Context(), space, names[i], in, NameOptions{Policy: policy}); err != nil {
			t.Error(err)
		}
		acknowledged[i].Store(value)
	}
	for i := range names {
		write(i, 1, coherency.WriteBack)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i = (i + 1) % len(names) {
				select {
				case <-stop:
					return
				default:
				}
				least := acknowledged[i].Load()
				loan, s, err := n.ReadName(t.Context(), space, names[i], ReadOptions{})
				switch {
				case errors.Is(err, tier.ErrNotFound):
					continue // deleted
				case err != nil:
					t.Error(err)
					return
				}
				value, of := binary.LittleEndian.Uint64(loan.Bytes), binary.LittleEndian.Uint64(loan.Bytes[8:])
				if value < least || of != uint64(i) || loan.Key != s.Value.Object {
					t.Errorf("name %d has value %d of name %d, after %d was acknowledged", i, value, of, least)
				}
				loan.Release()
			}
		})
	}
	for value := uint64(2); value < 600; value++ {
		i := int(value) % len(names)
		policy := coherency.WriteBack
		if value%7 == 0 {
			policy = coherency.WriteThrough
		}
		if value%11 == 0 {
			if _, err := n.DeleteName(t.Context(), space, names[i], NameOptions{Policy: policy}); err != nil {
				t.Error(err)
			}
		}
		write(i, value, policy)
	}
	close(stop)
	wg.Wait()
}

// A read finds the object where the one before has found it, and elsewhere when it
// has gone from there.
func TestNameIsReadWhereItLay(t *testing.T) {
	n, _ := newMemCluster().join(t, "n1", testTiers{host: 1 << 20, disk: 64 << 20}.open(t), patient)
	value := content(1, 3000)
	in, err := n.Reserve(t.Context(), len(value))
	if err != nil {
		t.Fatal(err)
	}
	copy(in.Bytes(), value)
	if _, err := n.SetName(t.Context(), space, []byte("k"), in, NameOptions{Policy: coherency.WriteThrough}); err != nil {
		t.Fatal(err)
	}
	read := func() (*Loan, *nameEntry) {
		t.Helper()
		loan, s, err := n.ReadName(t.Context(), space, []byte("k"), ReadOptions{})
		if err != nil || string(loan.Bytes) != string(value) {
			t.Fatal(err)
		}
		loan.Release()
		return loan, n.coherence.table.find(space, []byte("k"), &s.Pointer)
	}
	loan, e := read()
	e.slot.Store(^uint64(0))
	read()
	slot := e.slot.Load()
	if v, ok := n.slotted.ViewSlot(slot, loan.Key); !ok {
		t.Error("a read did not remember where the object lay")
	} else {
		v.Release()
	}
	for range 3 {
		read()
	}
	if d, _ := n.dir.get(loan.Key); d.uses > 2 {
		t.Errorf("the directory was asked %d times", d.uses)
	}
	n.host.Delete(loan.Key)
	n.dropped(block.Host, loan.Key)
	if loan, _ := read(); loan.Origin != FromDisk {
		t.Errorf("from %s", loan.Origin)
	}
	if e.slot.Load() == slot {
		t.Error("the slot is not known anew")
	}
}
