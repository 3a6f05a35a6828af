package cluster

import "testing"

func FuzzCoherenceSubject(f *testing.F) {
	for _, s := range []string{"cairn.v1.coh.0.n1", "cairn.v1.coh.00.n1", "cairn.v1.coh.-1.n1", "cairn.v1.coh.0.a.b", "cairn.v1.coh.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		p, node, ok := CoherenceNode(subject)
		if ok && (p < 0 || ValidID(node) != nil || CoherenceSubject(p, node) != subject) {
			t.Errorf("partition %d, node %q of %q", p, node, subject)
		}
	})
}

func TestCoherenceSubject(t *testing.T) {
	if p, node, ok := CoherenceNode(CoherenceSubject(3, "n-1")); p != 3 || node != "n-1" || !ok {
		t.Errorf("partition %d, node %q, %v", p, node, ok)
	}
	for _, s := range []string{"cairn.v1.coh.00.n1", "cairn.v1.coh.-1.n1", "cairn.v1.coh.0.a.b", "cairn.v1.coh.0", "cairn.v1.place.0.n1"} {
		if _, node, ok := CoherenceNode(s); ok {
			t.Errorf("%s is the lane of %q", s, node)
		}
	}
	if (Layout{CoherenceBytes: -1}).Validate() == nil {
		t.Error("a negative CoherenceBytes is accepted")
	}
}
