package replay

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"cairn/block"
)

// Section is a part of a summary as a table. The first cell of a row is its
// label; the labels of details begin with two spaces.
type Section struct {
	Title   string
	Columns []string
	Rows    [][]string
}

// Sections is the summary for people, as tables.
func (s Summary) Sections() []Section {
	all := []Section{s.cacheSection(), s.workSection(), s.latencySection()}
	if len(s.TierHits) > 0 {
		all = append(all, s.tierSection())
	}
	if len(s.Errors) > 0 {
		rows := [][]string{}
		for _, kind := range slices.Sorted(maps.Keys(s.Errors)) {
			rows = append(rows, []string{kind, Count(s.Errors[kind])})
		}
		all = append(all, Section{Title: "Errors", Columns: []string{"operation: kind", "times"}, Rows: rows})
	}
	return all
}

func (s Summary) cacheSection() Section {
	rows := [][]string{
		{"prefix hit ratio", Percent(s.HitRatio), Percent(s.BoundRatio)},
		{"references to blocks", Count(s.References), Count(s.References)},
		{"blocks found", Count(s.Hits), Count(s.BoundHits)},
		{"  on the chosen node", Count(s.LocalHits), ""},
		{"  brought from a peer", Count(s.PeerHits), ""},
	}
	if s.WarmHits > 0 {
		rows = append(rows, []string{"  there before the run", Count(s.WarmHits), ""})
	}
	rows = append(rows,
		[]string{"blocks put", Count(s.Puts), Count(s.References - s.BoundHits)},
		[]string{"  stored again", Count(s.DuplicatePuts), "0"},
		[]string{"  there already", Count(s.PutsExisted), "0"})
	if s.Gaps > 0 {
		rows = append(rows, []string{"prefixes cut by eviction", Count(s.Gaps), "0"})
	}
	return Section{Title: "Cache", Columns: []string{"", "this run", "infinite cache"}, Rows: rows}
}

func (s Summary) workSection() Section {
	per := func(n int64) string {
		if s.Seconds <= 0 {
			return ""
		}
		return Bytes(float64(n)/s.Seconds) + "/s"
	}
	requests := ""
	if s.Seconds > 0 {
		requests = threeDigits(float64(s.Requests)/s.Seconds) + "/s"
	}
	return Section{Title: "Work", Columns: []string{"", "total", "rate"}, Rows: [][]string{
		{"time", Seconds(s.Seconds), ""},
		{"requests", Count(s.Requests), requests},
		{"  failed", Count(s.FailedRequests), ""},
		{"blocks read", Count(s.BlocksRead), ""},
		{"  every byte verified", Bytes(float64(s.BytesRead)), per(s.BytesRead)},
		{"  wrong bytes", Count(s.WrongBytes), ""},
		{"  wrong blocks", Count(s.WrongBlocks), ""},
		{"stored", Bytes(float64(s.BytesPut)), per(s.BytesPut)},
	}}
}

func (s Summary) latencySection() Section {
	t := Section{Title: "Latency", Columns: []string{"", "p50", "p90", "p99", "p99.9", "max", "times"}}
	for _, o := range []struct {
		name string
		l    Latency
	}{
		{"route", s.Latency.Route}, {"match", s.Latency.Match}, {"get, a batch", s.Latency.Read},
		{"get, per block", s.Latency.ReadBlock}, {"put, a block", s.Latency.Put},
	} {
		row := []string{o.name}
		for _, us := range []float64{o.l.P50, o.l.P90, o.l.P99, o.l.P999, o.l.Max} {
			if o.l.Count == 0 {
				row = append(row, "–")
				continue
			}
			row = append(row, Micros(us))
		}
		t.Rows = append(t.Rows, append(row, Count(o.l.Count)))
	}
	return t
}

// tierSection is who served block reads, a row for each node.
func (s Summary) tierSection() Section {
	var nodes []string
	hits := map[tierOf]int64{}
	has := map[string]bool{}
	for _, t := range s.TierHits {
		if !slices.Contains(nodes, t.Node) {
			nodes = append(nodes, t.Node)
		}
		hits[tierOf{t.Node, t.Tier}] = t.Hits
		hits[tierOf{"", t.Tier}] += t.Hits
		has[t.Tier] = true
	}
	slices.Sort(nodes)
	table := Section{Title: "Block reads served, by node and tier", Columns: []string{""}}
	var tiers []string
	for t := range block.Tier(block.Tiers) {
		if has[t.String()] {
			tiers = append(tiers, t.String())
		}
	}
	table.Columns = append(append(table.Columns, tiers...), "all")
	for _, n := range append(nodes, "") {
		row, sum := []string{n}, int64(0)
		if n == "" {
			row[0] = "all"
		}
		for _, t := range tiers {
			row = append(row, Count(hits[tierOf{n, t}]))
			sum += hits[tierOf{n, t}]
		}
		table.Rows = append(table.Rows, append(row, Count(sum)))
	}
	return table
}

// Verdict is the result in one sentence.
func (s Summary) Verdict() string {
	switch {
	case s.WrongBlocks > 0:
		return fmt.Sprintf("WRONG BYTES: %s blocks came back with bytes that were not put.", Count(s.WrongBlocks))
	case s.References == 0:
		return "Nothing was played."
	}
	text := fmt.Sprintf("Found %s of all blocks; an infinite cache finds %s.", Percent(s.HitRatio), Percent(s.BoundRatio))
	if s.BlocksRead > 0 {
		text += fmt.Sprintf(" Every one of %s blocks read was right.", Count(s.BlocksRead))
	}
	if s.FailedRequests > 0 {
		text += fmt.Sprintf(" %s requests failed.", Count(s.FailedRequests))
	}
	if s.Interrupted {
		text += " The run ended early."
	}
	return text
}

// WriteTable writes the summary as text.
func (s Summary) WriteTable(w io.Writer) error {
	var b strings.Builder
	for _, t := range s.Sections() {
		t.write(&b)
	}
	for i, x := range s.Wrong {
		if i == 0 {
			b.WriteString("Wrong blocks\n")
		}
		fmt.Fprintf(&b, "  %s from %s: %d of %d bytes, the first at %d\n", x.Key, x.Node, x.Bytes, x.Length, x.First)
	}
	fmt.Fprintf(&b, "%s\n", s.Verdict())
	_, err := io.WriteString(w, b.String())
	return err
}

// write aligns labels left and values right.
func (t Section) write(b *strings.Builder) {
	widths := make([]int, len(t.Columns))
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(label string, cells []string) {
		text := "  " + label + strings.Repeat(" ", max(0, widths[0]-utf8.RuneCountInString(label)))
		for i, cell := range cells {
			text += strings.Repeat(" ", 3+widths[i+1]-utf8.RuneCountInString(cell)) + cell
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	b.WriteString(t.Title + "\n")
	// Labels are at least as wide as in the other tables, so that the columns line up.
	widths[0] = max(widths[0], 24)
	line(t.Columns[0], t.Columns[1:])
	for _, row := range t.Rows {
		line(row[0], row[1:])
	}
	b.WriteString("\n")
}
