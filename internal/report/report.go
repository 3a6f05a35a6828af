package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"cairn/internal/replay"
)

//go:embed page.html
var pageText string

// Parameter is a line of the table of run parameters.
type Parameter struct{ Name, Value string }

// Options are what the summary does not know.
type Options struct {
	// Title is the heading; empty is "Cairn replay".
	Title string
	// Parameters are shown after those of the summary: nodes, sizes of tiers,
	// versions, the machine.
	Parameters []Parameter
}

// figure is a large number at the top of the page.
type figure struct{ Name, Value, Note string }

type page struct {
	Title, Subtitle, Verdict string
	// State is good, warn or bad: the colour of the verdict.
	State       string
	Figures     []figure
	Hit         chart
	Halves      []chart
	Occupancy   []chart
	NodesHidden int
	Sections    []replay.Section
	Wrong       []replay.WrongBlock
	Parameters  []Parameter
}

// Write writes the page. It calls w.Write many times: buffer a file.
func Write(w io.Writer, s replay.Summary, o Options) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"detail": func(label string) bool { return strings.HasPrefix(label, "  ") },
	}).Parse(pageText)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	p := page{
		Title: o.Title, Subtitle: subtitle(s), Verdict: s.Verdict(), State: "good",
		Figures: figures(s), Sections: s.Sections(), Wrong: s.Wrong,
		Parameters: append(parameters(s), o.Parameters...),
	}
	if p.Title == "" {
		p.Title = "Cairn replay"
	}
	switch {
	case s.WrongBlocks > 0:
		p.State = "bad"
	case s.FailedRequests > 0, s.Interrupted, s.References == 0:
		p.State = "warn"
	}
	if len(s.Series) > 0 {
		p.Hit = hitRatio(s)
		p.Halves = []chart{latencies(s), throughput(s)}
		p.Occupancy, p.NodesHidden = occupancy(s)
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func subtitle(s replay.Summary) string {
	text := fmt.Sprintf("%s requests in %s", replay.Count(s.Requests), replay.Seconds(s.Seconds))
	if s.Trace != "" {
		text = s.Trace + " · " + text
	}
	if !s.Started.IsZero() {
		text += " · " + s.Started.UTC().Format("2006-01-02 15:04 UTC")
	}
	return text
}

func figures(s replay.Summary) []figure {
	possible := "an infinite cache finds " + replay.Percent(s.BoundRatio)
	if s.BoundHits > 0 {
		possible = fmt.Sprintf("%.1f %% of what an infinite cache finds", 100*float64(s.Hits)/float64(s.BoundHits))
	}
	peers := "none"
	if s.Hits > 0 {
		peers = fmt.Sprintf("%.1f %% of them brought from a peer", 100*float64(s.PeerHits)/float64(s.Hits))
	}
	rate := func(n float64) string {
		if s.Seconds <= 0 {
			return ""
		}
		return perSecond(n / s.Seconds)
	}
	timing := func(l replay.Latency) (string, string) {
		if l.Count == 0 {
			return "–", "none"
		}
		return replay.Micros(l.P50), "median; 99 % under " + replay.Micros(l.P99)
	}
	get, getNote := timing(s.Latency.ReadBlock)
	put, putNote := timing(s.Latency.Put)
	return []figure{
		{"Prefix hit ratio", replay.Percent(s.HitRatio), possible},
		{"Blocks found", replay.Count(s.Hits), peers},
		{"Bytes verified", replay.Bytes(float64(s.BytesRead)), rate(float64(s.BytesRead))},
		{"Wrong bytes", replay.Count(s.WrongBytes), fmt.Sprintf("in %s blocks read", replay.Count(s.BlocksRead))},
		{"Get, per block", get, getNote},
		{"Put, a block", put, putNote},
	}
}

func parameters(s replay.Summary) []Parameter {
	speed := "as fast as possible"
	if s.Speed > 0 {
		speed = fmt.Sprintf("%g × the trace's own", s.Speed)
	}
	all := []Parameter{
		{"workers", replay.Count(s.Workers)}, {"block size", replay.Bytes(float64(s.BlockBytes))}, {"speed", speed},
	}
	if !s.Started.IsZero() {
		all = append(all, Parameter{"started", s.Started.Format(time.RFC3339)})
	}
	if s.Trace != "" {
		all = append([]Parameter{{"trace", s.Trace}}, all...)
	}
	return all
}
