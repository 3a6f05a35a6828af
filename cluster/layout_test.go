package cluster

import (
	"strings"
	"testing"
)

func TestValidID(t *testing.T) {
	for _, id := range []string{"n1", "a-B_9", strings.Repeat("x", maxIDLength)} {
		if err := ValidID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", "a.b", "a b", "*", ">", "é", "$x", strings.Repeat("x", maxIDLength+1)} {
		if ValidID(id) == nil {
			t.Errorf("%q was accepted", id)
		}
	}
}

func FuzzSubjects(f *testing.F) {
	f.Add("cairn.v1.place.n1.host")
	f.Add("cairn.v1.place..")
	f.Fuzz(func(t *testing.T, subject string) {
		if node, ok := PlaceNode(subject); ok && !strings.HasPrefix(subject, PlaceSubject(node, "")) {
			t.Errorf("node %q of %q", node, subject)
		}
	})
}

func TestLayoutValidate(t *testing.T) {
	if err := (Layout{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Layout{PlaceAge: 1, PlaceBytes: -1, MarkerTTL: 1}.Validate()
	for _, word := range []string{"PlaceAge", "PlaceBytes", "MarkerTTL"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not mention %s", err, word)
		}
	}
}
