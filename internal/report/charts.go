package report

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"cairn/internal/replay"
)

// nodesShown bounds the occupancy charts; the page says how many are left out.
const nodesShown = 12

// legend is one entry beside a chart.
type legend struct{ Name, Class string }

// chart is a drawing on the page.
type chart struct {
	Title, Note string
	Legend      []legend
	SVG         template.HTML
}

func legends(all []series) []legend {
	var l []legend
	for _, s := range all {
		l = append(l, legend{s.name, s.class + " " + s.style})
	}
	return l
}

func percent(v float64) string { return fmt.Sprintf("%.4g %%", 100*v) }
func count(v float64) string   { return replay.Count(int64(math.Round(v))) }

// hitRatio is the hit ratio over the requests of the run, against the bound.
func hitRatio(s replay.Summary) chart {
	var x, hit, bound, window, windowBound []float64
	for _, p := range s.Series {
		x = append(x, float64(p.Requests))
		hit, bound = append(hit, p.HitRatio), append(bound, p.Bound)
		window, windowBound = append(window, p.WindowHit), append(windowBound, p.WindowBound)
	}
	lines := []series{
		{name: "infinite cache, recent", class: "s-bound", style: "thin faint", x: x, y: windowBound},
		{name: "this run, recent", class: "s-run", style: "thin faint", x: x, y: window},
		{name: "infinite cache, since the start", class: "s-bound", style: "dashed", x: x, y: bound},
		{name: "this run, since the start", class: "s-run", x: x, y: hit},
	}
	top := 0.0
	for _, l := range lines {
		top = max(top, slices.Max(append(l.y, 0.01)))
	}
	p := &plot{
		width: wide, height: 330, title: "Prefix hit ratio over the requests of the run",
		x: linear("requests finished", float64(s.Requests), 1, ticksWide, count),
		y: linear("prefix hit ratio", min(1, top*1.05), 0.01, ticksY, percent),
	}
	p.frame()
	for _, l := range lines {
		p.line(l)
	}
	p.hover(x, func(i int) string {
		return fmt.Sprintf("%s requests, %s\nsince the start: %s of %s possible\nrecent: %s of %s possible",
			count(x[i]), replay.Seconds(s.Series[i].Seconds), replay.Percent(hit[i]), replay.Percent(bound[i]), replay.Percent(window[i]), replay.Percent(windowBound[i]))
	})
	slices.Reverse(lines)
	return chart{Title: "Hit ratio", Legend: legends(lines), SVG: p.svg(),
		Note: "Share of all referenced blocks that were found as part of their request's prefix. The dashed line is a cache that never forgets, on the same requests: nothing can do better when both start empty."}
}

// throughput is the rate of payload over time.
func throughput(s replay.Summary) chart {
	var x, read, put []float64
	top := 0.0
	for _, p := range s.Series {
		x = append(x, p.Seconds)
		read, put = append(read, p.ReadRate), append(put, p.PutRate)
		top = max(top, p.ReadRate, p.PutRate)
	}
	lines := []series{{name: "read", class: "s-get", x: x, y: read}, {name: "put", class: "s-put", x: x, y: put}}
	p := &plot{
		width: half, height: 280, title: "Bytes read and put a second over time",
		x: timeAxis(s.Seconds), y: byteAxis("payload a second", top*1.05),
	}
	p.frame()
	for _, l := range lines {
		p.line(l)
	}
	p.hover(x, func(i int) string {
		return fmt.Sprintf("%s\nread %s\nput %s", replay.Seconds(x[i]), perSecond(read[i]), perSecond(put[i]))
	})
	return chart{Title: "Throughput", Legend: legends(lines), SVG: p.svg(),
		Note: "Of all workers together. Every byte read was compared with what was put."}
}

func perSecond(v float64) string { return replay.Bytes(v) + "/s" }

// byteAxis has ticks at round numbers of the unit that top is told in.
func byteAxis(label string, top float64) axis {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	unit, name := 1.0, 0
	for top >= 1000*unit && name < len(units)-1 {
		unit *= 1024
		name++
	}
	return linear(label, top, unit, ticksY, func(v float64) string { return fmt.Sprintf("%.4g %s", v/unit, units[name]) })
}

func timeAxis(seconds float64) axis {
	return linear("time since the start (s)", seconds, 1, ticksY, func(v float64) string { return fmt.Sprintf("%.4g", v) })
}

// latencies are the distributions over quantiles, so that the slow tail has room.
func latencies(s replay.Summary) chart {
	var lines []series
	var slowest, fastest, nines float64 = 1, math.Inf(1), 1
	for _, o := range []struct {
		name, class, style string
		l                  replay.Latency
	}{
		{"get, a batch", "s-get", "", s.Latency.Read}, {"get, per block", "s-get", "dashed", s.Latency.ReadBlock},
		{"put", "s-put", "", s.Latency.Put},
		{"match", "s-match", "thin", s.Latency.Match}, {"route", "s-route", "thin", s.Latency.Route},
	} {
		if o.l.Count == 0 {
			continue
		}
		line := series{name: o.name, class: o.class, style: o.style}
		for _, q := range o.l.Curve {
			at := inNines(q.Share, o.l.Count)
			line.x, line.y = append(line.x, at), append(line.y, q.Micros)
			slowest, fastest, nines = max(slowest, q.Micros), min(fastest, q.Micros), max(nines, at)
		}
		lines = append(lines, line)
	}
	p := &plot{
		width: half, height: 280, title: "Latency by quantile, logarithmic",
		x: axis{label: "share of operations that were faster", pos: func(v float64) float64 { return v / nines }},
		y: logarithmic("latency", min(fastest, slowest), slowest, decade),
	}
	for _, q := range []struct {
		share float64
		text  string
	}{{.5, "50 %"}, {.9, "90 %"}, {.99, "99 %"}, {.999, "99.9 %"}, {.9999, "99.99 %"}, {.99999, "99.999 %"}} {
		if at := inNines(q.share, 0); at <= nines {
			p.x.ticks = append(p.x.ticks, tick{at, q.text})
		}
	}
	p.frame()
	for _, l := range lines {
		p.line(l)
		for i := range l.x {
			p.printf(`<circle class="spot %s" cx="%.1f" cy="%.1f" r="5"><title>%s</title></circle>`, l.class, p.px(l.x[i]), p.py(l.y[i]),
				template.HTMLEscapeString(fmt.Sprintf("%s\n%.5g %% took less than %s", l.name, 100*fromNines(l.x[i]), replay.Micros(l.y[i]))))
		}
	}
	return chart{Title: "Latency", Legend: legends(lines), SVG: p.svg(),
		Note: "As the client sees it, operations that succeeded. Per block: a batch's time over its number of blocks."}
}

// inNines is 0 for 0 %, 1 for 90 %, 2 for 99 %. The slowest of n operations stands
// in the middle of the last n-th (Hazen's plotting position).
func inNines(share float64, n int64) float64 {
	if n > 0 {
		share = min(share, 1-0.5/float64(n))
	}
	return -math.Log10(1 - share)
}

func fromNines(v float64) float64 { return 1 - math.Pow(10, -v) }

// decade is a power of ten of microseconds: "10 µs", "1 ms".
func decade(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%.4g s", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%.4g ms", us/1e3)
	}
	return fmt.Sprintf("%.4g µs", us)
}

// history is one node's tiers over time.
type history struct {
	node   string
	x      []float64
	tiers  []series
	limits []int64 // capacity of each tier, at the end
}

// histories turns samples round: by node and tier instead of by time. A node that
// is missing from a sample holds nothing that could be read then.
func histories(samples []replay.Sample) []history {
	var all []history
	for i, sample := range samples {
		for _, n := range sample.Nodes {
			at := slices.IndexFunc(all, func(h history) bool { return h.node == n.Node })
			if at < 0 {
				at = len(all)
				all = append(all, history{node: n.Node})
				for _, s := range samples {
					all[at].x = append(all[at].x, s.Seconds)
				}
			}
			h := &all[at]
			for _, t := range n.Tiers {
				k := slices.IndexFunc(h.tiers, func(s series) bool { return s.name == t.Tier.String() })
				if k < 0 {
					k = len(h.tiers)
					h.tiers = append(h.tiers, series{name: t.Tier.String(), class: "s-" + t.Tier.String(), x: h.x, y: make([]float64, len(h.x))})
					h.limits = append(h.limits, 0)
				}
				h.tiers[k].y[i] = float64(t.Bytes)
				h.limits[k] = t.Capacity
			}
		}
	}
	slices.SortFunc(all, func(a, b history) int { return cmp.Compare(a.node, b.node) })
	return all
}

// total is the sum of the tiers at sample i.
func (h history) total(i int) (bytes float64) {
	for _, t := range h.tiers {
		bytes += t.y[i]
	}
	return bytes
}

// together is the sum of all nodes, tier by tier.
func together(all []history) history {
	sum := history{node: "all nodes", x: all[0].x}
	for _, h := range all {
		for i, t := range h.tiers {
			k := slices.IndexFunc(sum.tiers, func(s series) bool { return s.name == t.name })
			if k < 0 {
				k = len(sum.tiers)
				sum.tiers = append(sum.tiers, series{name: t.name, class: t.class, x: t.x, y: make([]float64, len(t.y))})
				sum.limits = append(sum.limits, 0)
			}
			for j, v := range t.y {
				sum.tiers[k].y[j] += v
			}
			sum.limits[k] += h.limits[i]
		}
	}
	return sum
}

// highest is the largest sum of the tiers.
func (h history) highest() (top float64) {
	for i := range h.x {
		top = max(top, h.total(i))
	}
	return top
}

// occupancy is a chart for all nodes together and one for each, these in one scale.
func occupancy(s replay.Summary) (charts []chart, leftOut int) {
	all := histories(s.Samples)
	if len(all) == 0 {
		return nil, 0
	}
	end, top := s.Seconds, 0.0
	for _, h := range all {
		top = max(top, h.highest())
		end = max(end, h.x[len(h.x)-1])
	}
	if len(all) > 1 {
		sum := together(all)
		charts = append(charts, sum.chart(end, sum.highest()))
	}
	leftOut = max(0, len(all)-nodesShown)
	for _, h := range all[:len(all)-leftOut] {
		charts = append(charts, h.chart(end, top))
	}
	return charts, leftOut
}

func (h history) chart(end, top float64) chart {
	p := &plot{
		width: half, height: 240, title: "Occupancy of " + h.node + " by tier over time",
		x: timeAxis(end), y: byteAxis("bytes held", top*1.08),
	}
	p.frame()
	p.stack(h.tiers)
	capacity := 0.0
	for _, c := range h.limits {
		capacity += float64(c)
	}
	if capacity > 0 && capacity <= top*1.08 {
		p.level(capacity, "s-bound", "capacity "+replay.Bytes(capacity))
	}
	p.hover(h.x, func(i int) string {
		text := []string{h.node + ", " + replay.Seconds(h.x[i])}
		for _, t := range h.tiers {
			text = append(text, t.name+" "+replay.Bytes(t.y[i]))
		}
		return strings.Join(text, "\n")
	})
	return chart{Title: h.node, Legend: legends(h.tiers), SVG: p.svg(), Note: h.atTheEnd()}
}

// atTheEnd says how full each tier is in the last sample.
func (h history) atTheEnd() string {
	var parts []string
	for i, t := range h.tiers {
		text := t.name + " " + replay.Bytes(t.y[len(t.y)-1])
		if h.limits[i] > 0 {
			text += fmt.Sprintf(" of %s (%.0f %%)", replay.Bytes(float64(h.limits[i])), 100*t.y[len(t.y)-1]/float64(h.limits[i]))
		}
		parts = append(parts, strings.ReplaceAll(text, " ", "\u00a0")) // no line break inside
	}
	return "At the end: " + strings.Join(parts, ", ") + "."
}
