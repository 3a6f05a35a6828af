package simulate

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Result is what one policy did at one capacity.
type Result struct {
	Workload string `json:"workload"`
	Policy   string `json:"policy"`
	Eviction string `json:"eviction"`
	Nodes    int    `json:"nodes"`
	// Capacity is in blocks for each node.
	Capacity int `json:"capacity_blocks"`
	Requests int `json:"requests"`
	// Blocks is the number of blocks of all requests, Hits how many of them were not
	// computed, Fetched how many of those came from another node.
	Blocks  int `json:"blocks"`
	Hits    int `json:"hits"`
	Fetched int `json:"fetched"`
	// HitRatio is Hits/Blocks.
	HitRatio float64 `json:"hit_ratio"`
	// TTFT, in seconds from arrival.
	MeanTTFT float64 `json:"ttft_mean_seconds"`
	P50TTFT  float64 `json:"ttft_p50_seconds"`
	P99TTFT  float64 `json:"ttft_p99_seconds"`
	// Imbalance is the blocks computed by the busiest node over the mean.
	Imbalance float64 `json:"imbalance"`
	// MovedBytes is what nodes fetched.
	MovedBytes int64 `json:"moved_bytes"`
	// PrefillRate is how fast a node computes, tokens per second.
	PrefillRate float64 `json:"prefill_tokens_per_second"`
}

// Name is policy/eviction.
func (r *Result) Name() string { return r.Policy + "/" + r.Eviction }

// finish computes what follows from counts and times.
func (r *Result) finish(c *cluster, times []time.Duration) {
	r.HitRatio = float64(r.Hits) / float64(r.Blocks)
	r.MovedBytes = int64(r.Fetched) * c.cfg.BlockBytes
	slices.Sort(times)
	var sum float64
	for _, t := range times {
		sum += t.Seconds()
	}
	r.MeanTTFT = sum / float64(len(times))
	r.P50TTFT = times[(len(times)-1)/2].Seconds()
	r.P99TTFT = times[(len(times)-1)*99/100].Seconds()
	most, all := 0, 0
	for _, n := range c.nodes {
		most, all = max(most, n.computed), all+n.computed
	}
	if all > 0 {
		r.Imbalance = float64(most) * float64(len(c.nodes)) / float64(all)
	}
}

// WriteTable writes results for people, a block of lines for each capacity.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	last := 0
	for _, r := range results {
		if r.Capacity != last {
			if last != 0 {
				fmt.Fprintln(t)
			}
			fmt.Fprintf(t, "%d blocks a node\teviction\thit\tTTFT mean\tp50\tp99\tmax/mean\tmoved\t\n", r.Capacity)
			last = r.Capacity
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f %%\t%.2f s\t%.2f s\t%.1f s\t%.2f\t%.1f GiB\t\n", r.Policy, r.Eviction,
			100*r.HitRatio, r.MeanTTFT, r.P50TTFT, r.P99TTFT, r.Imbalance, float64(r.MovedBytes)/(1<<30))
	}
	return t.Flush()
}
