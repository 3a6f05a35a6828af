package engram

import "slices"

// Items is a clean-up memory: vectors with names, of which the one nearest to a
// noisy vector is found. The zero value is empty. It is not for parallel use while it is
// added to.
type Items struct {
	names   []string
	vectors []SparseVec
}

// Match is an item, and how similar it is to what was looked for.
type Match struct {
	Name       string
	Similarity float64
}

// Add adds an item; v stays the caller's and must not change.
func (m *Items) Add(name string, v SparseVec) {
	m.names = append(m.names, name)
	m.vectors = append(m.vectors, v)
}

// Len is how many items there are.
func (m *Items) Len() int { return len(m.names) }

// Nearest is the n items that are most similar to v, the most similar first, and of
// equal ones the one that was added first. It looks at all items.
func (m *Items) Nearest(v SparseVec, n int) []Match {
	all := make([]Match, len(m.names))
	for i, item := range m.vectors {
		all[i] = Match{Name: m.names[i], Similarity: Similarity(v, item)}
	}
	slices.SortStableFunc(all, func(a, b Match) int {
		switch {
		case a.Similarity > b.Similarity:
			return -1
		case a.Similarity < b.Similarity:
			return 1
		}
		return 0
	})
	return all[:min(max(n, 0), len(all))]
}
