package main

import (
	"strings"
	"testing"
	"time"

	"cairn/client"
)

// TestChaosChecker: the checker finds what is wrong with a history, and nothing where
// nothing is. Times are in the order of the numbers; versions likewise.
func TestChaosChecker(t *testing.T) {
	op := func(kind chaosKind, outcome chaosOutcome, call, end time.Duration, value int64, version client.Version) chaosOp {
		return chaosOp{Kind: kind, Outcome: outcome, Call: call, Return: end, Value: value, Version: version}
	}
	by := func(o chaosOp, client int) chaosOp { o.Client = client; return o }
	expecting := func(o chaosOp, v client.Version) chaosOp { o.Expect = v; return o }
	loss := func(call, end time.Duration, base, version client.Version) chaosLoss {
		return chaosLoss{Call: call, Return: end, Base: base, Version: version, Present: base != 0}
	}
	durable := func(o chaosOp) chaosOp { o.Durable = true; return o }
	first := op(set, done, 1, 2, 1, 0)
	for _, test := range []struct {
		name   string
		space  string
		ops    []chaosOp
		losses []chaosLoss
		want   string // part of the one violation; "" for none
	}{
		{"in order", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(del, done, 5, 6, 0, 0), op(readStrict, done, 7, 8, 0, 0)}, nil, ""},
		{"stale read", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 1, 10)}, nil, "not linearizable"},
		{"lost write", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 0, 0)}, nil, "not linearizable"},
		{"new, then old", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 20, 2, 0),
			op(readStrict, done, 6, 7, 2, 20), op(readStrict, done, 8, 9, 1, 10)}, nil, "not linearizable"},
		{"unknown, seen", spaceThrough, []chaosOp{first, op(set, unknown, 3, 4, 2, 0), op(readStrict, done, 5, 6, 1, 10), op(readStrict, done, 7, 8, 2, 20)}, nil, ""},
		{"unknown, seen and gone", spaceThrough, []chaosOp{first, op(set, unknown, 3, 4, 2, 0), op(readStrict, done, 5, 6, 2, 20),
			op(readStrict, done, 7, 8, 1, 10)}, nil, "not linearizable"},
		{"unknown, never seen", spaceThrough, []chaosOp{first, op(set, unknown, 3, 4, 2, 0), op(readStrict, done, 5, 6, 1, 10)}, nil, ""},
		{"unknown, needed though never seen", spaceThrough, []chaosOp{op(set, unknown, 1, 2, 1, 0), op(setNX, refused, 3, 4, 2, 0), op(del, done, 5, 6, 0, 0),
			op(readStrict, done, 7, 8, 0, 0)}, nil, ""},
		{"unknown deletion", spaceThrough, []chaosOp{first, op(del, unknown, 3, 4, 0, 0), op(readStrict, done, 5, 6, 1, 10), op(readStrict, done, 7, 8, 0, 0)}, nil, ""},
		{"unknown deletion, and what comes after it", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(del, unknown, 5, 6, 0, 0),
			op(setNX, unknown, 7, 8, 2, 0), op(readLocal, done, 9, 10, 2, 20)}, nil, ""},
		{"failed, and seen", spaceThrough, []chaosOp{first, op(set, failed, 3, 4, 2, 0), op(readStrict, done, 5, 6, 2, 20)}, nil, "its write was failed"},
		{"a version twice", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 2, 10)}, nil, "version 0.10 is value"},
		{"written twice", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(readStrict, done, 5, 6, 1, 20)}, nil, "written twice"},
		{"cas", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), expecting(op(cas, done, 5, 6, 2, 20), 10), expecting(op(cas, refused, 7, 8, 3, 20), 10)}, nil, ""},
		{"two winners", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), expecting(op(cas, done, 5, 6, 2, 20), 10),
			expecting(op(cas, done, 5, 7, 3, 30), 10)}, nil, "not linearizable"},
		{"cas refused for nothing", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), expecting(op(cas, refused, 5, 6, 2, 10), 10)}, nil, "was refused because"},
		{"nx over a value", spaceThrough, []chaosOp{first, op(setNX, done, 3, 4, 2, 0)}, nil, "not linearizable"},
		{"xx over nothing", spaceThrough, []chaosOp{op(setXX, done, 3, 4, 2, 0)}, nil, "not linearizable"},
		{"declared loss", spaceBack, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 6, 6, 2, 11),
			op(readStrict, done, 9, 10, 1, 30)}, []chaosLoss{loss(7, forever, 10, 30)}, ""},
		{"undeclared loss", spaceBack, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 9, 10, 1, 10)}, nil, "not linearizable"},
		{"lost before it was declared", spaceBack, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 1, 10)},
			[]chaosLoss{loss(9, forever, 10, 30)}, "not linearizable"},
		{"lost, and back", spaceBack, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 6, 6, 2, 11),
			op(readStrict, done, 9, 10, 1, 30), op(readStrict, done, 11, 12, 2, 11)}, []chaosLoss{loss(7, forever, 10, 30)}, "not linearizable"},
		{"durable and lost", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), durable(op(set, done, 5, 6, 2, 0)),
			op(readStrict, done, 6, 6, 2, 11), op(readStrict, done, 9, 10, 1, 30)}, []chaosLoss{loss(7, forever, 10, 30)}, "acknowledged as durable"},
		{"a barrier, and lost", spaceBack, []chaosOp{first, op(readStrict, done, 33, 34, 1, 10), op(set, done, 35, 36, 2, 0), op(readStrict, done, 36, 36, 2, 11),
			op(readStrict, done, 59, 60, 1, 30)}, []chaosLoss{loss(50, forever, 10, 30)}, "before a barrier"},
		{"another base", spaceBack, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 6, 6, 2, 11),
			op(readStrict, done, 9, 10, 2, 30)}, []chaosLoss{loss(7, forever, 10, 30)}, "gave value 2, not 1"},
		{"session goes back", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 2, 20),
			op(readSession, done, 9, 10, 1, 10)}, nil, "session 0, which had seen"},
		{"another session", spaceThrough, []chaosOp{first, op(readStrict, done, 3, 4, 1, 10), op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 2, 20),
			by(op(readSession, done, 9, 10, 1, 10), 1)}, nil, ""},
		{"a node goes back", spaceThrough, []chaosOp{first, op(set, done, 5, 6, 2, 0), op(readLocal, done, 7, 8, 2, 20), by(op(readLocal, done, 9, 10, 1, 10), 1)}, nil, "n1 showed version"},
		{"not everywhere", spaceAll, []chaosOp{first, op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 2, 20), by(op(readLocal, done, 9, 10, 1, 10), 1)}, nil, "a live member, showed"},
		{"no member any more", spaceAll, []chaosOp{first, op(set, done, 5, 6, 2, 0), op(readStrict, done, 7, 8, 2, 20), by(op(readLocal, done, 9, 1000, 1, 10), 1)}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := &chaosHistory{Nodes: []string{"n1"}, Keys: []chaosKey{{test.space, "k"}}, Ops: test.ops, Losses: test.losses,
				Spans: []chaosSpan{{Node: "n1", Until: 100}}, Bars: []chaosBarrier{{Call: 40, Return: 45}}}
			var got []string
			for _, v := range checkHistory(h).violations {
				got = append(got, v.text)
			}
			switch {
			case test.want == "" && len(got) > 0:
				t.Errorf("a good history: %s", strings.Join(got, "\n"))
			case test.want != "" && (len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), test.want)):
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
