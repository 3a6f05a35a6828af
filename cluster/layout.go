package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"cairn/coherency/ledger"

	"github.com/nats-io/nats.go/jetstream"
)

// Every name that Cairn uses on NATS is in this file.
const (
	// SubjectPrefix begins every subject of this version of the layout.
	SubjectPrefix = "cairn.v1."

	// StreamPlace holds the newest placement events of every node.
	StreamPlace = "CAIRN_PLACE"
	// StreamCoherence and the number of a partition are the name of the stream that
	// orders all changes of mutable blocks.
	StreamCoherence = "CAIRN_COH_"

	// BucketMembers holds one record per live member.
	BucketMembers = "cairn_members"
	// BucketSnapshots is the object store of snapshots.
	BucketSnapshots = "cairn_snapshots"

	// ServiceNode and ServiceRouter are the names of the micro services.
	ServiceNode   = "cairn-node"
	ServiceRouter = "cairn-router"

	// SubjectRoute is where routers answer, as one queue group.
	SubjectRoute = SubjectPrefix + "route"
	// SubjectDone, SubjectLoad and SubjectRouted tell routers that a routed request is
	// over, what a node has to do, and what another router has decided. Every router
	// listens, because each keeps its own estimate of the queues.
	SubjectDone   = SubjectRoute + ".done"
	SubjectLoad   = SubjectRoute + ".load"
	SubjectRouted = SubjectRoute + ".routed"
	// QueueRoute is the queue group of routers.
	QueueRoute = "cairn-router"

	// layoutVersion changes whenever a stream or bucket changes incompatibly.
	layoutVersion = "1"

	placePrefix   = SubjectPrefix + "place."
	cohPrefix     = SubjectPrefix + "coh."
	cohLivePrefix = SubjectPrefix + "cohlive."
	rpcPrefix     = SubjectPrefix + "rpc."
	summaryPrefix = SubjectPrefix + "summary."
	onboardPrefix = SubjectPrefix + "onboard."

	kvStreamPrefix  = "KV_"
	objStreamPrefix = "OBJ_"

	maxIDLength = 64
)

// ValidID tells whether id may name a node: 1 to 64 letters, digits, '-' or
// '_', because it becomes a token of subjects and a key of a bucket.
func ValidID(id string) error {
	if id == "" || len(id) > maxIDLength {
		return fmt.Errorf("cluster: node id %.80q: want 1 to %d letters, digits, '-' or '_'", id, maxIDLength)
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("cluster: node id %q: character %q is not allowed: use letters, digits, '-' or '_'", id, c)
		}
	}
	return nil
}

// PlaceSubject is where a node publishes what it holds: what is the name of a
// tier, or "all" for a batch that covers several.
func PlaceSubject(node, what string) string { return placePrefix + node + "." + what }

// PlaceNode reads the node out of a subject that PlaceSubject made.
func PlaceNode(subject string) (node string, ok bool) {
	rest, ok := strings.CutPrefix(subject, placePrefix)
	if !ok {
		return "", false
	}
	node, _, ok = strings.Cut(rest, ".")
	return node, ok && node != ""
}

// PlaceFilter matches the placement events of one node, or of all with "*".
func PlaceFilter(node string) string { return placePrefix + node + ".>" }

// CoherenceStream is the stream of one partition of the coherence log. A block
// stays in one partition for ever.
func CoherenceStream(partition int) string { return StreamCoherence + strconv.Itoa(partition) }

// CoherenceSubject is where a node publishes its messages to the coherence log: one
// lane for each author, because with a subject for each hashed shard of blocks the
// records that a node has at one moment would go in as many messages: a quarter
// of a record in each, instead of all in one.
func CoherenceSubject(partition int, node string) string {
	return cohPrefix + strconv.Itoa(partition) + "." + node
}

// CoherenceFilter matches the lanes of all authors.
func CoherenceFilter(partition int) string { return CoherenceSubject(partition, "*") }

// CoherenceLive is where the leader of the coherence log repeats each message of a node,
// as soon as it is stored, for those who listen. Only the log itself may publish there.
func CoherenceLive(partition int, node string) string {
	return cohLivePrefix + strconv.Itoa(partition) + "." + node
}

// CoherenceNode reads partition and author out of a subject that CoherenceSubject made.
func CoherenceNode(subject string) (partition int, node string, ok bool) {
	rest, ok := strings.CutPrefix(subject, cohPrefix)
	if !ok {
		return 0, "", false
	}
	digits, node, ok := strings.Cut(rest, ".")
	partition, err := strconv.Atoi(digits)
	ok = ok && err == nil && partition >= 0 && CoherenceSubject(partition, node) == subject && ValidID(node) == nil
	return partition, node, ok
}

// RPCSubject is where one node answers the operation op.
func RPCSubject(node, op string) string { return rpcPrefix + node + "." + op }

// SummarySubject is where a node publishes a JSON digest of itself for people.
func SummarySubject(node string) string { return summaryPrefix + node }

// OnboardSubject is where a node is told to bring blocks into memory ahead of a request.
func OnboardSubject(node string) string { return onboardPrefix + node }

// memberSubject is the subject behind a key of the members' bucket.
func memberSubject(id string) string { return "$KV." + BucketMembers + "." + id }

// Layout limits what the streams and buckets hold; the zero value of a field
// means its default.
type Layout struct {
	// PlaceAge is how long placement events are kept: who was away for less
	// catches up from the stream, who was away longer from a snapshot.
	// Default 1 h.
	PlaceAge time.Duration
	// PlaceBytes bounds the stream of placement events, which is in memory on
	// every replica. Default 64 MiB.
	PlaceBytes int64
	// CoherenceBytes bounds the stream of the coherence log on disk. When it is
	// full, nothing can be written until a snapshot has made room: the log is never
	// cut without one. Default unbounded.
	CoherenceBytes int64
	// SnapshotBytes bounds the object store of snapshots on disk. Default 1 GiB.
	SnapshotBytes int64
	// MarkerTTL is how long the trace of an expired member stays readable.
	// Default 60 s, at least 1 s.
	MarkerTTL time.Duration
}

// Defaults of [Layout].
const (
	DefaultPlaceAge      = time.Hour
	DefaultPlaceBytes    = 64 << 20
	DefaultSnapshotBytes = 1 << 30
	DefaultMarkerTTL     = time.Minute
)

// Validate reports every problem of l at once.
func (l Layout) Validate() error {
	var errs []error
	if l.PlaceAge < 0 || l.PlaceAge > 0 && l.PlaceAge < time.Second {
		errs = append(errs, fmt.Errorf("cluster: PlaceAge %v: want at least 1s", l.PlaceAge))
	}
	if l.PlaceBytes < 0 || l.CoherenceBytes < 0 || l.SnapshotBytes < 0 {
		errs = append(errs, fmt.Errorf("cluster: PlaceBytes %d, CoherenceBytes %d, SnapshotBytes %d: want none negative",
			l.PlaceBytes, l.CoherenceBytes, l.SnapshotBytes))
	}
	if l.MarkerTTL != 0 && l.MarkerTTL < time.Second {
		errs = append(errs, fmt.Errorf("cluster: MarkerTTL %v: want at least 1s, the resolution of NATS", l.MarkerTTL))
	}
	return errors.Join(errs...)
}

func (l Layout) withDefaults() Layout {
	l.PlaceAge = or(l.PlaceAge, DefaultPlaceAge)
	l.PlaceBytes = or(l.PlaceBytes, DefaultPlaceBytes)
	l.CoherenceBytes = or(l.CoherenceBytes, -1)
	l.SnapshotBytes = or(l.SnapshotBytes, DefaultSnapshotBytes)
	l.MarkerTTL = or(l.MarkerTTL, DefaultMarkerTTL)
	return l
}

// or is v, or def when v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// metadata marks what belongs to Cairn, with thresholds for
// `nats server check stream` in the keys that it reads.
func metadata(schema string, replicas int) map[string]string {
	return map[string]string{
		"cairn-layout":                layoutVersion,
		"cairn-schema":                schema,
		"io.nats.monitor.enabled":     "true",
		"io.nats.monitor.peer-expect": fmt.Sprint(replicas),
	}
}

func (l Layout) placeStream(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        StreamPlace,
		Description: "Cairn: what each node holds, as ordered batches of changes; the recent tail",
		Subjects:    []string{placePrefix + ">"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxAge:      l.PlaceAge,
		MaxBytes:    l.PlaceBytes,
		Storage:     jetstream.MemoryStorage,
		Replicas:    replicas,
		AllowDirect: true,
		Metadata:    metadata("cairn.place.v1", replicas),
	}
}

func (l Layout) coherenceStream(partition, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        CoherenceStream(partition),
		Description: "Cairn: the coherence log, packed records in the order that decides; read with: cairn log",
		Subjects:    []string{CoherenceFilter(partition)},
		Retention:   jetstream.LimitsPolicy,
		// Only what a verified snapshot stands for may go, by a purge: a stream that is
		// full refuses new messages rather than dropping old ones.
		Discard:     jetstream.DiscardNew,
		MaxBytes:    l.CoherenceBytes,
		DenyDelete:  true,
		Duplicates:  coherenceDuplicates,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: CoherenceFilter(partition), Destination: CoherenceLive(partition, "{{wildcard(1)}}")},
		Metadata:    metadata("cairn."+ledger.Format, replicas),
	}
}

// coherenceDuplicates is how long the server recognizes a repeated message. One that
// comes twice later is in the log twice, and the ledger ignores the second.
const coherenceDuplicates = 2 * time.Minute

// partitions is how many partitions the coherence log has.
const partitions = 1

func (l Layout) memberBucket(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:         BucketMembers,
		Description:    "Cairn: one record per live member; it expires with the member's lease",
		History:        1,
		Storage:        jetstream.FileStorage,
		Replicas:       replicas,
		LimitMarkerTTL: l.MarkerTTL,
		Metadata:       metadata("cairn.member.v1", replicas),
	}
}

func (l Layout) snapshotBucket(replicas int) jetstream.ObjectStoreConfig {
	return jetstream.ObjectStoreConfig{
		Bucket:      BucketSnapshots,
		Description: "Cairn: what each node holds, as place/<node>/<slot>; the state of mutable blocks, as coh/<partition>/<sequence>",
		MaxBytes:    l.SnapshotBytes,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		Metadata:    metadata("cairn.snapshot.v1", replicas),
	}
}

// ensureTry bounds one attempt to create a stream: the leader of a young NATS
// cluster may drop the request, so short tries that are repeated beat a long one.
const ensureTry = 2 * time.Second

// Ensure creates or updates every stream and bucket. It repeats what fails for
// a passing reason (no leader yet, too few peers, a time-out) until ctx ends.
// It never lowers the number of replicas that somebody has set, and may run on
// every node at once.
func Ensure(ctx context.Context, conn *Conn, l Layout) error {
	if err := l.Validate(); err != nil {
		return err
	}
	l = l.withDefaults()
	js := conn.JS
	steps := []struct {
		stream string
		make   func(ctx context.Context, replicas int) error
	}{
		{StreamPlace, func(ctx context.Context, n int) error {
			return ensureStream(ctx, js, l.placeStream(n))
		}},
		{CoherenceStream(0), func(ctx context.Context, n int) error {
			return ensureStream(ctx, js, l.coherenceStream(0, n))
		}},
		{kvStreamPrefix + BucketMembers, func(ctx context.Context, n int) error {
			_, err := js.CreateOrUpdateKeyValue(ctx, l.memberBucket(n))
			return err
		}},
		{objStreamPrefix + BucketSnapshots, func(ctx context.Context, n int) error {
			_, err := js.CreateOrUpdateObjectStore(ctx, l.snapshotBucket(n))
			return err
		}},
	}
	for _, s := range steps {
		err := conn.Retry(ctx, ensureTry, func(ctx context.Context) error {
			n, err := replicasOf(ctx, js, s.stream, conn.Replicas)
			if err != nil {
				return err
			}
			return s.make(ctx, n)
		})
		if err != nil {
			return fmt.Errorf("cluster: create stream %s with %d replicas: %w; look with: nats stream info %s",
				s.stream, conn.Replicas, err, s.stream)
		}
	}
	return nil
}

// replicasOf is how many replicas the stream should have: want, or more where
// it exists with more.
func replicasOf(ctx context.Context, js jetstream.JetStream, stream string, want int) (int, error) {
	s, err := js.Stream(ctx, stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return want, nil
	}
	if err != nil {
		return 0, err
	}
	return max(want, s.CachedInfo().Config.Replicas), nil
}

// ensureStream keeps the metadata that others have added to the stream.
func ensureStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	if s, err := js.Stream(ctx, cfg.Name); err == nil {
		old := maps.Clone(s.CachedInfo().Config.Metadata)
		if old == nil {
			old = map[string]string{}
		}
		maps.Copy(old, cfg.Metadata)
		cfg.Metadata = old
	}
	_, err := js.CreateOrUpdateStream(ctx, cfg)
	return err
}
