// Package atlas is an associative memory that several workers share: what each learns
// about a country, all remember. It is a vector of 16,384 dimensions, an engram that is a
// named block of the cluster. Copy it, and put what your agents have to remember in the
// place of countries.
//
// A country's record bundles a filler bound to each role, and the memory bundles the
// records, each bound to its country, as in P. Kanerva, "What We Mean When We Say 'What's the
// Dollar of Mexico?': Prototypes and Mapping in Concept Space" (AAAI Fall Symposium, 2010).
// Unbinding gives an answer with noise; which of the known names is nearest is the clean
// one.
package atlas

import (
	"context"
	_ "embed" // for atlas.tsv
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"cairn/client"
	"cairn/engram"
)

// Country is what there is to learn: one line of atlas.tsv.
type Country struct{ Name, Capital, Currency string }

//go:embed atlas.tsv
var table string

// Countries is all that is in atlas.tsv, in its order.
func Countries() (all []Country) {
	for line := range strings.Lines(table) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "\t")
		capital, currency, _ := strings.Cut(rest, "\t")
		all = append(all, Country{name, capital, currency})
	}
	return all
}

// The roles of a record. One is the country's own name, so that two records can be
// mapped to each other in all that they have.
const (
	roleName     = "name"
	roleCapital  = "capital"
	roleCurrency = "currency"
)

var roles = []string{roleName, roleCapital, roleCurrency}

func (c Country) fillers() []string { return []string{c.Name, c.Capital, c.Currency} }

// space is what everybody who shares the memory must agree on.
var space = engram.Space{Blocks: 256, Length: 64}

// noise is a similarity that a vector which has nothing to do with a name reaches by
// chance once in a million times: five standard deviations.
var noise = 5 / math.Sqrt(float64(space.Dims()))

// The codes of a country, a role and a filler. Everybody makes them from the words, so
// they need not be stored.
func country(name string) engram.SparseVec { return space.Named("country: " + name) }
func role(name string) engram.SparseVec    { return space.Named("role: " + name) }
func filler(name string) engram.SparseVec  { return space.Named("filler: " + name) }

// Atlas is the memory as one worker sees it, through its own node.
type Atlas struct {
	c      *client.Client
	ns     string
	name   string
	memory *client.Engram
	known  struct{ countries, fillers engram.Items }
}

// New makes an Atlas of the engram name, "" for the client's namespace.
func New(c *client.Client, ns, name string) *Atlas {
	a := &Atlas{c: c, ns: ns, name: name, memory: c.Engram(ns, name)}
	seen := map[string]bool{}
	for _, n := range Countries() {
		a.known.countries.Add(n.Name, country(n.Name))
		for _, f := range n.fillers() {
			if !seen[f] {
				seen[f] = true
				a.known.fillers.Add(f, filler(f))
			}
		}
	}
	return a
}

// record is everything about a country in one vector.
func record(n Country) (engram.SparseVec, error) {
	var sum engram.Accumulator
	for i, f := range n.fillers() {
		pair, err := space.Bind(role(roles[i]), filler(f))
		if err != nil {
			return engram.SparseVec{}, err
		}
		sum.Add(pair, 1)
	}
	return sum.Vector(), nil
}

// recordOf is the engram of a country's own record.
func (a *Atlas) recordOf(name string) *client.Engram { return a.c.Engram(a.ns, a.name+"/"+name) }

// Learn stores a country's record by itself, and bundles it into the memory. tries is how
// often that was begun: more than once if another worker came in between.
func (a *Atlas) Learn(ctx context.Context, n Country) (tries int, err error) {
	r, err := record(n)
	if err != nil {
		return 0, err
	}
	if err := a.recordOf(n.Name).Update(ctx, func(engram.SparseVec) (engram.SparseVec, error) { return r, nil }); err != nil {
		return 0, err
	}
	bound, err := space.Bind(country(n.Name), r)
	if err != nil {
		return 0, err
	}
	err = a.memory.Update(ctx, func(old engram.SparseVec) (engram.SparseVec, error) {
		tries++
		return engram.Bundle(old, bound), nil
	})
	return tries, err
}

// Forget empties the memory.
func (a *Atlas) Forget(ctx context.Context) error {
	return a.memory.Update(ctx, func(engram.SparseVec) (engram.SparseVec, error) { return engram.SparseVec{}, nil })
}

// Load reads the memory, with all that anybody has learned before.
func (a *Atlas) Load(ctx context.Context) error {
	err := a.memory.Load(ctx, client.Strict())
	if errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("%w: nothing was learned yet, run the example without a question first", err)
	}
	return err
}

// Answer is what the memory says to a question.
type Answer struct {
	// Name is the nearest name; "" if even that is no nearer than chance.
	Name       string
	Similarity float64
	// Next is the second nearest, to compare, where there is an answer.
	Next engram.Match
	// How says what was done, or why there is no answer, for people.
	How string
}

// ErrQuestion: the question is in no form that is understood.
var ErrQuestion = errors.New("no such question")

// Ask answers "capital of Japan" and "currency of Japan", "country of yen", and by analogy
// "dollar of Mexico". Load comes first.
func (a *Atlas) Ask(ctx context.Context, question string) (Answer, error) {
	what, of, ok := strings.Cut(strings.TrimSpace(question), " of ")
	if !ok {
		return Answer{}, fmt.Errorf("%w: %q: ask for the capital, currency or country of something, or for the dollar of Mexico", ErrQuestion, question)
	}
	v, err := a.memory.Vector()
	if err != nil {
		return Answer{}, err
	}
	switch {
	case what == "country":
		m, r, err := a.whose(v, of)
		if err != nil {
			return Answer{}, err
		}
		return answer(m, "its "+r), nil
	case slices.Contains(roles, what):
		key, err := space.Bind(country(of), role(what))
		if err != nil {
			return Answer{}, err
		}
		found, err := space.Unbind(v, key)
		if err != nil {
			return Answer{}, err
		}
		return answer(a.known.fillers.Nearest(found, 2), "from the memory"), nil
	}
	return a.analogy(ctx, v, what, of)
}

// whose is the countries that have a filler, in whatever role it fits best.
func (a *Atlas) whose(v engram.SparseVec, what string) (best []engram.Match, as string, err error) {
	for _, r := range roles {
		key, err := space.Bind(role(r), filler(what))
		if err != nil {
			return nil, "", err
		}
		found, err := space.Unbind(v, key)
		if err != nil {
			return nil, "", err
		}
		if m := a.known.countries.Nearest(found, 2); best == nil || m[0].Similarity > best[0].Similarity {
			best, as = m, r
		}
	}
	return best, as, nil
}

// analogy finds what is to one country as what is to the country that has it. No role is
// named: unbinding one record from the other gives a map between all their fillers.
func (a *Atlas) analogy(ctx context.Context, v engram.SparseVec, what, of string) (Answer, error) {
	m, _, err := a.whose(v, what)
	if err != nil {
		return Answer{}, err
	}
	if m[0].Similarity < noise {
		return Answer{Similarity: m[0].Similarity, How: "nobody has told of any " + what}, nil
	}
	var records [2]engram.SparseVec
	for i, name := range []string{m[0].Name, of} {
		e := a.recordOf(name)
		err := e.Load(ctx, client.Strict())
		if errors.Is(err, client.ErrNotFound) {
			return Answer{How: "nobody has told of any " + name}, nil
		}
		if err == nil {
			records[i], err = e.Vector()
		}
		if err != nil {
			return Answer{}, err
		}
	}
	turn, err := space.Unbind(records[1], records[0])
	if err != nil {
		return Answer{}, err
	}
	found, err := space.Bind(turn, filler(what))
	if err != nil {
		return Answer{}, err
	}
	return answer(a.known.fillers.Nearest(found, 2), "as "+what+" is to "+m[0].Name), nil
}

// answer says nothing where the best is no nearer than chance.
func answer(m []engram.Match, how string) Answer {
	if m[0].Similarity < noise {
		return Answer{Similarity: m[0].Similarity, How: "that near is chance: nobody has said so"}
	}
	return Answer{Name: m[0].Name, Similarity: m[0].Similarity, Next: m[1], How: how}
}
