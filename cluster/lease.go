package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of membership.
var (
	// ErrMemberExists: another node is a member under this id.
	ErrMemberExists = errors.New("another member has this id")
	// ErrLeaseExpired: the lease was not renewed in time.
	ErrLeaseExpired = errors.New("lease expired")
	// ErrSuperseded: another process has joined under this id.
	ErrSuperseded = errors.New("superseded by another process")
)

const (
	// joinTry bounds one attempt to join or to leave.
	joinTry = 2 * time.Second
	// renewPause is the pause after a renewal that failed, or a fraction of Renew
	// where that is shorter.
	renewPause = 200 * time.Millisecond
)

// errChanged: the record changed between the look and the publish; look again.
var errChanged = errors.New("member record changed meanwhile")

// Lease is a membership that renews itself. Its methods may run in parallel.
type Lease struct {
	conn *Conn
	cfg  LeaseConfig
	stop context.CancelFunc
	done chan struct{} // closed when nothing is renewed any more
	lost chan struct{} // closed when the lease is lost

	// mu guards the rest; nothing blocks under it.
	mu       sync.Mutex
	member   Member
	renewal  uint64               // of the newest attempt
	sent     map[uint64]time.Time // attempts whose outcome is unknown: when they were sent
	revision uint64               // of the newest record known to be stored
	until    time.Time            // when the lease ends, on the monotonic clock
	err      error                // why it was lost
}

// Join makes m a member and keeps it one until [Lease.Leave], or until it is lost.
// An Incarnation of 0 is replaced by [NewIncarnation].
//
// Where a live member has the same id, Join takes its place at once if both name
// the same StoreID: then the old process is gone, because this one holds the
// lock of its data directory. Otherwise the error matches [ErrMemberExists].
// What fails for a passing reason is tried again until ctx ends.
func Join(ctx context.Context, conn *Conn, m Member, cfg LeaseConfig) (*Lease, error) {
	return join(ctx, conn, m, cfg, 0)
}

// join also takes the place of the incarnation before.
func join(ctx context.Context, conn *Conn, m Member, cfg LeaseConfig, before uint64) (*Lease, error) {
	if err := errors.Join(ValidID(m.ID), cfg.Validate()); err != nil {
		return nil, err
	}
	m = m.Clone()
	m.Incarnation = or(m.Incarnation, NewIncarnation())
	l := &Lease{
		conn: conn, cfg: cfg.withDefaults(), member: m, sent: map[uint64]time.Time{},
		done: make(chan struct{}), lost: make(chan struct{}),
	}
	passing := func(err error) bool { return Transient(err) || errors.Is(err, errChanged) }
	err := conn.retry(ctx, joinTry, passing, func(ctx context.Context) error {
		old, err := lookup(ctx, conn, m.ID)
		if err != nil {
			return err
		}
		if old.live && old.Incarnation == m.Incarnation && l.confirm(old) {
			return nil // an earlier attempt whose answer was lost
		}
		if old.live && old.Incarnation != before && old.another(m) {
			return memberExists(m, old)
		}
		return l.publish(ctx, old.revision)
	})
	if err != nil {
		return nil, fmt.Errorf("cluster: join as %s: %w", m.ID, err)
	}
	renewing, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.renew(renewing)
	return l, nil
}

// Vacant tells, with nil, that Join would not be refused now because another
// member has the id. Who starts to speak for a node before it joins asks first.
func Vacant(ctx context.Context, conn *Conn, m Member) error {
	var old stored
	err := conn.retry(ctx, joinTry, Transient, func(ctx context.Context) (err error) {
		old, err = lookup(ctx, conn, m.ID)
		return err
	})
	if err == nil && old.live && old.another(m) {
		err = memberExists(m, old)
	}
	if err != nil {
		return fmt.Errorf("cluster: join as %s: %w", m.ID, err)
	}
	return nil
}

// another tells whether the record is of a member that m must not supersede.
func (s stored) another(m Member) bool { return m.StoreID == "" || s.StoreID != m.StoreID }

func memberExists(m Member, old stored) error {
	return fmt.Errorf("%w: it is at %s, of store %q (this one is %q), and ends %v after its last renewal; "+
		"give this node another id, or stop the other one and wait",
		ErrMemberExists, or(old.Addr, "an unknown address"), old.StoreID, m.StoreID,
		time.Duration(old.GraceMS)*time.Millisecond)
}

// Member is the member as it will be published next.
func (l *Lease) Member() Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.member.Clone()
}

// Update changes the description of the member; the next renewal publishes it.
// Changes of ID and Incarnation are undone. The function must not call the lease.
func (l *Lease) Update(change func(*Member)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, incarnation := l.member.ID, l.member.Incarnation
	change(&l.member)
	l.member = l.member.Clone()
	l.member.ID, l.member.Incarnation = id, incarnation
}

// Held tells whether the lease holds at this moment. Lost follows it when the
// process was suspended: who must not act without a lease asks Held last.
func (l *Lease) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil && time.Now().Before(l.until)
}

// Lost is closed when the lease could not be renewed within TTL of the moment
// at which the last confirmed renewal was sent, or somebody else has taken its
// place; [Lease.Err] says which. The member is then no longer one, and nothing is
// renewed. Leave does not close it.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Err says why the lease was lost: it matches [ErrLeaseExpired] or
// [ErrSuperseded], or is nil while it is not lost.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Rejoin makes the member of a lost lease one again, as a new incarnation, and
// returns the new lease. It tries until it succeeds or ctx ends; a member that
// was superseded stays out. Whether and when to come back is for the owner to
// decide, who must first stop acting on the old lease.
func (l *Lease) Rejoin(ctx context.Context) (*Lease, error) {
	switch err := l.Err(); {
	case err == nil:
		return nil, errors.New("cluster: rejoin: the lease is not lost")
	case errors.Is(err, ErrSuperseded):
		return nil, fmt.Errorf("cluster: rejoin: %w; is a copy of this node's data directory in use elsewhere?", err)
	}
	<-l.done
	m := l.Member()
	before := m.Incarnation
	m.Incarnation = max(NewIncarnation(), before+1)
	return join(ctx, l.conn, m, l.cfg, before)
}

// Leave ends the membership: the others see it at once. It may be called
// again, and after a loss, when it only waits for the renewals to end.
func (l *Lease) Leave(ctx context.Context) error {
	l.stop()
	<-l.done
	l.mu.Lock()
	id, incarnation := l.member.ID, l.member.Incarnation
	lost := l.err != nil
	l.mu.Unlock()
	if lost {
		return nil //nolint:nilerr // a membership that was lost has ended already
	}
	passing := func(err error) bool { return Transient(err) || errors.Is(err, errChanged) }
	err := l.conn.retry(ctx, joinTry, passing, func(ctx context.Context) error {
		now, err := lookup(ctx, l.conn, id)
		if err != nil || !now.live || now.Incarnation != incarnation {
			return err
		}
		msg := nats.NewMsg(memberSubject(id))
		msg.Header.Set(kvOperation, kvPurge)
		msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
		_, err = l.conn.JS.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(now.revision),
			jetstream.WithMsgTTL(DefaultMarkerTTL))
		return changed(err)
	})
	if err != nil {
		return fmt.Errorf("cluster: leave as %s: %w; the membership ends by itself in %v", id, err, l.cfg.messageTTL())
	}
	return nil
}

// changed marks a conflict as a reason to look again.
func changed(err error) error {
	if Conflict(err) {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	return err
}

// publish sends a record that replaces revision. The lease is confirmed from
// the moment before it was sent.
func (l *Lease) publish(ctx context.Context, revision uint64) error {
	l.mu.Lock()
	l.renewal++
	rec := record{Member: l.member.Clone(), Renewal: l.renewal, GraceMS: l.cfg.grace().Milliseconds(), Renewed: time.Now().UTC()}
	l.mu.Unlock()
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(memberSubject(rec.ID))
	msg.Data = data
	l.mu.Lock()
	l.sent[rec.Renewal] = time.Now()
	l.mu.Unlock()
	ack, err := l.conn.JS.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(revision),
		jetstream.WithMsgTTL(l.cfg.messageTTL()))
	if err != nil {
		return changed(err)
	}
	l.confirm(stored{record: rec, revision: ack.Sequence})
	return nil
}

// confirm takes note that one of the attempts was stored, and tells whether it
// was one of them.
func (l *Lease) confirm(s stored) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent, ok := l.sent[s.Renewal]
	if !ok {
		return false
	}
	for n := range l.sent {
		if n <= s.Renewal {
			delete(l.sent, n)
		}
	}
	l.revision = max(l.revision, s.revision)
	if until := sent.Add(l.cfg.TTL); until.After(l.until) {
		l.until = until
	}
	return true
}

// renew runs until the lease is lost or left.
func (l *Lease) renew(ctx context.Context) {
	var log pace
	defer close(l.done)
	defer l.stop()
	wait := l.cfg.Renew
	for {
		l.mu.Lock()
		until := l.until
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, time.Until(until))):
		}
		if !time.Now().Before(until) {
			l.lose(fmt.Errorf("%w: no renewal was confirmed within %v", ErrLeaseExpired, l.cfg.TTL))
			return
		}
		attempt, cancel := context.WithDeadline(ctx, earlier(until, time.Now().Add(max(l.cfg.Renew, renewPause))))
		err := l.renewOnce(attempt)
		cancel()
		wait = l.cfg.Renew
		switch {
		case errors.Is(err, ErrSuperseded), errors.Is(err, ErrLeaseExpired):
			l.lose(err)
			return
		case err != nil && ctx.Err() == nil:
			if log.due() {
				l.conn.Log.Warn("lease not renewed; trying again", "error", err, "left", time.Until(until).Round(time.Millisecond))
			}
			wait = min(renewPause, l.cfg.Renew/renewsPerTTL)
		}
	}
}

// renewOnce publishes a renewal. On a conflict it finds out who wrote.
func (l *Lease) renewOnce(ctx context.Context) error {
	l.mu.Lock()
	id, incarnation, revision := l.member.ID, l.member.Incarnation, l.revision
	l.mu.Unlock()
	err := l.publish(ctx, revision)
	if !errors.Is(err, errChanged) {
		return err
	}
	now, lookErr := lookup(ctx, l.conn, id)
	switch {
	case lookErr != nil:
		return lookErr
	case now.revision <= revision: // a lagging replica, or a write in flight
		return err
	case !now.live:
		return fmt.Errorf("%w: its record was expired or deleted on the server", ErrLeaseExpired)
	case now.Incarnation != incarnation:
		return fmt.Errorf("%w: incarnation %d at %s", ErrSuperseded, now.Incarnation, now.Addr)
	case l.confirm(now): // an earlier attempt whose answer was lost
		return nil
	}
	return err
}

func (l *Lease) lose(err error) {
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	l.conn.Log.Error("membership lost", "error", err)
	close(l.lost)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
