package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/coherency"
	"cairn/diskstore"
	"cairn/hostcache"
	"cairn/node"
)

// nodeCmd is the configuration of a node.
type nodeCmd struct {
	ID         string            `help:"Name of the node in its cluster; default the machine's." placeholder:"NAME"`
	Data       string            `help:"Directory of the node's data; default cairn-data/ID." type:"path" placeholder:"DIR"`
	Listen     string            `help:"Address of the data plane, for clients and peers." default:"127.0.0.1:7070"`
	Unix       string            `help:"Unix socket of the data plane; default node.sock in the data directory, 'off' for none." placeholder:"PATH"`
	Advertise  string            `help:"Address at which peers and clients reach the data plane; default --listen." placeholder:"HOST:PORT"`
	Lease      time.Duration     `help:"How long the node stays a member without a sign of life." default:"15s"`
	Labels     map[string]string `help:"Labels of the node, such as zone=a." placeholder:"KEY=VALUE"`
	Namespaces []string          `help:"Namespaces that names live in, each with its write policy and options: homes=N copies=N lease, and session, strict or local for reads that do not say. The first is the default. The same on all nodes." default:"default:write-back" placeholder:"NAME:POLICY[:OPTION]…"`

	Host     size     `help:"Host memory for blocks." default:"1GiB"`
	Disk     size     `help:"Disk for blocks; 0 for none." default:"8GiB"`
	VRAM     vramSize `name:"vram" help:"GPU memory for blocks; auto is a quarter of what is free on a GPU when the node starts, 256MiB where it is emulated; 0 for none. An engine on the same GPU has to leave that free." default:"auto"`
	Classes  []size   `help:"Sizes of slots in host and GPU memory; a block takes the smallest that it fits. Default: 4KiB to 128MiB." placeholder:"SIZE"`
	Segment  size     `help:"Size of a segment on disk; 0 fits it to --disk, at most 256MiB." default:"0"`
	Prefault bool     `help:"Touch host memory at the start rather than at first use."`
	gpuFlags

	Eviction string `help:"Which block leaves host or GPU memory for another, leaves of sequences first: ${enum}; lru is the one used longest ago, hazard the one worth least by what the node has learned." enum:"lru,hazard" default:"lru"`

	MaxBlock         size          `help:"Largest block." default:"128MiB" group:"limits"`
	MaxConnections   int           `help:"Most connections of clients and peers." default:"10000" group:"limits"`
	MaxInFlight      size          `help:"Most bytes being received or sent at once." default:"1GiB" group:"limits"`
	MaxBatch         int           `help:"Most blocks in one request." default:"1024" group:"limits"`
	MaxSubscriptions int           `help:"Most channels and patterns that one connection listens to." default:"1024" group:"limits"`
	MaxPatternBytes  int           `help:"Longest pattern of a subscription, in bytes." default:"256" group:"limits"`
	MaxPush          size          `help:"Most bytes of messages that wait for one subscriber, before it is disconnected." default:"8MiB" group:"limits"`
	PromoteAfter     int           `help:"Reads that bring a block into GPU memory; 0 is never." default:"2" group:"limits"`
	PutWait          time.Duration `help:"How long a write waits for room." default:"10s" group:"limits"`
	FetchTimeout     time.Duration `help:"Limit of a fetch from peers." default:"10s" group:"limits"`
	CloseWait        time.Duration `help:"How long a stop waits for blocks to reach the disk." default:"30s" group:"limits"`
	FlushAfter       time.Duration `help:"For how long a write-back write of a name may stay unflushed." default:"1s" group:"limits"`
	NameWait         time.Duration `help:"How long an operation on a name waits for the log or an owner." default:"5s" group:"limits"`
	SnapshotRecords  int           `help:"Records of the coherence log after which its state is kept, so that nodes start from it and the log forgets." default:"1000000" group:"limits"`
	RehomeAfter      time.Duration `help:"How long a home may be away before its names are copied to others; 0 is twice the lease." default:"0" group:"limits"`
	RehomeEvery      time.Duration `help:"How often all names are looked through for homes that they lack." default:"5m" group:"limits"`

	Sequence sequenceFlags `embed:"" group:"limits"`
	Device   deviceFlags   `embed:"" group:"limits"`
	Pressure pressureFlags `embed:"" group:"limits"`
	Handover handoverFlags `embed:"" group:"limits"`
	Cost     costFlags     `embed:"" group:"cost"`
	natsClient
	natsServer

	StopFD int `name:"stop-fd" help:"Stop when this file descriptor reaches its end." hidden:""`
}

func (c *nodeCmd) Run(a *app) error {
	n, err := startNode(a, *c)
	if err != nil {
		return err
	}
	where := n.addr
	if n.unix != "" {
		where += " and unix:" + n.unix
	}
	if c.StopFD == 0 { // whoever holds the other end tells about its nodes itself
		fmt.Fprintf(a.err, "cairn: node %s serves %s, data in %s, NATS at %s\n", n.id, where, n.dir, n.natsURL)
	}
	select {
	case <-endOf(c.StopFD):
		return n.stop()
	case <-a.ctx.Done():
		a.log.Info("stopping: writing what is not on disk yet")
		return n.stop()
	case err := <-n.failed:
		return errors.Join(err, n.stop())
	}
}

// endOf is closed when the file descriptor reaches its end: whoever holds the
// other end is gone. 0 stands for no descriptor.
func endOf(fd int) <-chan struct{} {
	if fd == 0 {
		return nil
	}
	ended := make(chan struct{})
	go func() {
		f := os.NewFile(uintptr(fd), "parent")
		_, _ = io.Copy(io.Discard, f) // nothing is written; an error is an end as well
		close(ended)
	}()
	return ended
}

// complete fills in what depends on other values.
func (c *nodeCmd) complete() error {
	if c.ID == "" {
		name, err := os.Hostname()
		if err != nil || name == "" {
			return usage("--id is needed: this machine has no name")
		}
		c.ID = sanitize(name)
	}
	if c.Data == "" {
		c.Data = filepath.Join("cairn-data", c.ID)
	}
	if c.Unix == "" {
		c.Unix = filepath.Join(c.Data, "node.sock")
		if abs, err := filepath.Abs(c.Unix); err != nil || len(abs) > maxUnixPath {
			c.Unix = "off"
		}
	}
	return c.validate()
}

// validate reports everything that is wrong, before anything is opened.
func (c *nodeCmd) validate() error {
	_, err := c.namespaces()
	errs := []error{cluster.ValidID(c.ID), err, c.Sequence.validate(), c.Device.validate(), c.Pressure.validate(), c.Handover.validate(), c.gpuFlags.validate(gpus()), leaseProblem(c.Lease), cluster.ConnConfig{URLs: c.NATS}.Validate()}
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"--host", int64(c.Host)}, {"--max-block", int64(c.MaxBlock)}, {"--max-connections", int64(c.MaxConnections)},
		{"--max-in-flight", int64(c.MaxInFlight)}, {"--max-batch", int64(c.MaxBatch)},
		{"--max-subscriptions", int64(c.MaxSubscriptions)}, {"--max-pattern-bytes", int64(c.MaxPatternBytes)}, {"--max-push", int64(c.MaxPush)},
		{"--put-wait", int64(c.PutWait)},
		{"--fetch-timeout", int64(c.FetchTimeout)}, {"--close-wait", int64(c.CloseWait)},
	} {
		if limit.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", limit.flag))
		}
	}
	if c.MaxInFlight < c.MaxBlock {
		errs = append(errs, fmt.Errorf("--max-in-flight %v: want at least --max-block, %v", c.MaxInFlight, c.MaxBlock))
	}
	if c.PromoteAfter < 0 {
		errs = append(errs, fmt.Errorf("--promote-after %d: want 0 for never, or more", c.PromoteAfter))
	}
	if c.MaxBlock > block.MaxLength {
		errs = append(errs, fmt.Errorf("--max-block %v: want at most %s", c.MaxBlock, bytesText(block.MaxLength)))
	}
	if c.Disk > 0 {
		errs = append(errs, c.diskProblem())
	}
	if c.Host > 0 {
		if err := (hostcache.Config{Capacity: int64(c.Host), Classes: c.slotSizes()}).Validate(); err != nil {
			errs = append(errs, fmt.Errorf("--host, --classes: %w", err))
		}
	}
	if c.VRAM > 0 && c.GPU != gpuOff {
		errs = append(errs, vramProblem(int64(c.VRAM), c.slotSizes()))
	}
	if c.Replicas > 1 && len(c.NATS) == 0 && c.NATSCluster == "" {
		errs = append(errs, fmt.Errorf("--nats-replicas %d: the embedded server alone keeps one copy: leave it out, or make a cluster with --nats-cluster", c.Replicas))
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

// slotSizes is --classes; nil is the default.
func (c *nodeCmd) slotSizes() []int {
	var list []int
	for _, s := range c.Classes {
		list = append(list, int(s))
	}
	return list
}

// diskProblem says what is wrong with the size of the disk and its segments.
func (c *nodeCmd) diskProblem() error {
	d := diskstore.Config{Capacity: int64(c.Disk), SegmentSize: int64(c.Segment)}
	if err := d.Validate(); err != nil {
		return err
	}
	if d.KeptLimit() == 0 {
		return fmt.Errorf("--segment %v: a disk of %v has room for names with four segments or more: leave --segment at 0, or raise --disk to at least %s",
			c.Segment, c.Disk, bytesText(4*int64(c.Segment)))
	}
	return nil
}

// minLease is the shortest lease: NATS counts the life of a record in seconds.
const minLease = time.Second

func leaseProblem(d time.Duration) error {
	if d < minLease {
		return fmt.Errorf("--lease %v: want at least %v, and 15s where NATS is a cluster: an election takes 5s", d, minLease)
	}
	return nil
}

// maxUnixPath is the longest path of a unix socket on Linux (unix(7)), less the
// final zero.
const maxUnixPath = 107

// sanitize makes a machine's name a node id.
func sanitize(name string) string {
	id := []byte(name)
	for i, c := range id {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
		if !ok {
			id[i] = '-'
		}
	}
	return string(id[:min(len(id), 64)])
}

// namespaces reads --namespaces.
func (c *nodeCmd) namespaces() ([]node.Namespace, error) {
	var list []node.Namespace
	for _, text := range c.Namespaces {
		words := strings.Split(text, ":")
		ns := node.Namespace{Name: words[0], Policy: coherency.WriteBack}
		for i, word := range words[1:] {
			var err error
			if i == 0 {
				ns.Policy, err = coherency.ParseWritePolicy(word)
			} else {
				err = namespaceOption(&ns, word)
			}
			if err != nil {
				return nil, usage("--namespaces %q: %w", text, err)
			}
		}
		list = append(list, ns)
	}
	return list, nil
}

// namespaceOption reads one option of a namespace.
func namespaceOption(ns *node.Namespace, word string) error {
	name, value, _ := strings.Cut(word, "=")
	var err error
	switch name {
	case "homes":
		ns.Homes, err = strconv.Atoi(value)
	case "copies":
		ns.Copies, err = strconv.Atoi(value)
	case "lease":
		ns.Lease = true
	default:
		if ns.Consistency, err = node.ParseReadLevel(word); err != nil {
			err = fmt.Errorf("option %q: want homes=N, copies=N, lease, session, strict or local", word)
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("option %q: want a number", word)
	}
	return nil
}
