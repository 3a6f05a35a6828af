package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"cairn/cluster"
	"cairn/wire"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// benchPlacementCmd measures how nodes' announcements reach a router: NATS and the nodes,
// which announce as real ones do and move no bytes, are in this process, the router's view in
// one of its own.
type benchPlacementCmd struct {
	Nodes         int           `help:"Nodes that announce." default:"3"`
	Rate          float64       `help:"Changes of placement a second, of all nodes together: as many blocks are stored as removed." default:"100000"`
	Duration      time.Duration `help:"Time of the measurement." default:"60s"`
	Blocks        int           `help:"Blocks that the nodes hold together, all the time." default:"1000000"`
	Replicas      int           `help:"NATS servers, and replicas of the stream: ${enum}." enum:"1,3" default:"1"`
	Restarts      int           `help:"Routers that are started beside the first, one after the other, compared with it and with the nodes, and killed." default:"3"`
	Sample        int           `help:"Blocks that are compared." default:"1000000"`
	MaxIndexBytes size          `help:"Memory of the router's index; 0 for no bound. At the bound, answers fall short of what nodes hold." default:"0"`
	Profile       string        `help:"Write profiles of the processor: of nodes and NATS to this file, of the router to this with .router behind it." type:"path" placeholder:"FILE"`
	Dir           string        `help:"Directory for temporary data; the system's by default." type:"path" placeholder:"DIR"`
}

// Bounds of what one machine can be asked for.
const (
	mostAnnouncers      = 1000
	mostPlacementBlocks = 1 << 26
	mostPlacementRate   = 10e6
)

func (c *benchPlacementCmd) validate() error {
	switch {
	case c.Nodes < 1 || c.Nodes > mostAnnouncers:
		return usage("--nodes %d: want 1 to %d", c.Nodes, mostAnnouncers)
	case !(c.Rate > 0 && c.Rate <= mostPlacementRate) || c.Duration <= 0:
		return usage("--rate and --duration must be positive, --rate at most %.0f", mostPlacementRate)
	case c.Blocks < c.Nodes*placementChain || c.Blocks > mostPlacementBlocks:
		return usage("--blocks %d: want at least %d for each node, and at most %d", c.Blocks, placementChain, mostPlacementBlocks)
	case c.Restarts < 0 || c.Sample < 1:
		return usage("--restarts must not be negative, --sample must be positive")
	}
	return nil
}

func (c *benchPlacementCmd) Run(a *app) error {
	if err := c.validate(); err != nil {
		return err
	}
	return inTemporary(c.Dir, func(dir string) error {
		b := &placementBench{c: c, a: a, f: newFigures()}
		err := b.start(dir)
		if err == nil {
			err = profiled(c.Profile, b.measure)
		}
		if err := errors.Join(err, b.stop()); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(b.f.results())
		}
		return b.f.print(a.out)
	})
}

// placementBench is what is measured, and what was found.
type placementBench struct {
	c       *benchPlacementCmd
	a       *app
	f       *figures
	cluster benchCluster
	nodes   []*announcer
	router  *viewProcess

	busy  sync.WaitGroup // the nodes' work
	cease func()         // ends it
}

func (b *placementBench) start(dir string) error {
	b.cease = func() {}
	if err := b.cluster.startServers(dir, b.c.Replicas); err != nil {
		return err
	}
	if err := b.ensure(); err != nil {
		return err
	}
	fmt.Fprintf(b.a.err, "starting %d nodes with %d blocks\n", b.c.Nodes, b.c.Blocks)
	for i := range b.c.Nodes {
		held := b.c.Blocks / b.c.Nodes / placementChain * placementChain
		n, err := startAnnouncer(b.a.ctx, b.url(i), i, held)
		if err != nil {
			return err
		}
		b.nodes = append(b.nodes, n)
	}
	return b.snapshots()
}

// ensure makes the streams.
func (b *placementBench) ensure() error {
	conn, err := cluster.Connect(b.a.ctx, cluster.ConnConfig{URLs: []string{b.url(0)}, Name: "bench", ConnectTimeout: startWait})
	if err != nil {
		return err
	}
	return errors.Join(cluster.Ensure(b.a.ctx, conn, cluster.Layout{}), conn.Close())
}

func (b *placementBench) url(i int) string {
	return b.cluster.servers[i%len(b.cluster.servers)].ClientURL()
}

// snapshots waits until every node has written one: those of a cluster that has been up for
// a while have.
func (b *placementBench) snapshots() error {
	began := time.Now()
	for _, n := range b.nodes {
		if _, err := n.pub.Snapshot(b.a.ctx, 0); err != nil {
			return err
		}
	}
	b.f.add("all nodes have written a first snapshot", "s", "", time.Since(began).Seconds())
	return nil
}

func (b *placementBench) measure() error {
	var err error
	profile := b.c.Profile
	if profile != "" {
		profile += ".router"
	}
	if b.router, err = startViewProcess(b.a, b.c, b.url(0), profile); err != nil {
		return err
	}
	took, err := b.upToDate(b.router)
	if err != nil {
		return err
	}
	b.f.add("a router starts, before there are changes", "s", "", took.Seconds())
	if err := b.live(); err != nil {
		return err
	}
	if err := b.restarts(); err != nil {
		return err
	}
	b.rest()
	if err := b.compare(b.router, "the router that was there"); err != nil {
		return err
	}
	return b.expire()
}

// work has the nodes announce until rest is called, and tell sample.
func (b *placementBench) work(sample func(wire.Token, time.Time)) {
	ctx, cancel := context.WithCancel(b.a.ctx)
	b.cease = cancel
	every := time.Duration(len(b.nodes)) * time.Second / placementSamples
	for _, n := range b.nodes {
		b.busy.Go(func() { n.work(ctx, b.c.Rate/float64(len(b.nodes)), every, sample) })
	}
}

// placementSamples is how many changes are followed in a second.
const placementSamples = 1000

func (b *placementBench) rest() {
	b.cease()
	b.busy.Wait()
}

func (b *placementBench) tokens() (tokens []wire.Token, position uint64) {
	for _, n := range b.nodes {
		_, t := n.now()
		tokens = append(tokens, t)
		position += t.Position
	}
	return tokens, position
}

// upToDate is how long after its start the process had all that nodes had announced when it
// was ready.
func (b *placementBench) upToDate(p *viewProcess) (time.Duration, error) {
	if _, err := p.ask(viewQuestion{Ready: true}); err != nil {
		return 0, err
	}
	tokens, _ := b.tokens()
	r, err := p.ask(viewQuestion{Await: tokens})
	return time.Unix(0, r.At).Sub(p.began), err
}

// live measures while the nodes announce, with a look each second.
func (b *placementBench) live() error {
	if _, err := b.router.ask(viewQuestion{Report: true}); err != nil {
		return err
	}
	b.work(b.router.sample)
	defer b.rest()
	if err := sleep(b.a.ctx, min(placementWarmUp, b.c.Duration)); err != nil {
		return err
	}
	l, err := b.startLook()
	if err != nil {
		return err
	}
	seconds := max(1, int(b.c.Duration/time.Second))
	bar := progress(b.a.err, seconds, "seconds")
	for range seconds {
		if err := sleep(b.a.ctx, b.c.Duration/time.Duration(seconds)); err != nil {
			return err
		}
		if err := l.look(); err != nil {
			return err
		}
		_ = bar.Add(1)
	}
	_ = bar.Exit()
	fmt.Fprintln(b.a.err)
	l.end()
	b.rest()
	if err := l.settle(); err != nil {
		return err
	}
	l.report()
	return nil
}

// placementWarmUp is what passes before the measurement.
const placementWarmUp = 2 * time.Second

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// placementLook is what is seen of the router and the publishers between its start and now.
type placementLook struct {
	b        *placementBench
	watch    stopwatch
	position uint64 // when it began
	first    viewAnswer
	sent     cluster.PublisherStats
	last     viewAnswer
	all      *hdr.Histogram
	lost     int

	took    rate    // the whole time
	changes float64 // that were announced in it
}

func (b *placementBench) startLook() (*placementLook, error) {
	l := &placementLook{b: b, all: newHistogram()}
	var err error
	l.first, err = b.router.ask(viewQuestion{Report: true})
	l.last = l.first
	l.sent, _ = b.published()
	_, l.position = b.tokens()
	l.watch = startWatch()
	return l, err
}

// published is the publishers' counters together.
func (b *placementBench) published() (s cluster.PublisherStats, most int) {
	for _, n := range b.nodes {
		p := n.pub.Stats()
		s.Events += p.Events
		s.Changes += p.Changes
		s.Resent += p.Resent
		s.Collapses += p.Collapses
		s.Snapshots += p.Snapshots
		s.SnapErrors += p.SnapErrors
		most = max(most, p.Queued)
	}
	return s, most
}

// look takes in a second.
func (l *placementLook) look() error {
	r, err := l.b.router.ask(viewQuestion{Report: true})
	if err != nil {
		return err
	}
	second := hdr.Import(r.Samples)
	l.all.Merge(second)
	l.lost += r.Lost
	l.last = r
	f := l.b.f
	f.add("from the call to the router's index, p99 of each second", "ms", "", float64(second.ValueAtQuantile(99))/1e3)
	f.add("router: live heap, each second", "MB", "flat", float64(r.LiveHeap)/1e6)
	f.add("router: resident size, each second", "MB", "flat", float64(r.Resident)/1e6)
	_, queued := l.b.published()
	f.add("longest queue of a node, each second", "changes", "", float64(queued))
	return nil
}

// end ends the time that is measured.
func (l *placementLook) end() {
	l.took = l.watch.read(1)
	_, position := l.b.tokens()
	l.changes = float64(position - l.position)
}

// settle takes in the samples that are still under way: they are the slowest.
func (l *placementLook) settle() error {
	r, err := l.b.router.ask(viewQuestion{Report: true, Settle: true})
	if err != nil {
		return err
	}
	l.all.Merge(hdr.Import(r.Samples))
	l.lost += r.Lost
	l.last = r
	return nil
}

// report adds the figures of the whole time.
func (l *placementLook) report() {
	f := l.b.f
	f.add("changes announced", "/s", "", l.changes/l.took.elapsed.Seconds())
	for _, q := range []struct {
		name, target string
		quantile     float64
	}{{"p50", "", 50}, {"p99", "≤ 5 ms", 99}, {"p99.9", "", 99.9}, {"longest", "", 100}} {
		f.add("from the call to the router's index, "+q.name, "ms", q.target, float64(l.all.ValueAtQuantile(q.quantile))/1e3)
	}
	f.add("  samples", "", "", float64(l.all.TotalCount()))
	f.add("  samples lost", "", "0", float64(l.lost)+float64(l.b.router.unasked.Load()))
	sent, _ := l.b.published()
	was, is := l.first.Stats, l.last.Stats
	f.add("drops: queues that gave way to a snapshot", "", "0", float64(sent.Collapses-l.sent.Collapses))
	f.add("events sent again", "", "0", float64(sent.Resent-l.sent.Resent))
	f.add("gaps", "", "0", float64(is.Index.Gaps-was.Index.Gaps))
	f.add("snapshots loaded to repair", "", "0", float64(is.Repairs-was.Repairs))
	f.add("events that could not be read", "", "0", float64(is.Bad-was.Bad))
	f.add("snapshots written", "", "", float64(sent.Snapshots-l.sent.Snapshots))
	f.add("snapshots that could not be written", "", "0", float64(sent.SnapErrors-l.sent.SnapErrors))
	f.add("changes in an event", "", "", float64(sent.Changes-l.sent.Changes)/float64(max(sent.Events-l.sent.Events, 1)))
	router := l.last.CPU - l.first.CPU
	f.add("processor time of a change: router", "µs", "", router.Seconds()*1e6/l.changes)
	f.add("processor time of a change: nodes and NATS", "µs", "", l.took.cpu.Seconds()*1e6/l.changes)
	f.add("index: blocks", "", "", float64(is.Index.Blocks))
	f.add("index: bytes of the table", "MB", "", float64(is.Index.Bytes)/1e6)
	if b := l.b.c.MaxIndexBytes; b > 0 {
		f.add("index: bound", "MB", "", float64(b)/1e6)
		f.add("index: blocks evicted", "", "", float64(is.Index.Evicted))
		f.add("index: changes refused", "", "", float64(is.Index.Refused))
		f.add("index: first position that is not kept", "", "", float64(is.Index.Depth))
	}
}

// restarts starts routers beside the first while the nodes announce, and kills each after
// its answers were compared.
func (b *placementBench) restarts() error {
	bar := progress(b.a.err, b.c.Restarts, "restarts")
	for range b.c.Restarts {
		b.work(b.router.sample)
		p, err := startViewProcess(b.a, b.c, b.url(0), "")
		if err == nil {
			err = b.restarted(p)
			p.kill()
		}
		if b.rest(); err != nil {
			return err
		}
		_ = bar.Add(1)
	}
	_ = bar.Exit()
	fmt.Fprintln(b.a.err)
	return nil
}

func (b *placementBench) restarted(p *viewProcess) error {
	took, err := b.upToDate(p)
	if err != nil {
		return err
	}
	b.f.add("a router starts beside changes, and is up to date", "s", "≤ 10 s", took.Seconds())
	b.rest()
	if err := b.compare(p, "the router that was started"); err != nil {
		return err
	}
	r, err := p.ask(viewQuestion{Report: true})
	if err != nil {
		return err
	}
	b.f.add("  snapshots that it loaded", "", "", float64(r.Stats.Repairs))
	b.f.add("  its processor time", "s", "", r.CPU.Seconds())
	b.f.add("  its live heap", "MB", "", float64(r.LiveHeap)/1e6)
	b.f.add("  its resident size", "MB", "", float64(r.Resident)/1e6)
	return nil
}

// compare looks blocks up at a process, while nobody announces.
func (b *placementBench) compare(p *viewProcess, name string) error {
	tokens, _ := b.tokens()
	if _, err := p.ask(viewQuestion{Await: tokens}); err != nil {
		return err
	}
	var spans []placementSpan
	for _, n := range b.nodes {
		span, _ := n.now()
		spans = append(spans, span)
	}
	r, err := p.ask(viewQuestion{Check: spans, Count: b.c.Sample, Seed: tokens[0].Position})
	if err != nil {
		return err
	}
	none := "0"
	if b.c.MaxIndexBytes > 0 {
		none = "" // the deepest blocks are forgotten
	}
	unit := "of " + strconv.Itoa(r.Checked)
	b.f.add(name+": blocks with other holders than they have", unit, "0", float64(r.Wrong))
	b.f.add(name+": blocks whose holders it does not know", unit, none, float64(r.Missing))
	return nil
}

// expire has a node leave, and waits until it is out of all answers and out of the table.
func (b *placementBench) expire() error {
	n := b.nodes[len(b.nodes)-1]
	_, token := n.now()
	before, err := b.router.ask(viewQuestion{Report: true})
	if err != nil {
		return err
	}
	began := time.Now()
	if err := n.lease.Leave(b.a.ctx); err != nil {
		return err
	}
	r, err := b.router.ask(viewQuestion{Gone: &token})
	if err != nil {
		return err
	}
	b.f.add("a node that leaves is out of all answers after", "ms", "", time.Unix(0, r.At).Sub(began).Seconds()*1e3)
	held := before.Stats.Index.Blocks / len(b.nodes)
	for {
		r, err := b.router.ask(viewQuestion{Report: true})
		if err != nil {
			return err
		}
		if r.Stats.Index.Blocks <= before.Stats.Index.Blocks-held/2 || time.Since(began) > sampleWait {
			b.f.add("  and its blocks are out of the table after", "ms", "", time.Unix(0, r.At).Sub(began).Seconds()*1e3)
			return nil
		}
		if err := sleep(b.a.ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

func (b *placementBench) stop() error {
	b.rest()
	var errs []error
	if b.router != nil {
		errs = append(errs, b.router.stop())
	}
	for _, n := range b.nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(append(errs, b.cluster.stop())...)
}
