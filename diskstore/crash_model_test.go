package diskstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"cairn/block"
	"cairn/tier"
)

// crashModel is what the lines of a [child] leave possible, by object. It is exact:
// an object without an entry must not be there, and between two lives each object is
// there in one version or has no entry.
type crashModel map[int]*crashObject

type crashObject struct {
	version int
	there   bool // version was put
	writing int  // the version that is going to be written, or -1
	leaving bool // it is going to be deleted, or its segment removed
	left    bool // that has been done, for this process
	gone    bool // and for the next
}

// heard takes one line.
func (m crashModel) heard(line string) error {
	var what string
	var i, version int
	if n, err := fmt.Sscan(line, &what, &i, &version); n < 1 || n < 2 && what != "s" {
		return fmt.Errorf("line %q: %w", line, err)
	}
	o := m[i]
	if what == "w" && o == nil {
		o = &crashObject{writing: -1}
		m[i] = o
	}
	if o == nil && what != "s" {
		return fmt.Errorf("line %q: the object is not there", line)
	}
	switch what {
	case "w":
		o.writing = version
	case "p":
		// It may be evicted before the line comes that it was put.
		o.version, o.there, o.writing = version, true, -1
	case "x":
		o.leaving = true
	case "d":
		o.left = true
	case "u", "e":
		if crashKept(i) {
			return fmt.Errorf("line %q: an object that is kept is evicted", line)
		}
		if what == "e" && !o.leaving {
			return fmt.Errorf("line %q: its segment was not removed", line)
		}
		o.leaving, o.gone = true, o.gone || what == "e"
	case "s":
		for _, o := range m {
			o.gone = o.gone || o.left
		}
	default:
		return fmt.Errorf("line %q", line)
	}
	return nil
}

// possible are the versions that a restart may find; -1 is absence.
func (o *crashObject) possible() map[int]bool {
	v := map[int]bool{}
	if o.there && !o.gone {
		v[o.version] = true
	}
	if !o.there || o.leaving || o.writing >= 0 {
		v[-1] = true
	}
	if o.writing >= 0 && !o.gone {
		v[o.writing] = true
	}
	return v
}

// verify compares the directory with what the child said in the life that began with
// the given object number, and returns that of the next life.
func (m crashModel) verify(t *testing.T, dir string, first int, lines []string) (next int) {
	t.Helper()
	for _, line := range lines {
		if err := m.heard(line); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, crashConfig())
	defer s.Close()
	for i, o := range m {
		if i < crashRegister {
			next = max(next, i)
		}
		found := crashFound(t, s, i, o)
		if !o.possible()[found] {
			t.Errorf("object %d: version %d (-1 is absent) of %v; kept %v, %+v", i, found, o.possible(), crashKept(i), *o)
		}
		if found < 0 {
			delete(m, i)
		} else {
			m[i] = &crashObject{version: found, there: true, writing: -1}
		}
	}
	s.All(func(d block.Descriptor) bool {
		if i := numberOf(d.Key); m[i] == nil {
			t.Errorf("object %d is there, and should be gone", i)
		}
		return true
	})
	// The process may have been killed while it moved objects.
	most := crashConfig().withDefaults().Capacity + 2*crashConfig().SegmentSize
	if st := s.Stats(); st.Corrupt > s.Recovered().Corrupt || st.Used > most {
		t.Errorf("stats: %+v, recovery %+v", st, s.Recovered())
	}
	return max(next, first) + crashBatch
}

// crashFound is the version of the object that is there, or -1.
func crashFound(t *testing.T, s *Store, i int, o *crashObject) int {
	t.Helper()
	dst := make([]byte, 20000)
	d, err := s.Get(context.Background(), keyOf(i), dst)
	if errors.Is(err, tier.ErrNotFound) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []int{o.version, o.writing} {
		if v < 0 {
			continue
		}
		want := crashContent(i, v)
		if d == block.Describe(keyOf(i), keyOf(i-1), want) && bytes.Equal(dst[:d.Length], want) {
			return v
		}
	}
	t.Fatalf("object %d: bytes that it never had", i)
	return -1
}
