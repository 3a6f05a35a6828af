package protocol

import "cairn/coherency"

// Shorthands for programs.
const (
	through = coherency.WriteThrough
	back    = coherency.WriteBack
	all     = coherency.WriteAll
)

func on(node int, do verb, policy coherency.WritePolicy) action {
	return action{node: node - 1, do: do, policy: policy}
}

func second(a action) action {
	a.block = 1
	return a
}

func may(b map[int]uint8) (list [budgets]uint8) {
	for what, n := range b {
		list[what] = n
	}
	return list
}

// instances are small clusters, each about one part of the protocol. Those of
// which all states are too many are bounded by time.
func instances() []*instance { return append(accesses(), rest()...) }

// accesses are about reads and writes.
func accesses() []*instance {
	return []*instance{
		{name: "through and through", clients: [][]action{
			{on(1, put, through), on(1, get, 0), on(2, put, through)},
			{on(2, put, through), on(2, get, 0)}}, budget: may(map[int]uint8{reorders: 1})},
		{name: "through and back", clients: [][]action{
			{on(1, put, through), on(1, get, 0), on(1, put, through)},
			{on(2, put, back), on(2, put, back), on(2, get, 0)}}, budget: may(map[int]uint8{advances: 1})},
		{name: "back and back, recalled", flush: true, clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, put, back), on(1, get, 0)}}, budget: may(map[int]uint8{advances: 1, timeouts: 1})},
		{name: "back, crash and restart", homeAt: 2, clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, get, 0), on(2, put, through), on(2, get, 0)}}, budget: may(map[int]uint8{advances: 2, crashes: 1}), crash: []int{0}},
		{name: "back, the owner frozen and revoked", clients: [][]action{
			{on(1, put, back), on(1, put, back), on(1, get, 0)},
			{on(2, get, 0), on(2, put, back)}}, budget: may(map[int]uint8{advances: 3})},
		{name: "leases alone", clients: [][]action{{on(1, get, 0)}}, budget: may(map[int]uint8{advances: 2})},
		{name: "one write, one read, a lapse", clients: [][]action{{on(1, put, back)}, {on(2, get, 0)}}, budget: may(map[int]uint8{advances: 2})},
		{name: "copies, two nodes", space: Space{Copies: 2}, fine: true, clients: [][]action{{on(1, put, back)}, {on(2, get, 0)}},
			budget: may(map[int]uint8{advances: 2, crashes: 1}), crash: []int{0}},
		{name: "lease mode, two nodes", space: Space{Lease: true}, clients: [][]action{
			{on(1, put, through), on(1, get, 0)},
			{on(2, get, 0), on(1, get, 0), on(2, get, 0)}}},
		{name: "lease mode, three nodes", count: 3, space: Space{Lease: true}, flights: 1, clients: [][]action{
			{on(1, put, through)},
			{on(2, get, 0), on(3, get, 0)},
			{on(3, get, 0)}}, budget: may(map[int]uint8{advances: 1})},
		{name: "lease mode and an owner", space: Space{Lease: true}, clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, get, 0), on(2, put, through), on(2, get, 0)}}, budget: may(map[int]uint8{advances: 2})},
		{name: "lease mode, two owners", space: Space{Lease: true}, flights: 1, clients: [][]action{
			{on(1, put, back), on(1, get, 0)},
			{on(2, put, back)}}, budget: may(map[int]uint8{advances: 1})},
		{name: "lease mode, copies and a deletion", space: Space{Lease: true, Copies: 2}, flights: 1, clients: [][]action{
			{on(1, remove, back), on(1, put, back)},
			{on(2, get, 0), on(2, get, 0)}}, budget: may(map[int]uint8{advances: 1})},
		{name: "fences and a crash", clients: [][]action{
			{on(1, put, through), on(2, get, 0)},
			{on(2, get, 0), on(1, get, 0), on(2, put, through)}}, budget: may(map[int]uint8{crashes: 1, duplicates: 1})},
		{name: "conditions", clients: [][]action{
			{on(1, put, through), on(1, cas, through), on(1, cas, through)},
			{on(2, get, 0), on(2, cas, back), on(2, create, through)},
			{on(2, remove, through), on(1, replace, through)}}},
		{name: "copies, crash of the owner", count: 3, space: Space{Copies: 2}, flights: 1, clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, get, 0)}}, budget: may(map[int]uint8{crashes: 1, advances: 2}), crash: []int{0}},
		{name: "copies, crash of a holder", count: 3, homeAt: 2, space: Space{Copies: 2}, flights: 1, fine: true, clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(3, get, 0)}}, budget: may(map[int]uint8{crashes: 1, refusals: 1}), crash: []int{1}},
	}
}

// rest are about barriers, clears, staged objects, homes and leaving.
func rest() []*instance {
	return []*instance{
		{name: "barrier, dirty owner and a crash", clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, barrier, 0), on(2, get, 0)}}, budget: may(map[int]uint8{crashes: 1, advances: 2}), crash: []int{0}},
		{name: "barriers of both", names: []string{"a", "b"}, clients: [][]action{
			{on(1, put, back), on(1, barrier, 0), on(1, put, back)},
			{second(on(2, put, back)), on(2, barrier, 0)}}, budget: may(map[int]uint8{duplicates: 1})},
		{name: "clear and an owner", clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, wipe, 0), on(2, get, 0)},
			{on(2, put, through)}}},
		{name: "staged objects and duplicates", fine: true, homeAt: 2, clients: [][]action{
			{on(1, put, through), on(1, put, through)},
			{on(2, put, back), on(2, put, back)}}, budget: may(map[int]uint8{duplicates: 1, refusals: 1})},
		{name: "staged objects and a lapse", fine: true, homeAt: 2, clients: [][]action{
			{on(1, put, through), on(1, put, back)},
			{on(2, get, 0)}}, budget: may(map[int]uint8{duplicates: 1, advances: 2})},
		{name: "rehome", count: 3, homeAt: 3, flights: 1, space: Space{Homes: 2}, clients: [][]action{
			{on(1, put, through)},
			{on(2, get, 0)}}, budget: may(map[int]uint8{advances: 3, crashes: 1}), crash: []int{2}},
		{name: "leaving", flush: true, clients: [][]action{
			{on(1, put, back), on(1, put, back)},
			{on(2, put, back), on(2, get, 0)}}, budget: may(map[int]uint8{leaves: 1, advances: 1})},
		{name: "leaving in lease mode", space: Space{Lease: true}, clients: [][]action{
			{on(1, put, through), on(1, get, 0), on(1, get, 0)},
			{on(2, put, through), on(2, get, 0)}}, budget: may(map[int]uint8{leaves: 1, advances: 1})},
		{name: "two blocks, three nodes", count: 3, names: []string{"a", "b"}, flights: 1, clients: [][]action{
			{on(1, put, back), second(on(1, put, back))},
			{second(on(2, put, back)), on(2, put, back)},
			{on(3, get, 0), second(on(3, get, 0))}}},
		{name: "sessions", flush: true, clients: [][]action{
			{on(1, put, back), on(2, getSession, 0), on(2, put, through), on(1, getSession, 0)},
			{on(2, put, through), on(1, getSession, 0)}}},
		{name: "all", count: 3, flights: 1, clients: [][]action{
			{on(1, put, all), on(2, get, 0)},
			{on(2, put, all)}}, budget: may(map[int]uint8{crashes: 1, advances: 1}), crash: []int{2}},
	}
}
