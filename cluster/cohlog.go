package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of [Coherence].
var (
	// ErrLogRegressed: the coherence log is not the one that was read before, or has
	// lost its end, which may have been acknowledged to somebody. Nothing above
	// the log can repair that.
	ErrLogRegressed = errors.New("the coherence log has lost history")
	// ErrLogGap: messages that were not read are gone, and no snapshot that can be read
	// stands for them. Who was only slow finds a newer snapshot when it starts again.
	ErrLogGap = errors.New("the coherence log does not reach back far enough")
)

// Defaults of [CoherenceConfig].
const (
	DefaultCoherenceAckTimeout = 2 * time.Second
	DefaultRegressionGrace     = 3 * time.Second

	// cohHeaders is room for the headers of a message within the server's limit.
	cohHeaders = 512
	// cohMessageBytes and cohRecordBytes are what a message and a record usually need.
	cohMessageBytes, cohRecordBytes = 64, 112
	// cohDirect is up to how many bytes Publish sends a message itself: as few of them as are
	// on their way at once always fit into what the system buffers for the connection.
	cohDirect = 64 << 10
	// cohMaxPause bounds the pause between tries to send a message: short, because
	// strict operations wait for it, and few messages are on their way.
	cohMaxPause = 250 * time.Millisecond
	// cohUnseen is how many ack time-outs a message that was acknowledged may take
	// until it is delivered to this node, before it is sent again.
	cohUnseen = 4
)

// Headers of a message of the coherence log, for people; readers need none.
const (
	headerFormat   = "Cairn-Format"
	headerCount    = "Cairn-Count"
	headerFirstKey = "Cairn-First-Key"
	headerLastKey  = "Cairn-Last-Key"
)

// CoherenceConfig says how the log is used. The zero value of a field means its default.
type CoherenceConfig struct {
	// Partition of the log. Only 0 exists.
	Partition int
	// MaxBytes bounds an encoded message. Default, and at most, what the server takes.
	MaxBytes int
	// AckTimeout is how long a message may go without an answer before it is sent
	// again. Default 2 s.
	AckTimeout time.Duration
	// RegressionGrace is how long the stream may say that it is shorter than what was
	// read of it before that counts as [ErrLogRegressed]: a new leader may not yet have
	// applied all that is committed. Default 3 s.
	RegressionGrace time.Duration
	// Layout is used to make the stream when it is not there at the start.
	Layout Layout
	// Logger gets what goes wrong. Default: that of the connection.
	Logger *slog.Logger
}

// Validate reports every problem of c at once.
func (c CoherenceConfig) Validate() error {
	errs := []error{c.Layout.Validate()}
	if c.Partition < 0 || c.Partition >= partitions {
		errs = append(errs, fmt.Errorf("cluster: Partition %d: want 0 to %d", c.Partition, partitions-1))
	}
	if c.MaxBytes < 0 || c.AckTimeout < 0 || c.RegressionGrace < 0 {
		errs = append(errs, fmt.Errorf("cluster: MaxBytes %d, AckTimeout %v, RegressionGrace %v: want none negative",
			c.MaxBytes, c.AckTimeout, c.RegressionGrace))
	}
	return errors.Join(errs...)
}

// CoherenceStats counts since the start.
type CoherenceStats struct {
	Published uint64 `json:"published"` // messages given to Publish
	Resent    uint64 `json:"resent"`    // messages sent again, each time counted
	Pending   int    `json:"pending"`   // published, not yet seen in the log
	Delivered uint64 `json:"delivered"` // messages read from the log, of all nodes
	Live      uint64 `json:"live"`      // of these, came without a consumer
	Bad       uint64 `json:"bad"`       // of these, could not be read
	Sequence  uint64 `json:"sequence"`  // of the newest message read, or of the snapshot
	Lag       uint64 `json:"lag"`       // messages behind that one, when it came
}

// Coherence is the log that orders all changes of mutable blocks, on the stream
// CAIRN_COH_<partition>. All methods may run in parallel, Run and Publish each once at a
// time.
type Coherence struct {
	cfg     CoherenceConfig
	conn    *Conn
	js      jetstream.JetStream // with its own time-out and handlers
	stream  string
	wake    chan struct{} // 1: the sender has something to do
	running atomic.Bool   // Run has not returned

	// mu guards what is below.
	mu      sync.Mutex
	flights []*cohFlight // by the order of Publish
	created time.Time    // of the stream that Run reads; zero: none yet

	published, resent, delivered, live, bad, sequence, lag atomic.Uint64
	inLog                                                  atomic.Uint64 // sequence of the newest own message that was acknowledged
}

// cohFlight is a message that was published and not yet seen in the log.
type cohFlight struct {
	node                string
	incarnation, number uint64
	msg                 *nats.Msg
	// due is when to send it, the first time or again; pause the next back-off.
	due   time.Time
	pause time.Duration
	tries int
}

// NewCoherence makes the log's writer and reader; nothing happens until Run.
func NewCoherence(conn *Conn, cfg CoherenceConfig) (*Coherence, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.AckTimeout = or(cfg.AckTimeout, DefaultCoherenceAckTimeout)
	cfg.RegressionGrace = or(cfg.RegressionGrace, DefaultRegressionGrace)
	if cfg.Logger == nil {
		cfg.Logger = conn.Log
	}
	c := &Coherence{cfg: cfg, conn: conn, stream: CoherenceStream(cfg.Partition), wake: make(chan struct{}, 1)}
	var err error
	c.js, err = jetstream.New(conn.NC, jetstream.WithPublishAsyncTimeout(cfg.AckTimeout),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { c.refused(m, err) }),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, ack *jetstream.PubAck) { c.acked(m, ack.Sequence) }))
	if err != nil {
		return nil, fmt.Errorf("cluster: coherence log: %w", err)
	}
	return c, nil
}

// MaxBytes is how large an encoded message may be.
func (c *Coherence) MaxBytes() int {
	most := int(c.conn.NC.MaxPayload()) - cohHeaders
	if c.cfg.MaxBytes != 0 {
		most = min(most, c.cfg.MaxBytes)
	}
	return most
}

// Stats may be called at any time.
func (c *Coherence) Stats() CoherenceStats {
	c.mu.Lock()
	pending := len(c.flights)
	c.mu.Unlock()
	return CoherenceStats{Published: c.published.Load(), Resent: c.resent.Load(), Pending: pending,
		Delivered: c.delivered.Load(), Live: c.live.Load(), Bad: c.bad.Load(), Sequence: c.sequence.Load(), Lag: c.lag.Load()}
}

// Publish sends the message, and sends it again under the same id until Run has
// seen it, or a later number or incarnation of the same node, come back in the
// log. It returns at once and keeps nothing of m. It is for one goroutine at a time,
// and for the caller to bound how many are on their way. A message that can never be sent is dropped and logged: one
// above MaxBytes, or of a node whose name is no [ValidID].
func (c *Coherence) Publish(m *ledger.Message) {
	data := m.Append(make([]byte, 0, cohMessageBytes+cohRecordBytes*len(m.Records)))
	if err := ValidID(m.Node); err != nil || len(data) > c.MaxBytes() {
		c.cfg.Logger.Error("a message to the coherence log cannot be sent", "node", m.Node, "number", m.Number,
			"records", len(m.Records), "bytes", len(data), "most", c.MaxBytes(), "error", err)
		return
	}
	f := &cohFlight{node: m.Node, incarnation: m.Incarnation, number: m.Number, pause: retryPause,
		msg: &nats.Msg{Subject: CoherenceSubject(c.cfg.Partition, m.Node), Data: data, Header: cohHeader(m)}}
	c.published.Add(1)
	if c.launch(f) {
		c.send(f)
		return
	}
	c.rouse()
}

func cohHeader(m *ledger.Message) nats.Header {
	h := nats.Header{
		jetstream.MsgIDHeader: {fmt.Sprintf("%s.%d.%d", m.Node, m.Incarnation, m.Number)},
		headerFormat:          {ledger.Format},
		headerCount:           {strconv.Itoa(len(m.Records))},
	}
	var first, last block.Key
	for i := range m.Records {
		if k := m.Records[i].Key; !k.IsZero() {
			if first.IsZero() {
				first = k
			}
			last = k
		}
	}
	if !first.IsZero() {
		h[headerFirstKey], h[headerLastKey] = []string{first.String()}, []string{last.String()}
	}
	return h
}

// rouse wakes the sender.
func (c *Coherence) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
