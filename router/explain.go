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
	fmt.Fprintf(&b, "%s, %s; the cluster holds the first %d\n", count(d.Tokens, "token"), count(d.Blocks, "whole block"), d.ClusterBlocks)
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

// columns are those of the table. The rarer terms are there only when one of the
// candidates has them.
func (d Decision) columns() []column {
	list := []column{
		{"node", func(c *Candidate) string { return c.Node }},
		{"total", func(c *Candidate) string { return seconds(c.Cost) }},
		{"= queue", func(c *Candidate) string { return seconds(c.Terms.Queue) }},
		{"+ compute", func(c *Candidate) string { return seconds(c.Terms.Prefill) }},
		{"+ own tiers", func(c *Candidate) string { return seconds(c.Terms.Local()) }},
		{"+ peers", func(c *Candidate) string { return seconds(c.Terms.Peer) }},
	}
	if slices.ContainsFunc(d.Candidates, func(c Candidate) bool { return c.Terms.Decode != 0 }) {
		list = append(list, column{"+ decode", func(c *Candidate) string { return seconds(c.Terms.Decode) }})
	}
	if slices.ContainsFunc(d.Candidates, func(c Candidate) bool { return c.Terms.Scorer != 0 }) {
		list = append(list, column{"+ " + d.Scorer, func(c *Candidate) string { return seconds(c.Terms.Scorer) }})
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

// why is a sentence on the chosen node and one on the runner-up.
func (d Decision) why() string {
	c := d.Candidates[0]
	var b strings.Builder
	if d.Scorer == "" {
		fmt.Fprintf(&b, "%s should give the first token in %s: ", c.Node, seconds(c.Cost))
	} else {
		fmt.Fprintf(&b, "%s is best by %s; it should give the first token in %s: ", c.Node, d.Scorer, seconds(c.Cost-c.Terms.Scorer))
	}
	switch own := c.Overlap.Total(); {
	case c.Cached == 0 && d.ClusterBlocks > 0:
		b.WriteString("computing everything is faster than fetching what is cached")
	case c.Cached == 0:
		b.WriteString("nothing of the prompt is cached anywhere")
	case c.Peers == 0:
		fmt.Fprintf(&b, "it holds %s itself", blocks(0, own))
	case own == 0:
		fmt.Fprintf(&b, "it fetches %s from peers", blocks(0, c.Peers))
	default:
		fmt.Fprintf(&b, "of %s it holds %d itself and fetches %d from peers", blocks(0, c.Cached), own, c.Peers)
	}
	if c.QueueTokens > 0 {
		fmt.Fprintf(&b, ", and %s wait ahead", count(c.QueueTokens, "token"))
	}
	if c.Active.Requests > 0 || c.Active.Blocks > 0 {
		fmt.Fprintf(&b, ", beside %s of %s that it decodes", count(c.Active.Requests, "request"), count(c.Active.Blocks, "block"))
	}
	b.WriteString(".")
	switch {
	case d.Sticky && len(d.Candidates) > 1 && d.Candidates[1].Cost < c.Cost:
		fmt.Fprintf(&b, " The session stays there; %s is cheapest, at %s.", d.Candidates[1].Node, seconds(d.Candidates[1].Cost))
	case d.Sticky:
		b.WriteString(" The session stays there.")
	case d.Sampled && len(d.Candidates) > 1:
		fmt.Fprintf(&b, " Chance took it (temperature); %s is cheapest, at %s.", d.Candidates[1].Node, seconds(d.Candidates[1].Cost))
	case d.Sampled:
		b.WriteString(" Chance took it (temperature).")
	case len(d.Candidates) == 1 && d.Considered == 1:
		b.WriteString(" No other node could be chosen.")
	case d.Scorer == ScoreAffinity && c.Terms.Scorer < 0:
		b.WriteString(" " + d.preferred())
	case len(d.Candidates) > 1:
		b.WriteString(" " + against(c, d.Candidates[1]))
	}
	return b.String()
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
	c := d.Candidates[0]
	within := seconds(-c.Terms.Scorer)
	fastest := c
	for _, o := range d.Candidates[1:] {
		if o.Cost-o.Terms.Scorer < fastest.Cost-fastest.Terms.Scorer {
			fastest = o
		}
	}
	if fastest.Node == c.Node {
		return fmt.Sprintf("Of the nodes within %s of the fastest, the prompt prefers it.", within)
	}
	return fmt.Sprintf("Of the nodes within %s of the fastest, %s at %s, the prompt prefers it.",
		within, fastest.Node, seconds(fastest.Cost-fastest.Terms.Scorer))
}

// against says what the runner-up lacks.
func against(c, o Candidate) string {
	gap := o.Cost - c.Cost
	if roundCost(c.Cost) == roundCost(o.Cost) {
		if c.Assigned != o.Assigned {
			return fmt.Sprintf("%s would cost the same; it was given more requests so far (%d against %d).", o.Node, o.Assigned, c.Assigned)
		}
		return fmt.Sprintf("%s would cost the same; the first by name was taken.", o.Node)
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
		{"its score", o.Terms.Scorer - c.Terms.Scorer},
	} {
		if t.diff > most {
			reason, most = t.text, t.diff
		}
	}
	return fmt.Sprintf("%s is next, %s slower, mostly for %s (%s).", o.Node, seconds(gap), reason, seconds(most))
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
