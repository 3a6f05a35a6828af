package router

import (
	"fmt"
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
	return b.String()
}

// table writes one line a candidate: estimated time to first token and its terms.
func (d Decision) table(b *strings.Builder) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  node\ttotal\t= queue\t+ compute\t+ own tiers\t+ peers\tblocks: vram\thost\tdisk\tpeers\tto compute")
	for i, c := range d.Candidates {
		mark := "  "
		if i == 0 {
			mark = "> "
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", mark, c.Node, seconds(c.Cost), seconds(c.Terms.Queue),
			seconds(c.Terms.Prefill), seconds(c.Terms.Local()), seconds(c.Terms.Peer),
			c.Overlap[block.VRAM], c.Overlap[block.Host], c.Overlap[block.Disk], c.Peers, count(c.PrefillTokens, "token"))
	}
	w.Flush()
	if more := d.Considered - len(d.Candidates); more > 0 {
		fmt.Fprintf(b, "  and %s more\n", count(more, "node"))
	}
}

// why is a sentence on the chosen node and one on the runner-up.
func (d Decision) why() string {
	c := d.Candidates[0]
	var b strings.Builder
	fmt.Fprintf(&b, "%s should give the first token in %s: ", c.Node, seconds(c.Cost))
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
	b.WriteString(".")
	switch {
	case d.Sampled && len(d.Candidates) > 1:
		fmt.Fprintf(&b, " Chance took it (temperature); %s is cheapest, at %s.", d.Candidates[1].Node, seconds(d.Candidates[1].Cost))
	case d.Sampled:
		b.WriteString(" Chance took it (temperature).")
	case len(d.Candidates) == 1 && d.Considered == 1:
		b.WriteString(" No other node could be chosen.")
	case len(d.Candidates) > 1:
		b.WriteString(" " + against(c, d.Candidates[1]))
	}
	return b.String()
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
