package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"cairn/block"

	"github.com/nats-io/nats.go/jetstream"
)

// TierInfo is what a member tells of one of its tiers.
type TierInfo struct {
	Tier     block.Tier `json:"tier"`
	Capacity int64      `json:"capacity"` // bytes
	Used     int64      `json:"used"`     // bytes
	Objects  int64      `json:"objects"`
	// Engines is how many of the used bytes engines hold in place.
	Engines int64 `json:"engines,omitempty"`
	// Device is what the tier stores on, where it says so; Lost tells that it is gone.
	Device string `json:"device,omitempty"`
	Lost   bool   `json:"lost,omitempty"`
}

// Member is one node of the cluster, as it describes itself.
type Member struct {
	// ID names the node; see [ValidID].
	ID string `json:"id"`
	// Incarnation tells one start, or one lease, of the node from the next; see
	// [NewIncarnation].
	Incarnation uint64 `json:"incarnation"`
	// Addr is host:port of the data plane, which speaks RESP.
	Addr string `json:"addr,omitempty"`
	// Unix is the path of the data plane's socket on the node's machine.
	Unix string `json:"unix,omitempty"`
	// StoreID names the node's data directory, which one process at a time may
	// lock. A member that comes back with the same one takes its old place.
	StoreID string            `json:"store_id,omitempty"`
	Tiers   []TierInfo        `json:"tiers,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Version string            `json:"version,omitempty"`
	Started time.Time         `json:"started,omitzero"`
}

// Clone is a copy that shares no memory with m.
func (m Member) Clone() Member {
	m.Tiers = slices.Clone(m.Tiers)
	m.Labels = maps.Clone(m.Labels)
	return m
}

// NewIncarnation is a number that no earlier start of a node has had: the
// milliseconds since 1970 and ten random bits, so it grows while the clock
// does, and fits the 53 bits that a JSON number keeps everywhere.
func NewIncarnation() uint64 {
	return uint64(time.Now().UnixMilli())<<10 | rand.Uint64N(1<<10)
}

// Defaults of [LeaseConfig].
const (
	DefaultLeaseTTL   = 15 * time.Second
	DefaultLeaseDrift = 0.01

	// renewsPerTTL is how many renewals fit into a lease by default.
	renewsPerTTL = 5
	// markerResolution is how exactly NATS counts the life of a message.
	markerResolution = time.Second
)

// LeaseConfig times a membership. The zero value is right for production.
type LeaseConfig struct {
	// TTL is how long a member stays one after it sent its last renewal. Default
	// 15 s, which outlives an election of NATS (4.8 s measured after SIGKILL);
	// with less, a failover expires everyone. NATS counts whole seconds, so a
	// shorter lease ends on time for its holder and for watchers that hear of
	// another member, and after a second or two for the others.
	TTL time.Duration
	// Renew is the time between renewals. Default TTL/5.
	Renew time.Duration
	// Drift is by how much the clocks of two machines may differ in rate: others
	// wait TTL×(1+Drift). Default 0.01.
	Drift float64
}

// Validate reports every problem of c at once.
func (c LeaseConfig) Validate() error {
	var errs []error
	if c.TTL < 0 || c.Renew < 0 {
		errs = append(errs, fmt.Errorf("cluster: lease TTL %v, Renew %v: want none negative", c.TTL, c.Renew))
	}
	if d := c.withDefaults(); d.Renew > d.TTL/2 {
		errs = append(errs, fmt.Errorf("cluster: lease Renew %v: want at most half of TTL %v, so that one lost renewal does not end it", d.Renew, d.TTL))
	}
	if c.Drift < 0 || c.Drift > 1 {
		errs = append(errs, fmt.Errorf("cluster: lease Drift %v: want 0 to 1", c.Drift))
	}
	return errors.Join(errs...)
}

func (c LeaseConfig) withDefaults() LeaseConfig {
	c.TTL = or(c.TTL, DefaultLeaseTTL)
	c.Renew = or(c.Renew, c.TTL/renewsPerTTL)
	c.Drift = or(c.Drift, DefaultLeaseDrift)
	return c
}

// grace is how long others wait for a member.
func (c LeaseConfig) grace() time.Duration {
	return time.Duration(float64(c.TTL) * (1 + c.Drift))
}

// messageTTL is grace in whole seconds, rounded up.
func (c LeaseConfig) messageTTL() time.Duration {
	return (c.grace() + markerResolution - 1).Truncate(markerResolution)
}

// record is a member in the bucket, in JSON. The wall clock times are for
// people: nothing is decided by them.
type record struct {
	Member
	// Renewal counts the records of this incarnation, so that its author knows
	// which of several attempts was stored.
	Renewal uint64 `json:"renewal"`
	// GraceMS is how long others wait for the next record, in milliseconds.
	GraceMS int64     `json:"grace_ms"`
	Renewed time.Time `json:"renewed"`
}

// stored is what the bucket last said of an id.
type stored struct {
	record
	revision uint64 // 0: nothing was ever stored, or no trace of it is left
	live     bool   // false: deleted or expired
}

const (
	kvOperation = "KV-Operation"
	kvPurge     = "PURGE"
)

// parseStored reads a message of the members' stream.
func parseStored(m *jetstream.RawStreamMsg) (stored, error) {
	s := stored{revision: m.Sequence}
	if m.Header.Get(kvOperation) != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "" {
		return s, nil
	}
	if err := json.Unmarshal(m.Data, &s.record); err != nil {
		return s, fmt.Errorf("cluster: member record %s at %d: %w", m.Subject, m.Sequence, err)
	}
	s.live = true
	return s, nil
}

// lookup reads the newest record of an id. A replica may answer that lags
// behind: what decides is the expected revision of the publish that follows.
func lookup(ctx context.Context, conn *Conn, id string) (stored, error) {
	s, err := conn.JS.Stream(ctx, kvStreamPrefix+BucketMembers)
	if err != nil {
		return stored{}, err
	}
	m, err := s.GetLastMsgForSubject(ctx, memberSubject(id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return stored{}, nil
	}
	if err != nil {
		return stored{}, err
	}
	return parseStored(m)
}
