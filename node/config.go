package node

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/tier"
)

// Config configures a Node. The zero value of each limit stands for its default.
type Config struct {
	// ID names the node in its cluster, for ever: 1 to 64 letters, digits, '-'
	// and '_'. Required.
	ID string
	// Incarnation tells one run of the node from another, and grows from run to
	// run; default the time in nanoseconds.
	Incarnation uint64
	// Namespaces lists the spaces in which names may be used, the first being
	// every connection's default; default is one, called "default".
	Namespaces []Namespace

	// MaxBlock is the largest block in bytes; default and most block.MaxLength,
	// and never more than the host tier can hold.
	MaxBlock int
	// MaxName is the longest name of a named block in bytes; default 4096.
	MaxName int
	// MaxBatch is the most keys in one request; default 1024.
	MaxBatch int
	// MaxBatchBytes ends a batched read early; the rest is asked for again.
	// Default 64 MiB.
	MaxBatchBytes int
	// PutWait is how long a Put waits for room while every block of the host
	// tier is waiting to become durable; default 10 s.
	PutWait time.Duration
	// FetchTimeout bounds a fetch from peers; default 10 s.
	FetchTimeout time.Duration
	// PeerConnections is the most connections to one peer; default 16.
	PeerConnections int
	// OffloadBatch is the most blocks per flush of the home tier; default 64.
	OffloadBatch int
	// OffloadWorkers is how many batches are on their way home at once;
	// default 2.
	OffloadWorkers int
	// PromoteAfter is how many reads bring a block into GPU memory; 0 is never.
	PromoteAfter int
	// VRAMBatch is the most blocks that are copied to or from GPU memory as one operation,
	// for promotion and demotion; default 16.
	VRAMBatch int
	// VRAMHigh and VRAMLow are shares of the capacity of GPU memory, above 0 to 1; default
	// 0.9 and 0.8. When more than VRAMHigh is in use, the blocks that would have to go down
	// to VRAMLow are looked at, and those copied to host memory that are nowhere else.
	VRAMHigh, VRAMLow float64
	// NameWait is how long a change of a name waits for the log; default 5 s.
	NameWait time.Duration
	// SnapshotRecords is after how many records the state of the coherence log is kept,
	// so that nodes start from it and the log forgets; a message without any counts as
	// one. At most once a minute. Default 1,000,000.
	SnapshotRecords int
	// MaxSubscriptions is the most channels and patterns that one connection may
	// subscribe to; default 1024.
	MaxSubscriptions int
	// MaxPattern is the longest pattern of a subscription in bytes; every event is
	// matched with every pattern, in time proportional to both lengths at worst.
	// Default 256.
	MaxPattern int
	// SweepEvery is the time between searches for names that have expired; default
	// 30 s.
	SweepEvery time.Duration
	// CloseWait is how long Close waits for dirty blocks to become durable;
	// default 30 s.
	CloseWait time.Duration

	// Sequences is the most sequences open at a time; default 1024.
	Sequences int
	// SequencesPerConnection is the most sequences that one connection may have open;
	// default 64.
	SequencesPerConnection int
	// SequenceBlocks is the most whole blocks of a sequence; default 65536.
	SequenceBlocks int
	// SequenceTransfers is how many transfers an onboard has under way at once;
	// default 4. A transfer is blocks from one peer, or from one tier of this node.
	SequenceTransfers int
	// SequenceBatch is the most blocks of a transfer, at most MaxBatch; default 16.
	SequenceBatch int
	// SequencePins is the share of a tier's capacity that sequences may pin, above 0
	// to 1; default 0.5. Blocks that several sequences pin count once.
	SequencePins float64
	// SequenceIdle is after how long without use a sequence is closed; default 10 min.
	SequenceIdle time.Duration

	// DevicePins is the share of GPU memory that engines on this machine may hold in place,
	// as blocks that they read and slots that they fill, above 0 to 1; default 0.5.
	DevicePins float64
	// DeviceHolds is the most slots and pins of one connection; default 4096.
	DeviceHolds int
	// DeviceRegions is the most pieces of its own memory that one connection may have
	// imported, and DeviceRegionBytes the most bytes of them together; default 16, and
	// 256 GiB.
	DeviceRegions     int
	DeviceRegionBytes int64
	// DeviceIdle is after how long without a command a connection loses its hold on GPU
	// memory; default 10 min.
	DeviceIdle time.Duration

	// KeepWithin is for how long a fetch of a block from a peer is remembered: if the
	// block is fetched again within it, the copy is kept. 0 is never.
	KeepWithin time.Duration
	// Prefetches is how many prefetches run at once; default 2.
	Prefetches int
	// PrefetchQueue is the most prefetches that wait, and the most that hold blocks;
	// default 64. More are dropped, or let go of.
	PrefetchQueue int
	// PrefetchPins is the share of a tier's capacity, within SequencePins, that prefetches
	// may pin, above 0 to 1; default 0.25. They give it up to whoever needs it.
	PrefetchPins float64
	// PrefetchHold is for how long the blocks of a prefetch stay pinned; default 5 s.
	PrefetchHold time.Duration

	// Lease is how long a message that this node has sent to the coherence log makes
	// it a member; default 15 s. It is the same on all nodes.
	Lease time.Duration
	// Renew is how often it sends one at least; default Lease/5.
	Renew time.Duration
	// FlushAfter is for how long a write-back write of a name may stay unflushed;
	// default 1 s.
	FlushAfter time.Duration
	// IdleAfter is after how long without a write this node gives a name back that
	// it owns; default 10 s.
	IdleAfter time.Duration
	// RecallEvery is how often a node that waits for a name's owner asks again;
	// default 50 ms.
	RecallEvery time.Duration
	// RevokeAfter is how long a dead owner may take to come back and offer what it
	// has not flushed, if nobody wants the name meanwhile; default Lease.
	RevokeAfter time.Duration
	// RehomeAfter is for how long a home may be away before what it holds is copied
	// to others; default 2 × Lease.
	RehomeAfter time.Duration
	// RehomeEvery is how often all names are looked through for homes that they lack;
	// default 5 min.
	RehomeEvery time.Duration

	// HandoverShare is the share, 0 to 1, of the free room of another node's home tier that
	// this node may fill with its blocks while it drains; default 0.8.
	HandoverShare float64
	// HandoverChains is how many chains of blocks this node hands over at once, and how
	// many requests of nodes that drain it serves at once; default 4. Each takes memory for
	// one block.
	HandoverChains int
	// HandoverRate is the most bytes a second that this node hands over; 0 is no limit.
	HandoverRate int64
	// HandoverEvery is how often a node that drains looks for blocks that it should hand
	// over, if none are put there; default 10 s. Ten times as often each node looks which
	// members drain.
	HandoverEvery time.Duration

	// Logger receives what an operator should know; default discards.
	Logger *slog.Logger
}

// Namespace is a space of names with common settings.
type Namespace struct {
	// Name is 1 to 64 letters, digits, '-', '_' and '.'.
	Name string
	// Policy is the write policy of blocks put without one.
	Policy coherency.WritePolicy
	// Homes is on how many nodes each version of a name is durable; 1, the default,
	// to ledger.MostHomes. Fewer are taken when there are fewer nodes.
	Homes int
	// Copies is on how many nodes a write-back write is durable before it is
	// acknowledged; 0, the default, is none: it survives only its owner.
	Copies int
	// Lease: strict reads need no round trip, and writes wait for every member.
	Lease bool
	// Consistency is how fresh reads are that do not say it.
	Consistency ReadLevel
}

// Tiers are the stores of a node. Host is required; the others may be nil. The
// node uses them and does not close them.
type Tiers struct {
	VRAM tier.Store
	Host tier.Memory
	Disk tier.Store
}

// Ports are the node's ways into the cluster. All are required.
type Ports struct {
	Announcer Announcer
	Peers     Peers
	Coherence CoherenceLog
	Router    Router
}

const (
	maxID = 64

	defaultMaxName       = 4096
	defaultMaxBatch      = 1024
	defaultMaxBatchBytes = 64 << 20

	defaultMaxSubscriptions = 1024
	defaultMaxPattern       = 256
)

func (c *Config) withDefaults() {
	setDefault(&c.Incarnation, uint64(time.Now().UnixNano()))
	if len(c.Namespaces) == 0 {
		c.Namespaces = []Namespace{{Name: "default"}}
	}
	setDefault(&c.MaxBlock, block.MaxLength)
	setDefault(&c.MaxName, defaultMaxName)
	setDefault(&c.MaxBatch, defaultMaxBatch)
	setDefault(&c.MaxBatchBytes, defaultMaxBatchBytes)
	setDefault(&c.PutWait, 10*time.Second)
	setDefault(&c.FetchTimeout, 10*time.Second)
	setDefault(&c.PeerConnections, 16)
	setDefault(&c.OffloadBatch, 64)
	setDefault(&c.OffloadWorkers, 2)
	setDefault(&c.VRAMBatch, 16)
	setDefault(&c.VRAMHigh, 0.9)
	setDefault(&c.VRAMLow, min(0.8, c.VRAMHigh))
	setDefault(&c.NameWait, 5*time.Second)
	setDefault(&c.SnapshotRecords, 1_000_000)
	setDefault(&c.MaxSubscriptions, defaultMaxSubscriptions)
	setDefault(&c.MaxPattern, defaultMaxPattern)
	setDefault(&c.SweepEvery, 30*time.Second)
	setDefault(&c.CloseWait, 30*time.Second)
	setDefault(&c.Sequences, 1024)
	setDefault(&c.SequencesPerConnection, 64)
	setDefault(&c.SequenceBlocks, 1<<16)
	setDefault(&c.SequenceTransfers, 4)
	setDefault(&c.SequenceBatch, 16)
	c.SequenceBatch = min(c.SequenceBatch, c.MaxBatch)
	setDefault(&c.SequencePins, 0.5)
	setDefault(&c.SequenceIdle, 10*time.Minute)
	setDefault(&c.DevicePins, 0.5)
	setDefault(&c.DeviceHolds, 4096)
	setDefault(&c.DeviceRegions, 16)
	setDefault(&c.DeviceRegionBytes, 256<<30)
	setDefault(&c.DeviceIdle, 10*time.Minute)
	setDefault(&c.Prefetches, 2)
	setDefault(&c.PrefetchQueue, 64)
	setDefault(&c.PrefetchPins, 0.25)
	setDefault(&c.PrefetchHold, 5*time.Second)
	setDefault(&c.Lease, 15*time.Second)
	setDefault(&c.Renew, c.Lease/5)
	setDefault(&c.FlushAfter, time.Second)
	setDefault(&c.RehomeEvery, 5*time.Minute)
	setDefault(&c.IdleAfter, 10*time.Second)
	setDefault(&c.RecallEvery, 50*time.Millisecond)
	setDefault(&c.HandoverShare, 0.8)
	setDefault(&c.HandoverChains, 4)
	setDefault(&c.HandoverEvery, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if !wellNamed(c.ID, "-_") {
		errs = append(errs, fmt.Errorf("node id %q: want 1 to %d letters, digits, '-' and '_'", c.ID, maxID))
	}
	seen := map[string]bool{}
	for _, ns := range c.Namespaces {
		if !wellNamed(ns.Name, "-_.") {
			errs = append(errs, fmt.Errorf("namespace %q: want 1 to %d letters, digits, '-', '_' and '.'", ns.Name, maxID))
		}
		if seen[ns.Name] {
			errs = append(errs, fmt.Errorf("namespace %q is listed twice", ns.Name))
		}
		seen[ns.Name] = true
		if ns.Homes < 0 || ns.Homes > ledger.MostHomes || ns.Copies < 0 || ns.Copies > ledger.MostHomes {
			errs = append(errs, fmt.Errorf("namespace %q: homes %d, copies %d: want at most %d", ns.Name, ns.Homes, ns.Copies, ledger.MostHomes))
		}
		if ns.Consistency == ReadBounded || ns.Consistency >= readLevels {
			errs = append(errs, fmt.Errorf("namespace %q: reads cannot be %s by default", ns.Name, ns.Consistency))
		}
	}
	errs = append(errs, c.handoverProblem())
	if c.MaxBlock < 0 || c.MaxBlock > block.MaxLength {
		errs = append(errs, fmt.Errorf("max-block-bytes %d: want 1 to %d", c.MaxBlock, block.MaxLength))
	}
	for _, limit := range []struct {
		name  string
		value int
	}{
		{"max-name-bytes", c.MaxName}, {"max-batch", c.MaxBatch}, {"max-batch-bytes", c.MaxBatchBytes}, {"peer-connections", c.PeerConnections},
		{"offload-batch", c.OffloadBatch}, {"offload-workers", c.OffloadWorkers}, {"promote-after", c.PromoteAfter}, {"vram-batch", c.VRAMBatch}, {"snapshot-records", c.SnapshotRecords},
		{"max-subscriptions", c.MaxSubscriptions}, {"max-pattern-bytes", c.MaxPattern},
		{"max-sequences", c.Sequences}, {"max-connection-sequences", c.SequencesPerConnection}, {"max-sequence-blocks", c.SequenceBlocks},
		{"sequence-transfers", c.SequenceTransfers}, {"sequence-batch", c.SequenceBatch}, {"sequence-idle", int(c.SequenceIdle)},
		{"max-device-holds", c.DeviceHolds}, {"max-device-regions", c.DeviceRegions}, {"max-device-region-bytes", int(c.DeviceRegionBytes)},
		{"device-idle", int(c.DeviceIdle)},
		{"prefetches", c.Prefetches}, {"prefetch-queue", c.PrefetchQueue}, {"prefetch-hold", int(c.PrefetchHold)}, {"keep-within", int(c.KeepWithin)},
	} {
		if limit.value < 0 {
			errs = append(errs, fmt.Errorf("%s %d: must not be negative", limit.name, limit.value))
		}
	}
	for _, share := range []struct {
		name  string
		value float64
	}{{"sequence-pins", c.SequencePins}, {"prefetch-pins", c.PrefetchPins}, {"device-pins", c.DevicePins}, {"vram-high", c.VRAMHigh}, {"vram-low", c.VRAMLow}} {
		if !(share.value >= 0 && share.value <= 1) { // also refuses NaN
			errs = append(errs, fmt.Errorf("%s %v: want above 0, to 1", share.name, share.value))
		}
	}
	if c.VRAMLow > c.VRAMHigh {
		errs = append(errs, fmt.Errorf("vram-low %v: want at most vram-high, %v", c.VRAMLow, c.VRAMHigh))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("node: configuration: %w", err)
	}
	return nil
}

func wellNamed(s, also string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune(also, r) {
			return false
		}
	}
	return true
}
