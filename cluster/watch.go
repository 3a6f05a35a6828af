package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MemberChange is the kind of a [MemberEvent].
type MemberChange uint8

// The kinds of change.
const (
	// MemberJoined: a member, or a new incarnation of one, is there.
	MemberJoined MemberChange = iota + 1
	// MemberUpdated: the member describes itself differently than before.
	MemberUpdated
	// MemberLeft: this incarnation is gone; Reason says how.
	MemberLeft
	// MembersSynced: everything that the bucket held has been delivered. It comes
	// once, when the watch stands for the first time.
	MembersSynced
)

// String names the kind.
func (c MemberChange) String() string {
	switch c {
	case MemberJoined:
		return "joined"
	case MemberUpdated:
		return "updated"
	case MemberLeft:
		return "left"
	case MembersSynced:
		return "synced"
	}
	return fmt.Sprintf("change(%d)", uint8(c))
}

// MemberEvent is one change of the membership.
type MemberEvent struct {
	Change MemberChange
	// Member as it now is, or last was; zero for MembersSynced. It belongs to the
	// receiver.
	Member Member
	// Reason is for people.
	Reason string
}

const (
	// watchExpiry and watchHeartbeat make a watch notice a dead NATS server after
	// about a second; both are the least that NATS takes.
	watchExpiry    = 2 * time.Second
	watchHeartbeat = 500 * time.Millisecond
	// watchIdle is when NATS forgets a watch that nobody reads.
	watchIdle = 30 * time.Second
	// watchPause is the pause before a watch is set up again.
	watchPause = 250 * time.Millisecond
)

// WatchMembers tells handle of every change of the membership, beginning with a
// Joined for each present member and one Synced, until ctx ends; it returns
// ctx's error. The calls come from one goroutine, in the order of the log. It
// blocks: run it in a goroutine of its own.
//
// The watch survives NATS: when its connection or its server goes away it is set
// up again, compares what is there now with what it had told, and tells the
// difference. While it cannot see the log it expires nobody.
//
// A member is gone when its record was deleted or expired on the server, or when
// the log shows that it is late: another member's record stands in the log
// more than TTL×(1+Drift) after its last one, and as much time has passed here on
// the monotonic clock since that one was received. The second rule does not
// wait for the server's own expiry, which counts whole seconds and comes late; it
// takes two clocks, so that neither a step of the server's clock nor a stall of
// this process expires a member. A member that was only slow to be heard may
// follow its Left by a Joined of the same incarnation.
func WatchMembers(ctx context.Context, conn *Conn, handle func(MemberEvent)) error {
	var log pace
	w := &memberWatch{log: conn.Log, handle: handle, members: map[string]*seenMember{}, lapsed: map[string]uint64{}}
	for {
		err := w.session(ctx, conn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if log.due() {
			conn.Log.Warn("watch of the members interrupted; setting it up again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchPause):
		}
	}
}

// errGap: the server sent something that did not arrive.
var errGap = errors.New("messages were missed")

// session watches until something goes wrong.
func (w *memberWatch) session(ctx context.Context, conn *Conn) error {
	// A new connection means a new session: what was on its way is lost.
	status := conn.NC.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer conn.NC.RemoveStatusListener(status)
	iter, created, pending, err := openWatch(ctx, conn)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-over:
		case <-ctx.Done():
		case <-status:
		}
		iter.Stop()
	}()
	w.begin(created)
	if pending == 0 {
		w.synced()
	}
	for n := uint64(1); ; n++ {
		msg, err := iter.Next()
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != n {
			return fmt.Errorf("%w: %d follows %d", errGap, meta.Sequence.Consumer, n-1)
		}
		w.message(time.Now(), &jetstream.RawStreamMsg{
			Subject: msg.Subject(), Sequence: meta.Sequence.Stream, Header: msg.Headers(), Data: msg.Data(), Time: meta.Timestamp,
		})
		if !w.complete && (n >= pending || meta.NumPending == 0) {
			w.synced()
		}
	}
}

// openWatch delivers the last record of every id and then what follows; pending
// is how many there are, and created tells this stream from another of its name.
func openWatch(ctx context.Context, conn *Conn) (iter jetstream.MessagesContext, created time.Time, pending uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, ensureTry)
	defer cancel()
	stream, err := conn.JS.Stream(ctx, kvStreamPrefix+BucketMembers)
	if err != nil {
		return nil, created, 0, err
	}
	created = stream.CachedInfo().Created
	cons, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Description:       "Cairn: watch of the members",
		FilterSubject:     memberSubject("*"),
		DeliverPolicy:     jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: watchIdle,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return nil, created, 0, err
	}
	iter, err = cons.Messages(jetstream.PullExpiry(watchExpiry), jetstream.PullHeartbeat(watchHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	return iter, created, cons.CachedInfo().NumPending, err
}

// memberWatch turns records into events. It is used by one goroutine.
type memberWatch struct {
	log    *slog.Logger
	handle func(MemberEvent)

	members map[string]*seenMember
	// lapsed holds the revision with which a member was found late, so that
	// only a newer record brings it back.
	lapsed map[string]uint64
	// heard is when the newest record of all was stored, by the log's clock.
	heard time.Time
	told  bool // Synced was delivered
	// created is when the stream was: another time is another stream, whose
	// sequences have begun anew.
	created time.Time

	// Of the session:
	complete bool            // what the bucket held at its start has been read
	present  map[string]bool // who was in it
	newest   uint64          // highest revision read
}

// seenMember is a member that was told of.
type seenMember struct {
	record
	revision uint64
	stored   time.Time // by the log's clock
	received time.Time // here, monotonic
}

// begin starts a session. Everybody gets a full lease from when its record is
// read again.
func (w *memberWatch) begin(created time.Time) {
	w.complete, w.present, w.newest = false, map[string]bool{}, 0
	if !created.Equal(w.created) {
		w.created, w.heard = created, time.Time{}
		clear(w.lapsed)
		for _, m := range w.members {
			m.revision = 0
		}
	}
}

// message applies one message of the members' stream.
func (w *memberWatch) message(now time.Time, m *jetstream.RawStreamMsg) {
	id := strings.TrimPrefix(m.Subject, memberSubject(""))
	w.newest = max(w.newest, m.Sequence)
	s, err := parseStored(m)
	if err == nil && s.live && s.ID != id {
		err = fmt.Errorf("cluster: member record %s names %q", m.Subject, s.ID)
	}
	if err != nil {
		w.log.Warn("member record ignored", "error", err)
		return
	}
	known := w.members[id]
	switch {
	case known != nil && m.Sequence < known.revision: // from a replica that lags
		w.present[id] = true
	case !s.live:
		delete(w.lapsed, id)
		if known != nil {
			w.left(id, reasonOf(m))
		}
	default:
		w.present[id] = true
		if m.Time.After(w.heard) {
			w.heard = m.Time
		}
		if w.lapsed[id] != m.Sequence {
			w.alive(now, m, s, known)
		}
		if w.complete {
			w.expire(now)
		}
	}
}

func reasonOf(m *jetstream.RawStreamMsg) string {
	if m.Header.Get(jetstream.MarkerReasonHeader) == "MaxAge" {
		return "lease expired"
	}
	return "left"
}

// alive takes note of a live record.
func (w *memberWatch) alive(now time.Time, m *jetstream.RawStreamMsg, s stored, known *seenMember) {
	if known != nil && known.Incarnation != s.Incarnation {
		w.left(s.ID, "superseded by a new incarnation")
		known = nil
	}
	delete(w.lapsed, s.ID)
	w.members[s.ID] = &seenMember{record: s.record, revision: m.Sequence, stored: m.Time, received: now}
	switch {
	case known == nil:
		w.handle(MemberEvent{Change: MemberJoined, Member: s.Member.Clone()})
	case !reflect.DeepEqual(known.Member, s.Member):
		w.handle(MemberEvent{Change: MemberUpdated, Member: s.Member.Clone()})
	}
}

// synced ends the reading of what was there. Who is not in it has gone, unless
// its record is newer than all that was read: then a replica has answered that
// lags, and the rest is still to come.
func (w *memberWatch) synced() {
	w.complete = true
	for _, id := range w.ids() {
		if !w.present[id] && (w.newest == 0 || w.members[id].revision <= w.newest) {
			w.left(id, "gone while the watch was interrupted")
		}
	}
	for id := range w.lapsed {
		if !w.present[id] {
			delete(w.lapsed, id)
		}
	}
	if !w.told {
		w.told = true
		w.handle(MemberEvent{Change: MembersSynced})
	}
}

// expire lets go of who is late by both clocks.
func (w *memberWatch) expire(now time.Time) {
	for _, id := range w.ids() {
		m := w.members[id]
		grace := time.Duration(m.GraceMS) * time.Millisecond
		if w.heard.Sub(m.stored) > grace && now.Sub(m.received) > grace {
			w.lapsed[id] = m.revision
			w.left(id, "lease lapsed")
		}
	}
}

func (w *memberWatch) left(id, reason string) {
	m := w.members[id]
	delete(w.members, id)
	w.handle(MemberEvent{Change: MemberLeft, Member: m.Member.Clone(), Reason: reason})
}

func (w *memberWatch) ids() []string { return slices.Sorted(maps.Keys(w.members)) }
