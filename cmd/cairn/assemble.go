package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/diskstore"
	"cairn/hostcache"
	"cairn/node"
	"cairn/resp"
	"cairn/vram"
)

// runningNode is a node with everything around it, in the order in which it is
// taken down.
type runningNode struct {
	id, addr, unix, dir, natsURL string
	// failed gets an error that ends the node's usefulness.
	failed chan error

	a     *app
	node  *node.Node
	close []func() error // called last to first
	work  sync.WaitGroup
	quit  context.CancelFunc

	// mu guards lease, which changes when it lapses.
	mu    sync.Mutex
	lease *cluster.Lease
}

// startNode opens the tiers, joins NATS, makes the node and serves it. The order is
// that of need: nobody is told of the node before it can answer.
func startNode(a *app, c nodeCmd) (_ *runningNode, err error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, usage("--data: %w", err)
	}
	with := *a
	with.log = a.log.With("node", c.ID)
	a = &with
	r := &runningNode{id: c.ID, dir: c.Data, a: a, failed: make(chan error, 1)}
	ctx, quit := context.WithCancel(context.WithoutCancel(a.ctx))
	r.quit = quit
	defer func() {
		if err != nil {
			err = errors.Join(err, r.stop())
		}
	}()
	tiers, storeID, err := r.openTiers(c)
	if err != nil {
		return nil, err
	}
	conn, server, err := c.connect(a.ctx, a, c.natsServer, c.Data, "node "+c.ID)
	if err != nil {
		return nil, err
	}
	if server != nil {
		r.defers(server.Close)
		r.natsURL = server.ClientURL() + " (embedded)"
	} else {
		r.natsURL = conn.NC.ConnectedUrlRedacted()
	}
	r.defers(conn.Close)
	if err := cluster.Vacant(a.ctx, conn, cluster.Member{ID: c.ID, StoreID: storeID}); err != nil {
		return nil, err
	}
	publisher, coherence, err := r.startCluster(ctx, conn, c, tiers)
	if err != nil {
		return nil, err
	}
	addr, err := r.listen(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := r.join(ctx, conn, c, publisher, storeID, addr); err != nil {
		return nil, err
	}
	if err := r.follow(ctx, c, coherence); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *runningNode) defers(f func() error) { r.close = append(r.close, f) }

// background runs f until the node stops; an error ends the node.
func (r *runningNode) background(ctx context.Context, what string, f func(context.Context) error) {
	r.work.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			select {
			case r.failed <- fmt.Errorf("%s: %w", what, err):
			default:
			}
		}
	})
}

func (r *runningNode) openTiers(c nodeCmd) (tiers node.Tiers, storeID string, err error) {
	classes := c.slotSizes()
	if c.Disk > 0 {
		disk, err := diskstore.Open(filepath.Join(c.Data, "blocks"), diskstore.Config{
			Capacity: int64(c.Disk), SegmentSize: int64(c.Segment), Logger: r.a.log,
		})
		if err != nil {
			return tiers, "", fmt.Errorf("--data, --disk: %w", err)
		}
		r.defers(disk.Close)
		tiers.Disk, storeID = disk, disk.ID()
	} else {
		lock, id, err := identity(c.Data)
		if err != nil {
			return tiers, "", err
		}
		r.defers(lock.Close)
		storeID = id
	}
	// The device comes before host memory, which it may lock, and is closed after it.
	gpu, err := c.openDevice(gpus(), c.VRAM, r.a.log)
	if err != nil {
		return tiers, "", err
	}
	if gpu != nil {
		r.defers(gpu.dev.Close)
	}
	host, err := hostcache.Open(hostcache.Config{
		Capacity: int64(c.Host), Classes: classes, Prefault: c.Prefault, Eviction: c.Eviction, Logger: r.a.log,
		Lock: gpu.pageLock(r.a.log),
	})
	if err != nil {
		return tiers, "", usage("--host: %w", err)
	}
	r.defers(host.Close)
	tiers.Host = host
	if gpu != nil {
		pool, err := vram.Open(gpu.dev, c.Pressure.pool(vram.Config{Capacity: gpu.bytes, Classes: deviceClasses(classes, int(gpu.bytes)), Eviction: c.Eviction}))
		if err != nil {
			return tiers, "", usage("--vram: %w", err)
		}
		r.defers(pool.Close)
		tiers.VRAM = pool
	}
	return tiers, storeID, nil
}

// classShare: a slot takes at most one part in so many of a device's memory.
const classShare = 4

// deviceClasses are the classes that fit a device's memory with room to change
// between them.
func deviceClasses(classes []int, memory int) []int {
	if classes == nil {
		classes = vram.DefaultClasses()
	}
	var fit []int
	for _, c := range classes {
		if c <= memory/classShare {
			fit = append(fit, c)
		}
	}
	return fit
}

// identity is the id of a data directory without blocks, and the lock that lets no
// other process have it.
func identity(dir string) (lock *os.File, id string, err error) {
	path := filepath.Join(dir, "IDENTITY")
	lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, "", err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, "", errors.Join(fmt.Errorf("data directory %s is in use by another process (%w): stop it or choose another directory", dir, err), lock.Close())
	}
	text := make([]byte, 2*block.KeySize)
	if n, err := io.ReadFull(lock, text); err == nil {
		return lock, string(text), nil
	} else if n > 0 {
		return nil, "", errors.Join(fmt.Errorf("%s is damaged: remove it, and the node becomes a new one", path), lock.Close())
	}
	var random [block.KeySize]byte
	rand.Read(random[:])
	hex.Encode(text, random[:])
	if _, err := lock.WriteAt(text, 0); err != nil {
		return nil, "", errors.Join(err, lock.Close())
	}
	return lock, string(text), nil
}

// startCluster makes the node and what connects it with the others.
func (r *runningNode) startCluster(ctx context.Context, conn *cluster.Conn, c nodeCmd, tiers node.Tiers) (*cluster.Publisher, *cluster.Coherence, error) {
	cost, err := c.Cost.config()
	if err != nil {
		return nil, nil, usageError{err}
	}
	view, err := cluster.OpenView(ctx, conn, cluster.ViewConfig{Self: c.ID, Index: c.Cost.index(), Logger: r.a.log})
	if err != nil {
		return nil, nil, err
	}
	r.defers(func() error { view.Close(); return nil })
	incarnation := cluster.NewIncarnation()
	publisher, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: c.ID, Incarnation: incarnation, Logger: r.a.log})
	if err != nil {
		return nil, nil, usageError{err}
	}
	coherence, err := cluster.NewCoherence(conn, cluster.CoherenceConfig{Logger: r.a.log})
	if err != nil {
		return nil, nil, err
	}
	routes, err := cluster.NewRouterService(view, cluster.RouterServiceConfig{Router: cost, Hash: hashTokens, Version: version(), Logger: r.a.log})
	if err != nil {
		return nil, nil, err
	}
	if err := routes.Listen(); err != nil {
		return nil, nil, err
	}
	r.defers(routes.Stop)
	namespaces, err := c.namespaces()
	if err != nil {
		return nil, nil, err
	}
	cfg := node.Config{
		ID: c.ID, Incarnation: incarnation, Namespaces: namespaces, MaxBlock: int(c.MaxBlock), MaxBatch: c.MaxBatch,
		MaxSubscriptions: c.MaxSubscriptions, MaxPattern: c.MaxPatternBytes,
		PutWait: c.PutWait, FetchTimeout: c.FetchTimeout, PromoteAfter: c.PromoteAfter, CloseWait: c.CloseWait, Lease: c.Lease,
		FlushAfter: c.FlushAfter, NameWait: c.NameWait, SnapshotRecords: c.SnapshotRecords, RehomeAfter: c.RehomeAfter, RehomeEvery: c.RehomeEvery, Logger: r.a.log,
	}
	c.Sequence.apply(&cfg)
	c.Device.apply(&cfg)
	c.Pressure.apply(&cfg)
	c.Handover.apply(&cfg)
	n, err := node.New(cfg, tiers, node.Ports{Announcer: publisher, Peers: view, Coherence: coherence, Router: routes})
	if err != nil {
		return nil, nil, usageError{err}
	}
	r.node = n
	r.defers(n.Close)
	r.defers(func() error { // before the node closes, after the data plane has
		r.quit()
		r.work.Wait()
		return nil
	})
	r.background(ctx, "placement events", func(ctx context.Context) error { return publisher.Run(ctx, n.Holdings) })
	return publisher, coherence, nil
}

// follow reads the coherence log, by which the node becomes a home and an owner of
// names. The others can reach it by then. When the node stops, it leaves the log
// first.
func (r *runningNode) follow(ctx context.Context, c nodeCmd, log *cluster.Coherence) error {
	r.background(ctx, "coherence log", func(ctx context.Context) error {
		err := log.Run(ctx, r.node.LogHandler())
		if errors.Is(err, cluster.ErrLogRegressed) {
			return nil // the node has said so, and goes on without names
		}
		return err
	})
	r.defers(func() error { // while the log is still read, also by a node that has only begun to join
		ctx, cancel := context.WithTimeout(context.Background(), c.CloseWait)
		defer cancel()
		return r.node.Leave(ctx)
	})
	ready, cancel := context.WithTimeout(r.a.ctx, startWait)
	defer cancel()
	err := r.node.Ready(ready)
	switch {
	case err == nil:
		return nil
	case r.a.ctx.Err() != nil:
		return fmt.Errorf("stopped before the coherence log had let the node join: %w", err)
	}
	return fmt.Errorf("the coherence log did not let the node join within %v: %w", startWait, err)
}

// startWait bounds how long a start waits for the state of the cluster.
const startWait = 30 * time.Second

// listen opens the data plane and returns the address to tell others.
func (r *runningNode) listen(ctx context.Context, c nodeCmd) (advertise string, err error) {
	server, err := resp.NewServer(resp.ServerConfig{
		NewHandler: r.node.NewHandler, Logger: r.a.log, MaxPayload: max(int(c.MaxBlock), leastPayload), MaxConnections: c.MaxConnections,
		MaxInFlightBytes: int64(c.MaxInFlight), MaxDiscard: maxDiscard, MaxPushBytes: int(c.MaxPush),
	})
	if err != nil {
		return "", usageError{err}
	}
	tcp, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return "", fmt.Errorf("--listen: %w (is another node running? give it another port)", err)
	}
	r.addr = tcp.Addr().String()
	listeners := []net.Listener{tcp}
	if c.Unix != "off" {
		os.Remove(c.Unix) // of an earlier run: the data directory is locked, so nobody else's
		l, err := net.Listen("unix", c.Unix)
		if err != nil {
			tcp.Close()
			return "", fmt.Errorf("--unix: %w", err)
		}
		if err := os.Chmod(c.Unix, 0o600); err != nil {
			a := errors.Join(err, tcp.Close(), l.Close())
			return "", fmt.Errorf("--unix: %w", a)
		}
		r.unix = c.Unix
		listeners = append(listeners, l)
	}
	for _, l := range listeners {
		r.background(ctx, "data plane", func(ctx context.Context) error { return server.Serve(ctx, l) })
	}
	r.defers(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainWait)
		defer cancel()
		return server.Shutdown(ctx)
	})
	if c.Advertise != "" {
		return c.Advertise, nil
	}
	host, port, _ := net.SplitHostPort(r.addr)
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		name, err := os.Hostname()
		if err != nil {
			return "", usage("--advertise is needed with --listen %s: this machine has no name", c.Listen)
		}
		return net.JoinHostPort(name, port), nil
	}
	return r.addr, nil
}

const (
	// drainWait is how long commands under way may take when a node stops.
	drainWait = 5 * time.Second
	// leastPayload is the data plane's threshold, in bytes, from which on an argument
	// counts as a payload; smaller ones the node itself refuses.
	leastPayload = 16 << 10
	// maxDiscard is how much of a refused command is read away before its
	// connection is closed instead.
	maxDiscard = 2 << 30
)

// join makes the node a member and keeps it one.
func (r *runningNode) join(ctx context.Context, conn *cluster.Conn, c nodeCmd, p *cluster.Publisher, storeID, addr string) error {
	member := cluster.Member{
		ID: c.ID, Incarnation: r.node.Incarnation(), Addr: addr, Unix: absolute(r.unix), StoreID: storeID,
		Labels: c.Labels, Version: version(), Started: time.Now(), Tiers: r.tierInfo(),
	}
	// The service first: whoever hears of the node may ask it for a snapshot.
	service, err := cluster.StartNodeService(conn, p, cluster.NodeServiceConfig{
		Node: c.ID, Version: version(), Status: func() any { return r.node.Status() }, Summary: func() any { return r.summary() },
		Drain: r.drain, Onboard: r.onboard,
	})
	if err != nil {
		return err
	}
	r.defers(service.Stop)
	lease, err := cluster.Join(r.a.ctx, conn, member, cluster.LeaseConfig{TTL: c.Lease})
	if err != nil {
		return err
	}
	r.lease = lease
	r.defers(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainWait)
		defer cancel()
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.lease.Leave(ctx)
	})
	r.background(ctx, "membership", func(ctx context.Context) error { return r.stayMember(ctx, p) })
	return nil
}

// stayMember joins again, as a new incarnation, whenever the lease has lapsed, and
// tells the others how full the node is.
func (r *runningNode) stayMember(ctx context.Context, p *cluster.Publisher) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.mu.Lock()
		lease := r.lease
		r.mu.Unlock()
		select {
		case <-tick.C:
			lease.Update(func(m *cluster.Member) { m.Tiers = r.tierInfo() })
		case <-lease.Lost():
			r.a.log.Warn("lease lost; joining again", "err", lease.Err())
			next, err := lease.Rejoin(ctx)
			if err != nil {
				return err
			}
			incarnation := next.Member().Incarnation
			p.Reincarnate(incarnation)
			r.node.Reincarnate(incarnation)
			r.mu.Lock()
			r.lease = next
			r.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}

// onboard has the node bring blocks into memory ahead of a request that a router has sent
// its way.
func (r *runningNode) onboard(m cluster.OnboardMessage) error {
	_, err := r.node.Prefetch(node.PrefetchSpec{
		Tier: m.Tier, Keys: m.Keys, Wait: time.Duration(m.Wait) * time.Millisecond, Passing: true,
	})
	return err
}

// drain has the node hand over its blocks and tells the others so in its record, or the
// opposite, and says how far it is.
func (r *runningNode) drain(q cluster.DrainRequest) (node.HandoverStatus, error) {
	switch {
	case q.Look:
	case q.Undo:
		r.node.Undrain()
		r.label(false)
	default:
		if err := r.node.Drain(node.DrainOptions{Evict: q.Evict}); err != nil {
			return node.HandoverStatus{}, err
		}
		r.label(true)
	}
	return r.node.Handover(), nil
}

// label says in the node's record whether it drains: routers send it no new requests then,
// and nodes that drain give it no blocks.
func (r *runningNode) label(drains bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease == nil {
		return // not a member yet
	}
	r.lease.Update(func(m *cluster.Member) {
		labels := maps.Clone(m.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		delete(labels, cluster.LabelDrain)
		if drains {
			labels[cluster.LabelDrain] = "true"
		}
		m.Labels = labels
	})
}

func (r *runningNode) tierInfo() []cluster.TierInfo {
	var list []cluster.TierInfo
	st := r.node.Status()
	for _, t := range st.Tiers {
		info := cluster.TierInfo{Tier: t.Tier, Capacity: t.Capacity, Used: t.Used, Objects: t.Objects, Device: t.Device, Lost: t.Lost}
		if t.Tier == block.VRAM {
			info.Engines = st.Devices.Held
		}
		list = append(list, info)
	}
	return list
}

// nodeSummary is what a node says of itself every second on cairn.v1.summary.<node>.
type nodeSummary struct {
	Node     string `json:"node"`
	Blocks   int64  `json:"blocks"`
	Dirty    int    `json:"dirty"`
	Hits     int64  `json:"hits"`
	PeerHits int64  `json:"peer_hits"`
	Misses   int64  `json:"misses"`
	Puts     int64  `json:"puts"`
	VRAM     string `json:"vram,omitempty"`
	Host     string `json:"host,omitempty"`
	Disk     string `json:"disk,omitempty"`
}

func (r *runningNode) summary() nodeSummary {
	st := r.node.Status()
	s := nodeSummary{Node: st.Node, Blocks: st.Blocks, Dirty: st.Dirty, Hits: st.Hits, PeerHits: st.PeerHits, Misses: st.Misses, Puts: st.Puts}
	for _, t := range st.Tiers {
		text := fmt.Sprintf("%s of %s", bytesText(t.Used), bytesText(t.Capacity))
		if t.Lost {
			text = lostText
		}
		switch t.Tier {
		case block.VRAM:
			s.VRAM = text
		case block.Host:
			s.Host = text
		case block.Disk:
			s.Disk = text
		}
	}
	return s
}

// stop leaves the cluster first, then finishes the commands under way, makes what
// is dirty durable, and closes the tiers.
func (r *runningNode) stop() error {
	var errs []error
	for _, f := range slices.Backward(r.close) {
		errs = append(errs, f())
	}
	r.quit()
	r.work.Wait()
	return errors.Join(errs...)
}

func absolute(path string) string {
	if path == "" {
		return ""
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	return abs
}
