package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// figures are what the rounds have measured, in the order in which they came first.
type figures struct {
	order []*figure
	byID  map[string]*figure
}

// figure is one line of the table.
type figure struct {
	id, unit, target string
	values           []float64 // one a round
	ratios           []float64 // to the bare publish of the same round, if that says something
}

func newFigures() *figures { return &figures{byID: map[string]*figure{}} }

// add takes in the value of a round. target is what it should be, "" for nothing.
func (f *figures) add(id, unit, target string, value float64) *figure {
	g := f.byID[id]
	if g == nil {
		g = &figure{id: id, unit: unit, target: target}
		f.byID[id] = g
		f.order = append(f.order, g)
	}
	g.values = append(g.values, value)
	return g
}

// figureResult is the median of a figure's rounds.
type figureResult struct {
	Figure string  `json:"figure"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	// Ratio is the median of the rounds' ratios to their bare publish; 0: none.
	Ratio     float64 `json:"ratio_to_publish,omitempty"`
	RatioLow  float64 `json:"ratio_low,omitempty"`
	RatioHigh float64 `json:"ratio_high,omitempty"`
	Target    string  `json:"target,omitempty"`
	Rounds    int     `json:"rounds"`
}

func (f *figures) results() []figureResult {
	var list []figureResult
	for _, g := range f.order {
		r := figureResult{Figure: g.id, Unit: g.unit, Target: g.target, Rounds: len(g.values)}
		r.Median, r.Low, r.High = medianOf(g.values)
		if len(g.ratios) > 0 {
			r.Ratio, r.RatioLow, r.RatioHigh = medianOf(g.ratios)
		}
		list = append(list, r)
	}
	return list
}

// medianOf is the median, of an even number the lower one, and the ends.
func medianOf(values []float64) (median, low, high float64) {
	s := slices.Sorted(slices.Values(values))
	return s[(len(s)-1)/2], s[0], s[len(s)-1]
}

// print writes a table; without a column of ratios where there are none.
func (f *figures) print(out io.Writer) error {
	list := f.results()
	ratios := slices.ContainsFunc(list, func(r figureResult) bool { return r.Ratio != 0 })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	column := func(text string) string {
		if !ratios {
			return ""
		}
		return text + "\t"
	}
	fmt.Fprintf(w, "figure\tmedian\tlow–high\t%starget\n", column("× bare publish"))
	for _, r := range list {
		ratio, span := "", ""
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%s (%s–%s)", short(r.Ratio), short(r.RatioLow), short(r.RatioHigh))
		}
		if r.Rounds > 1 {
			span = short(r.Low) + "–" + short(r.High)
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s%s\n", r.Figure, short(r.Median), r.Unit, span, column(ratio), r.Target)
	}
	return w.Flush()
}

// short is a number with three digits that count.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
