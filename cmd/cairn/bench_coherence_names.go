package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/coherency/ledger"
)

const (
	// benchRecords is how many records a message of the loader has, benchFlights how
	// many messages are on their way.
	benchRecords = 512
	benchFlights = 3
	// benchTail is how much of the log follows the snapshot: one in so many.
	benchTail = 10
)

// runNames measures what many names cost. Their pointers are committed in batches by a
// member that holds no bytes: a node's table, the log and a snapshot are the same as if each
// had been written by itself.
func (c *benchCoherenceCmd) runNames(a *app, dir string) error {
	nats, err := startNATSProcess(filepath.Join(dir, "nats"))
	if err != nil {
		return err
	}
	defer nats.stop()
	f := newFigures()
	if err := c.measureNames(a, dir, nats, f); err != nil {
		return err
	}
	_, largest := nats.liveHeap()
	f.add("NATS server: largest live heap, while a snapshot is written and nodes start", "MB", "", largest)
	if rss, ok := nats.rss(); ok {
		f.add("NATS server: largest resident size", "MB", "", rss)
	}
	return c.report(a, f)
}

func (c *benchCoherenceCmd) measureNames(a *app, dir string, nats *natsProcess, f *figures) error {
	first, err := startBenchNode(a, filepath.Join(dir, "a"), "a", nats.url)
	if err != nil {
		return err
	}
	defer func() { _ = first.close() }()
	before := liveHeap()
	fmt.Fprintf(a.err, "committing %d names\n", c.Blocks)
	began := time.Now()
	l, err := startLoader(a.ctx, first)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := l.load(a.ctx, c.Blocks); err != nil {
		return err
	}
	if err := first.applied(a.ctx, l.sequence()); err != nil {
		return err
	}
	took := time.Since(began)
	f.add("names", "", "", float64(first.node.Coherence().Names))
	f.add("  committed and applied", "/s", "", float64(c.Blocks)/took.Seconds())
	f.add("node: live heap for each name", "B", "", (liveHeap()-before)/float64(c.Blocks))

	_, largest := nats.liveHeap()
	f.add("NATS server: largest live heap while they are committed", "MB", "< 100 MB", largest)
	fmt.Fprintln(a.err, "letting the NATS server rest")
	select {
	case <-time.After(c.Rest):
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
	newest, _ := nats.liveHeap()
	f.add("  live heap after a rest", "MB", "< 100 MB", newest)

	alone, err := c.join(a, dir, "b", nats.url, l.sequence())
	if err != nil {
		return err
	}
	f.add("a fresh node is ready: from the log alone", "s", "", alone.Seconds())
	fmt.Fprintln(a.err, "keeping a snapshot")
	began = time.Now()
	size, err := saveSnapshot(a.ctx, first.conn)
	if err != nil {
		return err
	}
	f.add("snapshot", "MB", "", float64(size)/1e6)
	f.add("  of each name", "B", "", float64(size)/float64(c.Blocks))
	f.add("  read the log, write, read back", "s", "", time.Since(began).Seconds())
	if err := l.load(a.ctx, c.Blocks/benchTail); err != nil {
		return err
	}
	after, err := c.join(a, dir, "c", nats.url, l.sequence())
	if err != nil {
		return err
	}
	f.add(fmt.Sprintf("a fresh node is ready: from the snapshot and a tail of %d commits", c.Blocks/benchTail), "s", "≤ 10 s", after.Seconds())
	return nil
}

// join times the start of a fresh node until it serves and has applied the log up to
// sequence.
func (c *benchCoherenceCmd) join(a *app, dir, id, url string, sequence uint64) (time.Duration, error) {
	began := time.Now()
	n, err := startBenchNode(a, filepath.Join(dir, id), id, url)
	if err != nil {
		return 0, err
	}
	err = n.applied(a.ctx, sequence)
	took := time.Since(began)
	return took, errors.Join(err, n.close())
}

// applied waits until the node has applied the log up to a sequence.
func (n *benchNode) applied(ctx context.Context, sequence uint64) error {
	for n.node.Coherence().Applied < sequence {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// liveHeap is what is in use after a collection, in bytes.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// benchReader is a reader of the log that keeps only what it is told to.
type benchReader struct {
	restore func(uint64, io.Reader) error
	message func(uint64, *ledger.Message, uint64)
	caught  chan struct{}
	once    sync.Once
}

// Restore implements cluster.Handler.
func (r *benchReader) Restore(sequence uint64, s io.Reader) error {
	if r.restore == nil {
		return nil
	}
	return r.restore(sequence, s)
}

// Message implements cluster.Handler.
func (r *benchReader) Message(sequence uint64, m *ledger.Message, sum uint64) {
	r.message(sequence, m, sum)
}

// Bad implements cluster.Handler.
func (r *benchReader) Bad(uint64, uint64) {}

// CaughtUp implements cluster.Handler.
func (r *benchReader) CaughtUp() { r.once.Do(func() { close(r.caught) }) }

// Regressed implements cluster.Handler.
func (r *benchReader) Regressed(error) {}

// follow reads the log until stop is called.
func (r *benchReader) follow(ctx context.Context, log *cluster.Coherence) (stop func()) {
	r.caught = make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = log.Run(ctx, r) // it ends with the context
	}()
	return func() { cancel(); <-ended }
}

// loader is a member that commits pointers in batches.
type loader struct {
	log    *cluster.Coherence
	stop   func()
	home   uint16
	number uint64
	made   int
	landed chan uint64 // a token for each own message that came back

	// mu guards last.
	mu   sync.Mutex
	last uint64 // sequence of the newest own message
}

const loaderName = "loader"

func startLoader(ctx context.Context, n *benchNode) (*loader, error) {
	log, err := cluster.NewCoherence(n.conn, cluster.CoherenceConfig{})
	if err != nil {
		return nil, err
	}
	l := &loader{log: log, home: 1, landed: make(chan uint64, benchFlights)}
	r := &benchReader{message: func(sequence uint64, m *ledger.Message, _ uint64) {
		if m.Node != loaderName {
			return
		}
		l.mu.Lock()
		l.last = sequence
		l.mu.Unlock()
		l.landed <- m.Number
	}}
	l.stop = r.follow(ctx, log)
	select {
	case <-r.caught:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.publish([]ledger.Record{{Kind: ledger.Join}})
	return l, l.await(ctx, 1)
}

func (l *loader) sequence() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *loader) publish(records []ledger.Record) {
	l.number++
	l.log.Publish(&ledger.Message{Node: loaderName, Incarnation: 1, Number: l.number, Records: records})
}

func (l *loader) await(ctx context.Context, n int) error {
	for range n {
		select {
		case <-l.landed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// load commits names, the first again from the start with each call, and waits until the
// log has them.
func (l *loader) load(ctx context.Context, count int) error {
	flying := 0
	for i := 0; i < count; i += benchRecords {
		if flying == benchFlights {
			if err := l.await(ctx, 1); err != nil {
				return err
			}
			flying--
		}
		records := make([]ledger.Record, 0, benchRecords)
		for j := i; j < min(i+benchRecords, count); j++ {
			l.made++
			name := fmt.Appendf(nil, "state/agent-%d", j)
			records = append(records, ledger.Record{Kind: ledger.Commit, Key: block.NamedKey(benchSpace, name, 0), Namespace: benchSpace, Name: name,
				Value: ledger.Value{Object: block.NamedKey(loaderName, name, uint64(l.made)), Length: 1, Sum: uint64(l.made) * 0x9e3779b97f4a7c15, Homes: ledger.Homes{l.home}}})
		}
		l.publish(records)
		flying++
	}
	return l.await(ctx, flying)
}

// saveSnapshot reads the log to its end and keeps what follows from it, as the node does
// that does so for all.
func saveSnapshot(ctx context.Context, conn *cluster.Conn) (size int, err error) {
	log, err := cluster.NewCoherence(conn, cluster.CoherenceConfig{})
	if err != nil {
		return 0, err
	}
	led := ledger.New(ledger.NewMapTable(), 0)
	r := &benchReader{
		restore: func(_ uint64, snapshot io.Reader) error {
			restored, err := ledger.LoadSnapshot(snapshot, ledger.NewMapTable(), 0)
			if err == nil {
				led = restored
			}
			return err
		},
		message: func(sequence uint64, m *ledger.Message, sum uint64) {
			led.Apply(sequence, m, sum, func(*ledger.Record, *ledger.Outcome) {})
		},
	}
	stop := r.follow(ctx, log)
	select {
	case <-r.caught:
	case <-ctx.Done():
	}
	stop()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	var b bytes.Buffer
	if err := led.Snapshot(&b); err != nil {
		return 0, err
	}
	return b.Len(), log.SaveSnapshot(ctx, led.Sequence(), b.Bytes())
}

// natsProcess is `cairn nats` in a process of its own, which says after each collection
// what it has in use.
type natsProcess struct {
	cmd  *exec.Cmd
	url  string
	done chan struct{}

	// mu guards the heap after the newest collection, and the largest so far, in MB.
	mu              sync.Mutex
	newest, largest float64
}

var (
	natsURLText = regexp.MustCompile(`NATS at (nats://\S+),`)
	gcHeapText  = regexp.MustCompile(`^gc \d+ @.* \d+->\d+->(\d+) MB,`)
)

func startNATSProcess(dir string) (*natsProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &natsProcess{cmd: exec.Command(exe, "nats", "--nats-listen", "127.0.0.1:0", "--data", dir), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	out, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	url := make(chan string, 1)
	go p.listen(out, url)
	select {
	case p.url = <-url:
		return p, nil
	case <-p.done:
	case <-time.After(startWait):
	}
	p.stop()
	return nil, errors.New("cairn nats did not start")
}

func (p *natsProcess) listen(out io.Reader, url chan<- string) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := natsURLText.FindStringSubmatch(lines.Text()); m != nil {
			url <- m[1]
		}
		if m := gcHeapText.FindStringSubmatch(lines.Text()); m != nil {
			mb, _ := strconv.ParseFloat(m[1], 64)
			p.mu.Lock()
			p.newest, p.largest = mb, max(p.largest, mb)
			p.mu.Unlock()
		}
	}
}

func (p *natsProcess) liveHeap() (newest, largest float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.newest, p.largest
}

// rss is the largest resident size so far in MB, where the system tells it.
func (p *natsProcess) rss() (mb float64, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb / 1e3, err == nil
		}
	}
	return 0, false
}

// stop ends the process as an operator would, and if need be by force.
func (p *natsProcess) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(startWait):
		_ = p.cmd.Process.Kill()
	}
	_ = p.cmd.Wait()
}
