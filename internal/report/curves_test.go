package report

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

func TestWriteCurves(t *testing.T) {
	curve := func(name string, y ...float64) Curve {
		return Curve{Name: name, X: []float64{500, 2000, 8000}[:len(y)], Y: y, Colour: "#123456", Dashed: name == "bound"}
	}
	for name, panels := range map[string][]Panel{
		"none":      nil,
		"empty":     {{Title: "t"}},
		"one point": {{Title: "t", Percent: true, Curves: []Curve{curve("a", .3)}}},
		"two panels": {
			{Title: `<&"`, X: "blocks", Y: "hit", Percent: true, Curves: []Curve{curve("a<b", .1, .2, .3), curve("bound", .4, .4, .4)}},
			{Title: "time", X: "blocks", Y: "s", Curves: []Curve{curve("a<b", 2, 1.5, .9), curve("bound", 1, 1, 0)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteCurves(&b, panels); err != nil {
				t.Fatal(err)
			}
			for d := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("not XML: %v\n%s", err, b.String())
				}
			}
			if s := b.String(); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
				t.Errorf("a place is no number: %s", s)
			}
			points := 0
			for _, p := range panels {
				for _, c := range p.Curves {
					points += len(c.X)
				}
			}
			if got := strings.Count(b.String(), "<circle"); got != points {
				t.Errorf("%d points, want %d", got, points)
			}
		})
	}
}
