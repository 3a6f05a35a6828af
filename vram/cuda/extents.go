//go:build cuda && cgo

package cuda

import (
	"cmp"
	"slices"
)

// extent is one stretch of memory, device or host, from one address up to another. uses counts
// how often it was given out, where that can be more than once.
type extent struct {
	from, to uint64
	uses     int
	foreign  bool // of host memory: see piece
}

// extents are stretches of memory that do not overlap, by address.
type extents []extent

// find is the place of the extent that holds the n bytes at a, or -1.
func (l extents) find(a uint64, n int64) int {
	i := l.next(a)
	if i == len(l) || l[i].from != a {
		i--
	}
	if i < 0 || n < 0 || a > l[i].to || uint64(n) > l[i].to-a {
		return -1
	}
	return i
}

// begin is the place of the extent that begins at a, or -1.
func (l extents) begin(a uint64) int {
	if i := l.next(a); i < len(l) && l[i].from == a {
		return i
	}
	return -1
}

// insert adds e in its place.
func (l *extents) insert(e extent) {
	*l = slices.Insert(*l, l.next(e.from), e)
}

// remove takes out the extent that begins at a and returns it.
func (l *extents) remove(a uint64) (extent, bool) {
	i := l.begin(a)
	if i < 0 {
		return extent{}, false
	}
	e := (*l)[i]
	*l = slices.Delete(*l, i, i+1)
	return e, true
}

// next is the place of the first extent that begins at a or behind it; len if there is none.
func (l extents) next(a uint64) int {
	i, _ := slices.BinarySearchFunc(l, a, func(e extent, a uint64) int { return cmp.Compare(e.from, a) })
	return i
}
