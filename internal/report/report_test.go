package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"cairn/internal/replay"
)

// summary is that of a run with n points and samples, over some nodes.
func summary(t testing.TB, n, nodes int) replay.Summary {
	t.Helper()
	s := replay.Summary{
		Trace: "a trace", Workers: 8, BlockBytes: 65536, Started: time.Unix(1e9, 0), Seconds: float64(n),
		Requests: 10 * n, References: 100 * n, Hits: 30 * n, LocalHits: 20 * n, PeerHits: 10 * n, HitRatio: .3,
		BoundHits: 40 * n, BoundRatio: .4, BlocksRead: int64(30 * n), BytesRead: int64(30*n) << 16, BytesPut: int64(70*n) << 16,
		Errors: map[string]int64{"put: timeout": 1},
		Latency: replay.Latencies{Read: replay.Latency{Count: 1000, P50: 100, P99: 2000, Curve: []replay.Quantile{
			{Share: 0, Micros: 20}, {Share: .5, Micros: 100}, {Share: .99, Micros: 2000}, {Share: 1, Micros: 12345}}},
			Put: replay.Latency{Count: 1, Curve: []replay.Quantile{{Share: 0, Micros: 1}, {Share: 1, Micros: 1}}}},
	}
	for i := range n {
		s.Series = append(s.Series, replay.Point{Seconds: float64(i + 1), Requests: 10 * (i + 1), HitRatio: .3, Bound: .4, WindowHit: .2, WindowBound: .5, ReadRate: 1e9, PutRate: 2e9})
		sample := replay.Sample{Seconds: float64(i), Requests: 10 * i}
		for k := range nodes {
			if i == 0 && k == 1 {
				continue // it comes later
			}
			sample.Nodes = append(sample.Nodes, replay.NodeStatus{Node: fmt.Sprintf("node-%02d", k), Tiers: []replay.TierStatus{
				{Tier: 1, Bytes: int64(i) << 30, Capacity: 5 << 30}, {Tier: 2, Bytes: int64(i) << 29},
			}})
		}
		s.Samples = append(s.Samples, sample)
	}
	return s
}

func write(t *testing.T, s replay.Summary, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s, o); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"NaN", "Inf", "ZgotmplZ", "<script", "src=", "href=", "url(", "@import"} {
		if strings.Contains(b.String(), never) {
			t.Errorf("the page contains %q", never)
		}
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(b.String(), -1) {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("a drawing is not XML: %v\n%.300s", err, svg)
			}
		}
	}
	return b.String()
}

func TestPage(t *testing.T) {
	page := write(t, summary(t, 50, 3), Options{Parameters: []Parameter{{"nodes", "three"}}})
	for _, want := range []string{
		"Cairn replay", "a trace · 500 requests", "30.00 %", "75.0 % of what an infinite cache finds", "requests finished", "time since the start (s)",
		"all nodes", "node-00", "node-02", "put: timeout", "99.9 %", "three", "prefers-color-scheme: dark", "host&nbsp;49.0", "verdict good",
	} {
		if !strings.Contains(strings.ReplaceAll(page, "\u00a0", "&nbsp;"), want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

func TestPageOfLittle(t *testing.T) {
	for name, s := range map[string]replay.Summary{
		"nothing": {}, "one point": summary(t, 1, 1), "no status": summary(t, 5, 0), "two nodes, two points": summary(t, 2, 2),
	} {
		t.Run(name, func(t *testing.T) {
			page := write(t, s, Options{Title: "little"})
			if !strings.Contains(page, "<h1>little</h1>") {
				t.Error("no title")
			}
			if got := strings.Contains(page, "Occupancy by node"); got != (len(s.Samples) > 0 && len(s.Samples[0].Nodes) > 0) {
				t.Errorf("occupancy shown: %v", got)
			}
		})
	}
}

func TestNamesAreEscaped(t *testing.T) {
	s := summary(t, 3, 1)
	const evil = `"><b>&x</b>`
	s.Trace = evil
	for i := range s.Samples {
		for k := range s.Samples[i].Nodes {
			s.Samples[i].Nodes[k].Node = evil
		}
	}
	if page := write(t, s, Options{Title: evil, Parameters: []Parameter{{evil, evil}}}); strings.Contains(page, "<b>") {
		t.Error("a name became markup")
	}
}

func TestWrongBytesStandOut(t *testing.T) {
	s := summary(t, 3, 1)
	s.WrongBlocks, s.WrongBytes = 1, 7
	s.Wrong = []replay.WrongBlock{{Node: "node-77", Length: 64, Bytes: 7, First: 3}}
	page := write(t, s, Options{})
	for _, want := range []string{"verdict bad", "WRONG BYTES", "node-77"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	s = summary(t, 3, 1)
	s.FailedRequests = 2
	if page := write(t, s, Options{}); !strings.Contains(page, "verdict warn") {
		t.Error("failed requests must change the verdict's colour")
	}
}

func TestManyNodes(t *testing.T) {
	page := write(t, summary(t, 3, nodesShown+5), Options{})
	if !strings.Contains(page, "5 more nodes are not shown") || strings.Contains(page, "<h3>node-12</h3>") || !strings.Contains(page, "<h3>node-11</h3>") {
		t.Error("the page must show twelve nodes and say that five are left out")
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		a    axis
		want string
	}{
		{linear("", 1000, 1, 10, count), "0 100 200 300 400 500 600 700 800 900 1,000"},
		{linear("", 0, 1, 5, count), "0 0 0 1 1 1"},
		{shareAxis("", .34, .884), "30 % 40 % 50 % 60 % 70 % 80 % 90 %"},
		{shareAxis("", .3, .3), "30 % 30.1 %"},
		{shareAxis("", 0, 1), "0 % 10 % 20 % 30 % 40 % 50 % 60 % 70 % 80 % 90 % 100 %"},
		{linear("", .37, .01, 5, percent), "0 % 10 % 20 % 30 %"},
		{byteAxis("", 2.1*(1<<30)), "0 GiB 0.5 GiB 1 GiB 1.5 GiB 2 GiB"},
		{logarithmic("", 30, 2e6, decade), "10 µs 100 µs 1 ms 10 ms 100 ms 1 s 10 s"},
		{logarithmic("", 10, 10, decade), "10 µs 100 µs"},
	} {
		var got []string
		for _, t := range c.a.ticks {
			got = append(got, t.text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("got %s, want %s", strings.Join(got, " "), c.want)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	s := summary(b, 200, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := Write(io.Discard, s, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
