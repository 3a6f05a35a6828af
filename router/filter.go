package router

import (
	"fmt"
	"slices"
	"strings"
)

// LabelZone is the label of a node that [Request].Zone asks for.
const LabelZone = "zone"

// LeftOut counts the nodes that a request may not go to, each under the first reason
// that applies. They serve as peers all the same.
type LeftOut struct {
	Draining int `json:"draining,omitempty"`
	Excluded int `json:"excluded,omitempty"` // by name
	Labels   int `json:"labels,omitempty"`   // zone or labels are others
	Layout   int `json:"layout,omitempty"`   // their blocks are cut or named otherwise
}

func (l LeftOut) total() int { return l.Draining + l.Excluded + l.Labels + l.Layout }

// text says who was left out and why, for people.
func (l LeftOut) text() string {
	var parts []string
	for _, p := range []struct {
		n   int
		why string
	}{{l.Draining, "draining"}, {l.Excluded, "excluded by name"}, {l.Labels, "with other labels"}, {l.Layout, "with blocks of another layout"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.why))
		}
	}
	return strings.Join(parts, ", ")
}

// allows tells whether the node may be chosen, and counts it in out if not.
func (q *Request) allows(n *NodeInfo, out *LeftOut) bool {
	switch {
	case n.Draining:
		out.Draining++
	case slices.Contains(q.Exclude, n.ID) || len(q.Only) > 0 && !slices.Contains(q.Only, n.ID):
		out.Excluded++
	case !q.fits(n.Labels):
		out.Labels++
	case differs(ErrRequest, "", n.Layout, q.layout()) != nil:
		out.Layout++
	default:
		return true
	}
	return false
}

// fits tells whether a node with these labels is one that the request asks for.
func (q *Request) fits(labels map[string]string) bool {
	if q.Zone != "" && labels[LabelZone] != q.Zone {
		return false
	}
	for key, value := range q.Labels {
		if have, ok := labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}
