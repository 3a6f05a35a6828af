package replay

import (
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Summary is the result of a run. Ratios are 0 to 1, sizes are in bytes, and a
// reference is one block of one request.
type Summary struct {
	Trace       string  `json:"trace"`
	Interrupted bool    `json:"interrupted,omitempty"`
	Workers     int     `json:"workers"`
	BlockBytes  int     `json:"block_bytes"`
	Speed       float64 `json:"speed"`
	// Started and Seconds are of the requests, without what comes before and after.
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`

	Requests       int `json:"requests"`
	FailedRequests int `json:"failed_requests"`
	References     int `json:"references"`
	// Hits are references that were read as part of the request's prefix: LocalHits
	// at the chosen node, PeerHits brought from others. WarmHits of them are more
	// than an infinite cache would have that starts empty.
	Hits      int     `json:"hits"`
	LocalHits int     `json:"local_hits"`
	PeerHits  int     `json:"peer_hits"`
	WarmHits  int     `json:"warm_hits"`
	HitRatio  float64 `json:"hit_ratio"`
	// BoundHits and BoundRatio are those of an infinite cache on the same requests.
	BoundHits  int     `json:"bound_hits"`
	BoundRatio float64 `json:"bound_ratio"`
	// TierHits is who served block reads, as the nodes count them.
	TierHits []TierHits `json:"tier_hits"`

	// Puts is how many blocks were offered; PutsExisted of them were there
	// already. DuplicatePuts were stored although this run had stored them before:
	// evicted meanwhile, or put at two nodes.
	Puts          int64 `json:"puts"`
	PutsExisted   int64 `json:"puts_existed"`
	DuplicatePuts int64 `json:"duplicate_puts"`
	// DistinctStored is how many different blocks this run has stored.
	DistinctStored int64 `json:"distinct_stored"`
	BlocksRead     int64 `json:"blocks_read"`
	BytesRead      int64 `json:"bytes_read"`
	BytesPut       int64 `json:"bytes_put"`
	// Gaps is how many prefixes turned out shorter at the read than at the match.
	Gaps int64 `json:"gaps"`

	// WrongBlocks came back with WrongBytes bytes that differ; Wrong shows some.
	WrongBlocks int64        `json:"wrong_blocks"`
	WrongBytes  int64        `json:"wrong_bytes"`
	Wrong       []WrongBlock `json:"wrong,omitempty"`
	// Errors counts failed operations as "operation: kind".
	Errors      map[string]int64 `json:"errors"`
	LostSamples int64            `json:"lost_samples"`

	Latency Latencies `json:"latency"`
	Series  []Point   `json:"series"`
	Samples []Sample  `json:"samples"`
}

// Latencies are those of successful operations. ReadBlock is a batch's time over
// its number of blocks.
type Latencies struct {
	Route     Latency `json:"route"`
	Match     Latency `json:"match"`
	Read      Latency `json:"read"`
	ReadBlock Latency `json:"read_block"`
	Put       Latency `json:"put"`
}

// Latency is a distribution; times are in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_us"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Max   float64 `json:"max_us"`
	// Curve is the time below which a share of the operations stayed, for drawing.
	Curve []Quantile `json:"curve"`
}

// Quantile is a point of a latency curve; Share is 0 to 1.
type Quantile struct {
	Share  float64 `json:"share"`
	Micros float64 `json:"us"`
}

// Point is a moment of the run, in the order in which requests were finished.
// HitRatio and Bound are of all requests so far. Window… are of the last few
// points, 4 to 8 percent of a long run; so are the rates, in bytes a second.
type Point struct {
	Seconds     float64 `json:"seconds"`
	Requests    int     `json:"requests"`
	HitRatio    float64 `json:"hit_ratio"`
	Bound       float64 `json:"bound"`
	WindowHit   float64 `json:"window_hit_ratio"`
	WindowBound float64 `json:"window_bound"`
	ReadRate    float64 `json:"read_bytes_per_second"`
	PutRate     float64 `json:"put_bytes_per_second"`
}

func (c *collector) summary(occupancy *sampler) Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.totals
	s := Summary{
		Trace: c.cfg.Name, Workers: c.cfg.Workers, BlockBytes: c.cfg.BlockBytes, Speed: c.cfg.Speed,
		Started: c.began, Seconds: c.duration.Seconds(),
		Requests: t.requests, FailedRequests: t.failed, References: t.references,
		Hits: t.hits, LocalHits: t.local, PeerHits: t.peer, WarmHits: t.warm, HitRatio: share(t.hits, t.references),
		BoundHits: t.bound, BoundRatio: share(t.bound, t.references), TierHits: occupancy.byTier(),
		Puts: c.puts.Load(), PutsExisted: c.existed.Load(), DuplicatePuts: c.duplicate.Load(),
		BlocksRead: c.blocksRead.Load(), BytesRead: c.bytesRead.Load(), BytesPut: c.bytesPut.Load(), Gaps: c.gaps.Load(),
		WrongBlocks: c.wrongCount, WrongBytes: c.wrongBytes, Wrong: c.wrongs,
		Errors: c.errors, LostSamples: occupancy.lost,
		Latency: Latencies{
			Route: latency(c.latency[opRoute]), Match: latency(c.latency[opMatch]),
			Read: latency(c.latency[opRead]), ReadBlock: latency(c.perBlock), Put: latency(c.latency[opPut]),
		},
		Series: points(c.series.values()), Samples: occupancy.samples.values(),
	}
	s.DistinctStored = s.Puts - s.PutsExisted - s.DuplicatePuts
	return s
}

// windowPoints is how many points of the series Window… and rates of a Point cover.
const windowPoints = 8

// points turns totals into ratios and rates.
func points(all []totals) []Point {
	series := make([]Point, 0, len(all))
	for i, t := range all {
		var before totals
		if i >= windowPoints {
			before = all[i-windowPoints]
		}
		p := Point{
			Seconds: t.elapsed.Seconds(), Requests: t.requests,
			HitRatio: share(t.hits, t.references), Bound: share(t.bound, t.references),
			WindowHit:   share(t.hits-before.hits, t.references-before.references),
			WindowBound: share(t.bound-before.bound, t.references-before.references),
		}
		if d := (t.elapsed - before.elapsed).Seconds(); d > 0 {
			p.ReadRate = float64(t.bytesRead-before.bytesRead) / d
			p.PutRate = float64(t.bytesPut-before.bytesPut) / d
		}
		series = append(series, p)
	}
	return series
}

// shares are the quantiles of a latency curve.
var shares = [...]float64{0, .01, .05, .1, .2, .3, .4, .5, .6, .7, .8, .9, .925, .95, .975, .99, .9925, .995, .9975, .999, .9995, .9999, 1}

func latency(h *hdr.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	at := func(share float64) float64 { return float64(h.ValueAtQuantile(100*share)) / float64(time.Microsecond) }
	l := Latency{
		Count: h.TotalCount(), Mean: h.Mean() / float64(time.Microsecond),
		P50: at(.5), P90: at(.9), P99: at(.99), P999: at(.999), Max: at(1),
	}
	for _, share := range shares {
		// Beyond 1-1/n a quantile is just the slowest operation again.
		if share < 1 && (1-share)*float64(l.Count) < 1 {
			continue
		}
		l.Curve = append(l.Curve, Quantile{Share: share, Micros: at(share)})
	}
	return l
}
