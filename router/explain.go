package router

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"cairn/block"
)

// Explain is the decision as text: a table of the candidates with every term of
// their cost, why the first was taken, and what it should fetch.
func (d Decision) Explain() string {
	var b strings.Builder
	if len(d.Candidates) == 0 {
		return "no decision: no node was compared\n"
	}
	held := "holds none of them"
	if d.ClusterBlocks > 0 {
		held = fmt.Sprintf("holds the first %d", d.ClusterBlocks)
	}
	fmt.Fprintf(&b, "%s, %s; the cluster %s\n", count(d.Tokens, "token"), count(d.Blocks, "whole block"), held)
	d.table(&b)
	fmt.Fprintf(&b, "\n%s\n", d.why())
	for _, t := range d.Plan {
		fmt.Fprintf(&b, "fetch %s from %s (%s, %s)\n", blocks(t.First, t.Count), t.From, t.FromAddr, t.Tier)
	}
	b.WriteString(d.ahead())
	return b.String()
}

// column is one of the table: its head, and what it says of a candidate.
type column struct {
	head string
	cell func(c *Candidate) string
}

// columns are those of the table: the time to first token and its terms, and what is cached
// where. What a scorer ranks by has a column of its own, since it need not be a time; the rarer
// terms are there only when one of the candidates has them.
func (d Decision) columns() []column {
	list := []column{{"node", func(c *Candidate) string { return c.Node }}}
	if d.Scorer != "" {
		list = append(list, column{"score: " + d.Scorer, func(c *Candidate) string { return score(c.Cost) }})
	}
	list = append(list, []column{
		{"total", func(c *Candidate) string { return seconds(c.time()) }},
		{"= queue", func(c *Candidate) string { return seconds(c.Terms.Queue) }},
		{"+ compute", func(c *Candidate) string { return seconds(c.Terms.Prefill) }},
		{"+ own tiers", func(c *Candidate) string { return seconds(c.Terms.Local()) }},
		{"+ peers", func(c *Candidate) string { return seconds(c.Terms.Peer) }},
	}...)
	if slices.ContainsFunc(d.Candidates, func(c Candidate) bool { return c.Terms.Decode != 0 }) {
		list = append(list, column{"+ decode", func(c *Candidate) string { return seconds(c.Terms.Decode) }})
	}
	return append(list,
		column{"blocks: vram", func(c *Candidate) string { return strconv.Itoa(c.Overlap[block.VRAM]) }},
		column{"host", func(c *Candidate) string { return strconv.Itoa(c.Overlap[block.Host]) }},
		column{"disk", func(c *Candidate) string { return strconv.Itoa(c.Overlap[block.Disk]) }},
		column{"peers", func(c *Candidate) string { return strconv.Itoa(c.Peers) }},
		column{"to compute", func(c *Candidate) string { return count(c.PrefillTokens, "token") }},
	)
}

// table writes one line a candidate: its cost and the terms of it.
func (d Decision) table(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	columns := d.columns()
	line := func(mark string, text func(column) string) {
		for i, c := range columns {
			if i > 0 {
				mark = "\t"
			}
			fmt.Fprint(w, mark, text(c))
		}
		fmt.Fprintln(w)
	}
	line("  ", func(c column) string { return c.head })
	for i := range d.Candidates {
		mark := "  "
		if i == 0 {
			mark = "> "
		}
		line(mark, func(c column) string { return c.cell(&d.Candidates[i]) })
	}
	w.Flush()
	if more := d.Considered - len(d.Candidates); more > 0 {
		fmt.Fprintf(b, "  and %s more\n", count(more, "node"))
	}
	if d.LeftOut.total() > 0 {
		fmt.Fprintf(b, "  left out: %s\n", d.LeftOut.text())
	}
}

// time is the estimated time to first token, in seconds, whatever the candidate was ranked by.
func (c *Candidate) time() float64 { return c.Cost - c.Terms.Scorer }

// score is what a scorer made of a candidate; it has no unit.
func score(cost float64) string { return strconv.FormatFloat(cost, 'g', 4, 64) }

// rank is what a candidate was ranked by: its time, or the score of d.Scorer.
func (d Decision) rank(c *Candidate) string {
	if d.Scorer == "" {
		return seconds(c.Cost)
	}
	return "a score of " + score(c.Cost)
}

// why is a sentence on the chosen node and one on the runner-up.
func (d Decision) why() string {
	c := &d.Candidates[0]
	var b strings.Builder
	if d.Scorer == "" {
		fmt.Fprintf(&b, "%s should give the first token in %s: ", c.Node, seconds(c.Cost))
	} else {
		fmt.Fprintf(&b, "By %s, where the least score is first, %s has %s; it should give the first token in %s: ", d.Scorer, c.Node, score(c.Cost), seconds(c.time()))
	}
	b.WriteString(d.cached(c))
	if c.QueueTokens > 0 {
		wait := "wait"
		if c.QueueTokens == 1 {
			wait = "waits"
		}
		fmt.Fprintf(&b, ", and %s %s ahead", count(c.QueueTokens, "token"), wait)
	}
	if c.Active.Requests > 0 || c.Active.Blocks > 0 {
		fmt.Fprintf(&b, ", beside %s of %s that it decodes", count(c.Active.Requests, "request"), count(c.Active.Blocks, "block"))
	}
	b.WriteString(".")
	if than := d.than(c); than != "" {
		b.WriteString(" " + than)
	}
	return b.String()
}

// cached says where the blocks that c need not compute come from.
func (d Decision) cached(c *Candidate) string {
	switch own := c.Overlap.Total(); {
	case c.Cached == 0 && d.ClusterBlocks > 0:
		return "computing everything is faster than fetching what is cached"
	case c.Cached == 0:
		return "nothing of the prompt is cached anywhere"
	case c.Peers == 0:
		return fmt.Sprintf("it holds %s itself", blocks(0, own))
	case own == 0:
		return fmt.Sprintf("it fetches %s from peers", blocks(0, c.Peers))
	default:
		return fmt.Sprintf("of %s it holds %d itself and fetches %d from peers", blocks(0, c.Cached), own, c.Peers)
	}
}

// than says why c, the first, was taken rather than others.
func (d Decision) than(c *Candidate) string {
	var next *Candidate
	if len(d.Candidates) > 1 {
		next = &d.Candidates[1]
	}
	switch {
	case d.Sticky && next != nil && next.Cost < c.Cost:
		return fmt.Sprintf("The session stays there; %s is cheapest, at %s.", next.Node, d.rank(next))
	case d.Sticky:
		return "The session stays there."
	case d.Sampled && next != nil:
		return fmt.Sprintf("Chance took it (temperature); %s is cheapest, at %s.", next.Node, d.rank(next))
	case d.Sampled:
		return "Chance took it (temperature)."
	case next == nil && d.Considered == 1:
		return "No other node could be chosen."
	case d.Scorer == ScoreAffinity && c.Terms.Scorer < 0:
		return d.preferred()
	case next != nil:
		return d.against(c, next)
	}
	return ""
}

// ahead says what the node has been told to bring, or would be.
func (d Decision) ahead() string {
	a := d.Ahead
	if a == nil {
		return ""
	}
	where := "host memory"
	if a.Tier == block.VRAM {
		where = "GPU memory"
	}
	told, note := "has been told", ""
	if !a.Told {
		told, note = "would be told", " (this is a dry run)"
	}
	return fmt.Sprintf("%s %s%s to have %s in %s before the request comes; it lacks %d of them there\n",
		d.Node, told, note, blocks(0, a.Blocks), where, a.Lacking)
}

// preferred says within which tolerance affinity chose, and what is lost by that.
func (d Decision) preferred() string {
	c := &d.Candidates[0]
	within := seconds(-c.Terms.Scorer)
	fastest := c
	for i := range d.Candidates {
		if o := &d.Candidates[i]; o.time() < fastest.time() {
			fastest = o
		}
	}
	if fastest == c {
		return fmt.Sprintf("Of the nodes within %s of the fastest, the prompt prefers it.", within)
	}
	return fmt.Sprintf("Of the nodes within %s of the fastest, %s at %s, the prompt prefers it.", within, fastest.Node, seconds(fastest.time()))
}

// against says what the runner-up lacks.
func (d Decision) against(c, o *Candidate) string {
	if roundCost(c.Cost) == roundCost(o.Cost) {
		if c.Assigned != o.Assigned {
			return fmt.Sprintf("%s would cost the same; it was given more requests so far (%d against %d).", o.Node, o.Assigned, c.Assigned)
		}
		return fmt.Sprintf("%s would cost the same; the first by name was taken.", o.Node)
	}
	if d.Scorer != "" {
		return fmt.Sprintf("%s is next, with %s.", o.Node, d.rank(o))
	}
	reason, most := "", 0.0
	for _, t := range []struct {
		text string
		diff float64
	}{
		{"a longer queue", o.Terms.Queue - c.Terms.Queue},
		{"more to compute", o.Terms.Prefill - c.Terms.Prefill},
		{"slower reads of its own tiers", o.Terms.Local() - c.Terms.Local()},
		{"more to fetch from peers", o.Terms.Peer - c.Terms.Peer},
		{"more that it decodes", o.Terms.Decode - c.Terms.Decode},
	} {
		if t.diff > most {
			reason, most = t.text, t.diff
		}
	}
	return fmt.Sprintf("%s is next, %s slower, mostly for %s (%s).", o.Node, seconds(o.Cost-c.Cost), reason, seconds(most))
}

// seconds is a time for people: three digits and a unit.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case s < 0 || s > 1e6:
		return fmt.Sprintf("%.3g s", s)
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", s*1e6)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", s*1e3)
	default:
		return fmt.Sprintf("%.2f s", s)
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// blocks is a run of blocks for people.
func blocks(first, n int) string {
	if n == 1 {
		return fmt.Sprintf("block %d", first)
	}
	return fmt.Sprintf("blocks %d-%d", first, first+n-1)
}
