package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// Curve is a line of a [Panel].
type Curve struct {
	Name string
	X, Y []float64
	// Colour is that of CSS; Dashed marks a bound rather than a measurement.
	Colour string
	Dashed bool
}

// Panel is a drawing with curves over the same axis, which is logarithmic, with a tick
// at each value of X.
type Panel struct {
	Title, X, Y string
	// Percent says that Y is a share; else it is in seconds, on a logarithmic axis.
	Percent bool
	Curves  []Curve
}

const (
	panelHeight = 420.0
	panelHead   = 34.0
	legendLine  = 19.0
	legendWidth = 180.0
	panelRight  = 24.0
	curvesStyle = `text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#56606e}` +
		`.title{font-size:14px;font-weight:600;fill:#1c2127}.grid{stroke:#e3e7ec}.axis{stroke:#7a8594}` +
		`.line{fill:none;stroke-width:2;stroke-linejoin:round}.dashed{stroke-dasharray:5 4}`
)

// WriteCurves writes panels beside each other, with one legend, as an SVG document
// that stands alone.
func WriteCurves(w io.Writer, panels []Panel) error {
	var b strings.Builder
	names := 0
	for _, p := range panels {
		names = max(names, len(p.Curves))
	}
	width := half*float64(max(1, len(panels))) + panelRight
	perRow := max(1, int((width-marginLeft)/legendWidth))
	height := panelHead + panelHeight + legendLine*math.Ceil(float64(names)/float64(perRow)) + 16
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`, width, height, width, height)
	fmt.Fprintf(&b, `<style>%s</style><rect width="100%%" height="100%%" fill="#ffffff"/>`, curvesStyle)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%.0f 0)"><text class="title" x="%.0f" y="22">%s</text><g transform="translate(0 %.0f)">%s</g></g>`,
			half*float64(i), marginLeft, html.EscapeString(p.Title), panelHead, p.draw())
	}
	if len(panels) > 0 {
		for i, c := range panels[0].Curves {
			x := marginLeft + legendWidth*float64(i%perRow)
			y := panelHead + panelHeight + legendLine*float64(i/perRow) + 8
			fmt.Fprintf(&b, `<line class="line%s" stroke="%s" x1="%.0f" x2="%.0f" y1="%.0f" y2="%.0f"/><text x="%.0f" y="%.0f">%s</text>`,
				dashed(c), html.EscapeString(c.Colour), x, x+22, y, y, x+28, y+4, html.EscapeString(c.Name))
		}
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func dashed(c Curve) string {
	if c.Dashed {
		return " dashed"
	}
	return ""
}

func (p Panel) draw() string {
	var xs []float64
	low, high := math.Inf(1), 0.0
	for _, c := range p.Curves {
		xs = append(xs, c.X...)
		for _, y := range c.Y {
			low, high = min(low, y), max(high, y)
		}
	}
	if len(xs) == 0 {
		return ""
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	d := &plot{width: half, height: panelHeight, x: placesAxis(p.X, xs)}
	if p.Percent {
		d.y = shareAxis(p.Y, low, high)
	} else {
		d.y = secondsAxis(p.Y, low, high)
	}
	d.frame()
	for _, c := range p.Curves {
		d.printf(`<path class="line%s" stroke="%s" d="%s"/>`, dashed(c), html.EscapeString(c.Colour), d.path(c.X, c.Y))
		for i := range c.X {
			d.printf(`<circle fill="%s" cx="%.1f" cy="%.1f" r="3"><title>%s</title></circle>`, html.EscapeString(c.Colour), d.px(c.X[i]), d.py(c.Y[i]),
				html.EscapeString(fmt.Sprintf("%s: %s", c.Name, map[bool]string{true: percent(c.Y[i]), false: secondsText(c.Y[i])}[p.Percent])))
		}
	}
	return d.b.String()
}

// shareAxis is linear, from the tick at or below low to the one at or above high, so that
// curves that lie close together can be told apart.
func shareAxis(label string, low, high float64) axis {
	step := niceStep(max(high-low, 0.01)/0.01/(2*ticksY)) * 0.01
	from, to := math.Floor(low/step*1.0001), math.Ceil(high/step*0.9999)
	to = max(to, from+1)
	a := axis{label: label, pos: func(v float64) float64 { return min(max((v/step-from)/(to-from), 0), 1) }}
	for i := from; i <= to; i++ {
		a.ticks = append(a.ticks, tick{i * step, percent(i * step)})
	}
	return a
}

// placesAxis is logarithmic with a tick at each place.
func placesAxis(label string, at []float64) axis {
	low, high := math.Log(at[0]), math.Log(at[len(at)-1])
	a := axis{label: label, pos: func(v float64) float64 {
		if high == low {
			return 0.5
		}
		return max(0, (math.Log(v)-low)/(high-low))
	}}
	for _, v := range at {
		a.ticks = append(a.ticks, tick{v, count(v)})
	}
	return a
}

// leastSeconds is the least end of an axis of seconds; what lies lower is drawn there.
const leastSeconds = 1e-6

// secondsAxis is logarithmic, with ticks at 1, 2 and 5 of each power of ten, or the
// powers alone when there are many, from below low to above high.
func secondsAxis(label string, low, high float64) axis {
	low = max(low, high/1e5, leastSeconds)
	marks := []float64{1, 2, 5}
	if high/low > 1e4 {
		marks = marks[:1]
	}
	var at []float64
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= max(high, low)*10; power *= 10 {
		for _, m := range marks {
			at = append(at, m*power)
		}
	}
	from, _ := slices.BinarySearch(at, low)
	to, _ := slices.BinarySearch(at, high)
	at = at[max(from-1, 0):min(to+1, len(at))]
	a := placesAxis(label, at)
	for i := range a.ticks {
		a.ticks[i].text = secondsText(at[i])
	}
	return a
}

func secondsText(v float64) string {
	if v >= 1000 {
		return count(v) + " s"
	}
	return fmt.Sprintf("%.3g s", v)
}
