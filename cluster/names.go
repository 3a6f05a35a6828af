package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"cairn/block"
	"cairn/node"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Errors of [Names].
var (
	// ErrNamesLost: the log of names is not the one that was read before, or has lost
	// its end. What this node knows of names may be newer than the log: it must
	// start again, cold, rather than answer.
	ErrNamesLost = errors.New("the log of names has lost history: restart this node")
	// ErrNamesAway: this node was cut off from the log for so long that the traces
	// of deleted names may have vanished meanwhile. It must start again.
	ErrNamesAway = errors.New("cut off from the log of names for longer than deletions are kept: restart this node")
	// ErrNameData: a state in the log does not follow the format, or a state given to
	// Append cannot be written.
	ErrNameData = errors.New("cluster: bad name")
)

// Defaults of [NamesConfig].
const (
	DefaultDeletedTTL       = 24 * time.Hour
	DefaultNamesInFlight    = 256
	DefaultNamesAckTimeout  = 2 * time.Second
	minDeletedTTL           = time.Second // the resolution of NATS
	maxNameBytes            = 64 << 10
	maxNameFlightRetries    = 64
	nameFlightPause         = 2 * time.Millisecond
	namesGone               = 30 * time.Second // after which a missing stream counts as lost
	nameAwayNum, nameAwayOf = 3, 4             // fraction of DeletedTTL after which ErrNamesAway
)

// NamesConfig says how names are written. The zero value of a field means its default.
type NamesConfig struct {
	// DeletedTTL is how long the log keeps the trace of a deleted name, and of one
	// that has expired. A node that is cut off for three quarters of that has to
	// start again. In whole seconds. Default 24 h.
	DeletedTTL time.Duration
	// InFlight is how many appends may wait for NATS; more wait their turn.
	// Default 256.
	InFlight int
	// AckTimeout is how long one may take before it is sent again. Default 2 s.
	AckTimeout time.Duration
	// Layout is used to make the stream when it is not there at the start.
	Layout Layout
	// Logger gets what goes wrong. Default: that of the connection.
	Logger *slog.Logger
}

// Validate reports every problem of c at once.
func (c NamesConfig) Validate() error {
	errs := []error{c.Layout.Validate()}
	if c.DeletedTTL != 0 && (c.DeletedTTL < minDeletedTTL || c.DeletedTTL%time.Second != 0) {
		errs = append(errs, fmt.Errorf("cluster: DeletedTTL %v: want whole seconds, at least 1s", c.DeletedTTL))
	}
	if c.InFlight < 0 || c.AckTimeout < 0 {
		errs = append(errs, fmt.Errorf("cluster: InFlight %d, AckTimeout %v: want none negative", c.InFlight, c.AckTimeout))
	}
	return errors.Join(errs...)
}

// NamesStats counts since the start.
type NamesStats struct {
	Appended  uint64 `json:"appended"`  // by this node, acknowledged
	Conflicts uint64 `json:"conflicts"` // appends of this node that were refused
	Resent    uint64 `json:"resent"`    // appends sent again after an unknown outcome
	Applied   uint64 `json:"applied"`   // states read from the log, of all nodes
	Bad       uint64 `json:"bad"`       // records of the log that could not be read
	Sequence  uint64 `json:"sequence"`  // of the newest state read
}

// Names is the log of names on the stream CAIRN_NAMES: one subject per name,
// which keeps the newest state; the sequence of the stream is the order of all
// changes. It implements node.NameLog. All methods may run in parallel.
type Names struct {
	cfg   NamesConfig
	conn  *Conn
	js    jetstream.JetStream
	slots chan struct{} // one per append in flight
	ready chan struct{} // closed when the state at the start has been applied
	once  sync.Once
	seen  atomic.Int64 // when the stream was last found to be there, Unix ns

	appended, conflicts, resent, applied, bad, sequence atomic.Uint64
}

var _ node.NameLog = (*Names)(nil)

// NewNames makes the log's writer; Run makes it a reader.
func NewNames(conn *Conn, cfg NamesConfig) (*Names, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.DeletedTTL = or(cfg.DeletedTTL, DefaultDeletedTTL)
	cfg.InFlight = or(cfg.InFlight, DefaultNamesInFlight)
	cfg.AckTimeout = or(cfg.AckTimeout, DefaultNamesAckTimeout)
	if cfg.Logger == nil {
		cfg.Logger = conn.Log
	}
	js, err := jetstream.New(conn.NC, jetstream.WithPublishAsyncTimeout(cfg.AckTimeout))
	if err != nil {
		return nil, fmt.Errorf("cluster: names: %w", err)
	}
	return &Names{cfg: cfg, conn: conn, js: js, slots: make(chan struct{}, cfg.InFlight), ready: make(chan struct{})}, nil
}

// Stats may be called at any time.
func (l *Names) Stats() NamesStats {
	return NamesStats{Appended: l.appended.Load(), Conflicts: l.conflicts.Load(), Resent: l.resent.Load(),
		Applied: l.applied.Load(), Bad: l.bad.Load(), Sequence: l.sequence.Load()}
}

// nameJSON is a state of a name in the log.
type nameJSON struct {
	Namespace string `json:"namespace"`
	// Name as text, or NameBytes (base64) where it is not valid UTF-8.
	Name      string    `json:"name,omitempty"`
	NameBytes []byte    `json:"name_bytes,omitempty"`
	Object    block.Key `json:"object"` // all zero: deleted
	Length    uint32    `json:"length"`
	Expires   int64     `json:"expires_ms,omitempty"`
	Writer    string    `json:"writer"`
}

func encodeName(n node.Name) ([]byte, error) {
	if len(n.Name) > maxNameBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrNameData, len(n.Name), maxNameBytes)
	}
	if n.Key.IsZero() || n.Expires < 0 {
		return nil, fmt.Errorf("%w: key %s, expires %d", ErrNameData, n.Key, n.Expires)
	}
	w := nameJSON{Namespace: n.Namespace, Object: n.Object, Length: n.Length, Expires: n.Expires, Writer: n.Writer}
	if utf8.Valid(n.Name) {
		w.Name = string(n.Name)
	} else {
		w.NameBytes = n.Name
	}
	return json.Marshal(w)
}

// DecodeName reads a state of a name from a message of the stream CAIRN_NAMES. Its
// sequence is left to the caller. Errors wrap [ErrNameData].
func DecodeName(subject string, data []byte) (node.Name, error) {
	key, err := NameKey(subject)
	if err != nil {
		return node.Name{}, fmt.Errorf("%w: %w", ErrNameData, err)
	}
	var w nameJSON
	if err := json.Unmarshal(data, &w); err != nil {
		return node.Name{}, fmt.Errorf("%w: %w", ErrNameData, err)
	}
	if w.Name != "" && len(w.NameBytes) > 0 {
		return node.Name{}, fmt.Errorf("%w: both name and name_bytes", ErrNameData)
	}
	n := node.Name{Key: key, Namespace: w.Namespace, Name: w.NameBytes, Object: w.Object, Length: w.Length,
		Expires: w.Expires, Writer: w.Writer}
	if w.Name != "" {
		n.Name = []byte(w.Name)
	}
	if n.Expires < 0 {
		return node.Name{}, fmt.Errorf("%w: expires %d", ErrNameData, n.Expires)
	}
	return n, nil
}

// keep is how long the log is to keep a state: for ever unless the name is
// deleted or will expire, then DeletedTTL beyond that.
func (l *Names) keep(n node.Name, now time.Time) time.Duration {
	switch {
	case n.Deleted():
		return l.cfg.DeletedTTL
	case n.Expires == 0:
		return 0
	}
	left := max(time.Duration(n.Expires-now.UnixMilli())*time.Millisecond, 0)
	if left > maxKeep {
		return 0
	}
	return left.Truncate(time.Second) + l.cfg.DeletedTTL
}

// maxKeep is the longest time to live that is asked of NATS; what expires later is
// ended by its writer's sweep.
const maxKeep = 10 * 365 * 24 * time.Hour

// Append implements node.NameLog.
func (l *Names) Append(ctx context.Context, n node.Name, expect *uint64) (uint64, error) {
	data, err := encodeName(n)
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, fmt.Errorf("cluster: append name: %w", ctx.Err())
	case l.slots <- struct{}{}:
	}
	defer func() { <-l.slots }()
	opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
	if keep := l.keep(n, time.Now()); keep > 0 {
		opts = append(opts, jetstream.WithMsgTTL(keep))
	}
	if expect != nil {
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(*expect))
	}
	m := &nats.Msg{Subject: NameSubject(n.Key), Data: data, Header: nats.Header{jetstream.MsgIDHeader: {nuid.Next()}}}
	return l.publish(ctx, m, opts)
}

// publish repeats what has no known outcome under the same message id until it
// has one, or ctx ends.
func (l *Names) publish(ctx context.Context, m *nats.Msg, opts []jetstream.PublishOpt) (uint64, error) {
	uncertain := false // an earlier attempt may be in the log
	inFlight := 0
	for pause := retryPause; ; {
		ack, err := l.attempt(ctx, m, opts)
		switch {
		case err == nil:
			l.appended.Add(1)
			return ack.Sequence, nil
		case code(err) == codeWrongFlight && inFlight < maxNameFlightRetries:
			// Another change of this name is on its way through the replicas;
			// who wins shows in a moment.
			inFlight++
			if !wait(ctx, nameFlightPause) {
				return 0, fmt.Errorf("cluster: append name: %w", ctx.Err())
			}
			continue
		case Conflict(err):
			if uncertain {
				return l.resolve(ctx, m)
			}
			l.conflicts.Add(1)
			return 0, fmt.Errorf("cluster: append name: %w", node.ErrNameConflict)
		case !Transient(err) && !errors.Is(err, jetstream.ErrAsyncPublishTimeout) && code(err) != codeDuplicateInFlight:
			return 0, fmt.Errorf("cluster: append name: %w", err)
		}
		// A refusal that certainly left nothing behind does not make the outcome unknown.
		uncertain = uncertain || !errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, nats.ErrReconnectBufExceeded)
		l.resent.Add(1)
		if !wait(ctx, pause) {
			return 0, fmt.Errorf("cluster: append name: %w (last attempt: %w)", ctx.Err(), err)
		}
		pause = min(2*pause, maxRetryPause)
	}
}

// codeDuplicateInFlight: a message with this id is on its way through the
// replicas (R3 only).
const codeDuplicateInFlight jetstream.ErrorCode = 10158

func (l *Names) attempt(ctx context.Context, m *nats.Msg, opts []jetstream.PublishOpt) (*jetstream.PubAck, error) {
	future, err := l.js.PublishMsgAsync(m, opts...)
	if err != nil {
		return nil, err
	}
	select {
	case ack := <-future.Ok():
		return ack, nil
	case err := <-future.Err():
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// resolve tells whether a change whose first attempt had no answer, and whose
// repetition was refused, is in the log. A single server compares the
// expected sequence before it recognizes the repetition, so a refusal alone says
// nothing.
func (l *Names) resolve(ctx context.Context, m *nats.Msg) (uint64, error) {
	s, err := l.js.Stream(ctx, StreamNames)
	if err != nil {
		return 0, fmt.Errorf("cluster: append name: outcome unknown: %w", err)
	}
	last, err := s.GetLastMsgForSubject(ctx, m.Subject)
	if err != nil {
		return 0, fmt.Errorf("cluster: append name: outcome unknown: %w", err)
	}
	if last.Header.Get(jetstream.MsgIDHeader) == m.Header.Get(jetstream.MsgIDHeader) {
		l.appended.Add(1)
		return last.Sequence, nil
	}
	return 0, errors.New("cluster: append name: outcome unknown: another change followed")
}

func code(err error) jetstream.ErrorCode {
	var api jetstream.JetStreamError
	if errors.As(err, &api) && api.APIError() != nil {
		return api.APIError().ErrorCode
	}
	return 0
}

// wait tells whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
