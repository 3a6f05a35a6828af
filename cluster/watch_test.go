package cluster

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// script drives a memberWatch by hand: times are in seconds since its start,
// once on the log's clock and once on the watcher's.
type script struct {
	t    *testing.T
	w    *memberWatch
	base time.Time
	got  []string
}

func newScript(t *testing.T) *script {
	s := &script{t: t, base: time.Unix(1_700_000_000, 0)}
	s.w = &memberWatch{log: slog.New(slog.DiscardHandler), members: map[string]*seenMember{}, lapsed: map[string]uint64{},
		handle: func(e MemberEvent) {
			text := fmt.Sprintf("%v %s/%d", e.Change, e.Member.ID, e.Member.Incarnation)
			if e.Reason != "" {
				text += ": " + e.Reason
			}
			s.got = append(s.got, text)
		}}
	s.session(1)
	s.w.synced()
	s.got = nil
	return s
}

func (s *script) at(seconds float64) time.Time {
	return s.base.Add(time.Duration(seconds * float64(time.Second)))
}

func (s *script) session(stream int64) { s.w.begin(time.Unix(stream, 0)) }

// record is stored at one time and read at another; every lease is of 10 s.
func (s *script) record(revision uint64, id string, incarnation uint64, storedAt, readAt float64) {
	data, err := json.Marshal(record{Member: Member{ID: id, Incarnation: incarnation}, Renewal: revision, GraceMS: 10_000})
	if err != nil {
		s.t.Fatal(err)
	}
	s.w.message(s.at(readAt), &jetstream.RawStreamMsg{Subject: memberSubject(id), Sequence: revision, Data: data, Time: s.at(storedAt)})
}

func (s *script) gone(revision uint64, id, header, value string) {
	s.w.message(s.at(0), &jetstream.RawStreamMsg{Subject: memberSubject(id), Sequence: revision, Header: nats.Header{header: {value}}})
}

func (s *script) want(events ...string) {
	s.t.Helper()
	if diff := cmp.Diff(events, s.got); diff != "" {
		s.t.Errorf("events (-want +got):\n%s", diff)
	}
	s.got = nil
}

func TestWatchLapse(t *testing.T) {
	for _, c := range []struct {
		name         string
		stored, read float64 // when b's record comes, after a's at 0
		want         []string
	}{
		{"both on time", 10, 10, nil},
		{"late by both clocks", 10.1, 10.1, []string{"left a/1: lease lapsed"}},
		{"this process was stalled", 3, 60, nil},
		{"the server's clock was set", 3600, 3, nil},
		{"the server's clock was set back", -3600, 60, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			s.record(1, "a", 1, 0, 0)
			s.record(2, "b", 1, 0, 0)
			s.want("joined a/1", "joined b/1")
			s.record(3, "b", 1, c.stored, c.read)
			s.want(c.want...)
		})
	}
}

func TestWatchComesBackAfterLapse(t *testing.T) {
	s := newScript(t)
	s.record(1, "a", 1, 0, 0)
	s.record(2, "b", 1, 11, 11)
	s.want("joined a/1", "joined b/1", "left a/1: lease lapsed")
	s.session(1) // what is in the bucket is read again: a's record is no newer
	s.record(1, "a", 1, 0, 12)
	s.record(2, "b", 1, 11, 12)
	s.w.synced()
	s.want()
	s.record(3, "a", 1, 12, 12)
	s.want("joined a/1")
	s.gone(4, "a", jetstream.MarkerReasonHeader, "MaxAge")
	s.gone(5, "b", kvOperation, kvPurge)
	s.gone(6, "c", kvOperation, kvPurge)
	s.want("left a/1: lease expired", "left b/1: left")
}

func TestWatchIncarnations(t *testing.T) {
	s := newScript(t)
	s.record(1, "a", 7, 0, 0)
	s.record(2, "a", 8, 1, 1)
	s.want("joined a/7", "left a/7: superseded by a new incarnation", "joined a/8")
	s.record(1, "a", 7, 0, 2) // old news from a replica that lags
	s.gone(1, "a", kvOperation, kvPurge)
	s.want()
}

func TestWatchSessions(t *testing.T) {
	s := newScript(t)
	for i, id := range []string{"a", "b", "c"} {
		s.record(uint64(10+i), id, 1, 0, 0)
	}
	s.want("joined a/1", "joined b/1", "joined c/1")

	// a has gone; c is newer than what this replica knows, so it is not judged;
	// and nobody lapses although an hour has passed unseen.
	s.session(1)
	s.record(11, "b", 1, 0, 3600)
	s.w.synced()
	s.want("left a/1: gone while the watch was interrupted")
	s.record(13, "b", 1, 3600, 3600)
	s.want("left c/1: lease lapsed")

	// Another stream of the same name begins anew at 1.
	s.session(2)
	s.record(1, "a", 2, 3600, 3601)
	s.w.synced()
	s.want("joined a/2", "left b/1: gone while the watch was interrupted")

	s.session(2) // and is empty
	s.w.synced()
	s.want("left a/2: gone while the watch was interrupted")
}

func FuzzMemberMessage(f *testing.F) {
	f.Add("$KV.cairn_members.n1", []byte(`{"id":"n1","incarnation":3,"tiers":[{"tier":"host"}],"grace_ms":1000}`))
	f.Add("$KV.cairn_members.", []byte(`{"id":"","tiers":[{"tier":"tape"}]}`))
	f.Add("x", []byte("null"))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		known := map[string]uint64{}
		w := &memberWatch{log: slog.New(slog.DiscardHandler), members: map[string]*seenMember{}, lapsed: map[string]uint64{},
			handle: func(e MemberEvent) {
				if e.Change == MemberJoined {
					known[e.Member.ID] = e.Member.Incarnation
				}
			}}
		w.begin(time.Unix(1, 0))
		w.message(time.Unix(1, 0), &jetstream.RawStreamMsg{Subject: subject, Sequence: 1, Data: data, Time: time.Unix(1, 0)})
		for id := range known {
			if memberSubject(id) != subject && id != subject {
				t.Errorf("a record at %q made %q a member", subject, id)
			}
		}
	})
}

func TestLeaseTimes(t *testing.T) {
	for _, c := range []struct {
		cfg     LeaseConfig
		renew   time.Duration
		message time.Duration
	}{
		{LeaseConfig{}, 3 * time.Second, 16 * time.Second},
		{LeaseConfig{TTL: time.Second, Drift: 0.5}, 200 * time.Millisecond, 2 * time.Second},
		{LeaseConfig{TTL: 100 * time.Millisecond, Renew: 30 * time.Millisecond}, 30 * time.Millisecond, time.Second},
	} {
		d := c.cfg.withDefaults()
		if err := c.cfg.Validate(); err != nil || d.Renew != c.renew || d.messageTTL() != c.message || d.messageTTL() < d.grace() {
			t.Errorf("%+v: renew %v, message %v, error %v; want %v, %v", c.cfg, d.Renew, d.messageTTL(), err, c.renew, c.message)
		}
	}
	if err := (LeaseConfig{TTL: time.Second, Renew: 600 * time.Millisecond}).Validate(); err == nil {
		t.Error("a lease that one lost renewal ends was accepted")
	}
}
