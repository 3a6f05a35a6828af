package ledger

import (
	"testing"

	"cairn/block"
)

func TestMapTable(t *testing.T) {
	a := NewMapTable()
	name := []byte("one")
	key := block.NamedKey("ns", name, 0)
	a.Store(Pointer{Key: key, Namespace: "ns", Name: name, Version: 1})
	name[0] = 'X' // the table has its own copy
	if p, ok := a.Load(key); !ok || string(p.Name) != "one" || p.Version != 1 {
		t.Fatalf("Load = %+v, %v", p, ok)
	}
	b := a.Clone()
	b.Store(Pointer{Key: key, Namespace: "ns", Name: []byte("one"), Version: 2})
	b.Store(Pointer{Key: block.NamedKey("ns", []byte("two"), 0), Name: []byte("two")})
	a.Delete(key)
	if a.Len() != 0 || b.Len() != 2 {
		t.Errorf("after Clone: %d and %d pointers, want 0 and 2", a.Len(), b.Len())
	}
	if p, ok := b.Load(key); !ok || p.Version != 2 {
		t.Errorf("the clone has %+v, %v", p, ok)
	}
	n := 0
	b.Range(func(Pointer) bool { n++; return false })
	if n != 1 {
		t.Errorf("Range went on after false: %d", n)
	}
}
