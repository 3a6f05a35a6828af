package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// A plot is drawn in a fixed grid of units that the page scales to its width.
const (
	wide, half         = 1040.0, 500.0
	marginLeft         = 74.0
	marginRight        = 14.0
	marginTop          = 10.0
	marginBottom       = 44.0
	ticksWide, ticksY  = 10, 5
	labelDown, tickGap = 38.0, 6.0
)

type tick struct {
	at   float64
	text string
}

// axis maps values to 0…1 by pos, which is monotonic.
type axis struct {
	label string
	ticks []tick
	pos   func(v float64) float64
}

// linear is an axis from 0 to at least top, in steps of 1, 2 or 5 times a power of
// ten of unit.
func linear(label string, top, unit float64, most int, format func(float64) string) axis {
	if !(top > 0) {
		top = unit
	}
	step := niceStep(top/unit/float64(most)) * unit
	return axis{label: label, ticks: steps(top, step, format), pos: func(v float64) float64 { return v / top }}
}

// steps are the multiples of step up to top.
func steps(top, step float64, format func(float64) string) []tick {
	var all []tick
	for i := 0.0; i*step <= top*1.0001; i++ {
		all = append(all, tick{i * step, format(i * step)})
	}
	return all
}

func niceStep(raw float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*power >= raw*0.9999 {
			return m * power
		}
	}
	return 10 * power
}

// logarithmic is an axis from bottom to top with a tick at every power of ten.
func logarithmic(label string, bottom, top float64, format func(float64) string) axis {
	low, high := math.Floor(math.Log10(bottom)), math.Ceil(math.Log10(top))
	high = max(high, low+1)
	a := axis{label: label, pos: func(v float64) float64 {
		return min(max((math.Log10(v)-low)/(high-low), 0), 1)
	}}
	for e := low; e <= high; e++ {
		v := math.Pow(10, e)
		a.ticks = append(a.ticks, tick{v, format(v)})
	}
	return a
}

// series is a line, or a layer of a stack.
type series struct {
	name string
	// class gives the colour: s-… in page.html.
	class string
	x, y  []float64
	// style is added to the class: "thin", "dashed".
	style string
}

// plot draws series into SVG text.
type plot struct {
	width, height float64
	title         string // for those who cannot see it
	x, y          axis
	b             strings.Builder
}

func (p *plot) px(v float64) float64 {
	return marginLeft + p.x.pos(v)*(p.width-marginLeft-marginRight)
}

func (p *plot) py(v float64) float64 {
	return marginTop + (1-p.y.pos(v))*(p.height-marginTop-marginBottom)
}

func (p *plot) printf(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

// frame draws grid, ticks and labels; what follows lies above them.
func (p *plot) frame() {
	right, bottom := p.width-marginRight, p.height-marginBottom
	for _, t := range p.y.ticks {
		y := p.py(t.at)
		p.printf(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, marginLeft, right, y, y)
		p.printf(`<text class="tick" text-anchor="end" x="%.1f" y="%.1f">%s</text>`, marginLeft-tickGap, y+4, html.EscapeString(t.text))
	}
	for _, t := range p.x.ticks {
		x := p.px(t.at)
		p.printf(`<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, x, x, bottom, bottom+4)
		p.printf(`<text class="tick" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`, x, bottom+17, html.EscapeString(t.text))
	}
	p.printf(`<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, marginLeft, right, bottom, bottom)
	p.printf(`<text class="label" text-anchor="middle" x="%.1f" y="%.1f">%s</text>`, (marginLeft+right)/2, bottom+labelDown, html.EscapeString(p.x.label))
	p.printf(`<text class="label" text-anchor="middle" transform="translate(14 %.1f) rotate(-90)">%s</text>`, (marginTop+bottom)/2, html.EscapeString(p.y.label))
}

func (p *plot) path(x, y []float64) string {
	var d strings.Builder
	for i := range x {
		fmt.Fprintf(&d, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], p.px(x[i]), p.py(y[i]))
	}
	return d.String()
}

func (p *plot) line(s series) {
	if len(s.x) == 1 {
		p.printf(`<circle class="dot %s" cx="%.1f" cy="%.1f" r="3"/>`, s.class, p.px(s.x[0]), p.py(s.y[0]))
		return
	}
	p.printf(`<path class="line %s %s" d="%s"/>`, s.class, s.style, p.path(s.x, s.y))
}

// stack draws layers on top of each other; all have the same x.
func (p *plot) stack(layers []series) {
	if len(layers) == 0 {
		return
	}
	below := make([]float64, len(layers[0].x))
	for _, s := range layers {
		above := make([]float64, len(below))
		for i := range above {
			above[i] = below[i] + s.y[i]
		}
		d := p.path(s.x, above)
		for i := len(below) - 1; i >= 0; i-- {
			d += fmt.Sprintf("L%.1f %.1f", p.px(s.x[i]), p.py(below[i]))
		}
		p.printf(`<path class="area %s" d="%sZ"/><path class="line %s thin" d="%s"/>`, s.class, d, s.class, p.path(s.x, above))
		below = above
	}
}

// level draws a horizontal line across the plot.
func (p *plot) level(v float64, class, text string) {
	y := p.py(v)
	p.printf(`<line class="line %s dashed" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, class, marginLeft, p.width-marginRight, y, y)
	p.printf(`<text class="tick" text-anchor="end" x="%.1f" y="%.1f">%s</text>`, p.width-marginRight-4, y-4, html.EscapeString(text))
}

// hover makes a band around each x with a tooltip and a guide line.
func (p *plot) hover(x []float64, text func(i int) string) {
	top, bottom := marginTop, p.height-marginBottom
	for i := range x {
		left, right := marginLeft, p.width-marginRight
		if i > 0 {
			left = (p.px(x[i-1]) + p.px(x[i])) / 2
		}
		if i < len(x)-1 {
			right = (p.px(x[i]) + p.px(x[i+1])) / 2
		}
		p.printf(`<g class="hover"><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f"/><line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><title>%s</title></g>`,
			left, top, max(0, right-left), bottom-top, p.px(x[i]), p.px(x[i]), top, bottom, html.EscapeString(text(i)))
	}
}

// svg is the finished drawing. Every text in it has been escaped.
func (p *plot) svg() template.HTML {
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">%s</svg>`,
		p.width, p.height, html.EscapeString(p.title), p.b.String()))
}
