package router

import (
	"container/list"
	"time"
)

// sessions remembers to which node the requests of a session went, so that a
// conversation stays where its newest blocks are, also those that nobody has announced
// yet. Router.mu guards it.
type sessions struct {
	byID map[string]*list.Element // of *session
	used list.List                // least recently used first
}

type session struct {
	id, node string
	at       time.Time
}

// at is the node of a session, "" for one that is unknown or was idle for too long.
func (s *sessions) at(id string, now time.Time, ttl float64) string {
	e := s.byID[id]
	if e == nil || now.Sub(e.Value.(*session).at).Seconds() > ttl {
		return ""
	}
	return e.Value.(*session).node
}

// put notes that a request of the session went to node. The sessions idle for longest
// go when there are more than most, or when their time is over.
func (s *sessions) put(id, node string, now time.Time, ttl float64, most int) {
	if e := s.byID[id]; e != nil {
		e.Value.(*session).node, e.Value.(*session).at = node, now
		s.used.MoveToBack(e)
	} else {
		s.byID[id] = s.used.PushBack(&session{id, node, now})
	}
	for e := s.used.Front(); e != nil; e = s.used.Front() {
		old := e.Value.(*session)
		if len(s.byID) <= most && now.Sub(old.at).Seconds() <= ttl {
			return
		}
		s.used.Remove(e)
		delete(s.byID, old.id)
	}
}

// keep is the place of the session's node in the ranking; ok is false when it is not
// there, or dearer than the factor allows.
func (r *Router) keep(q *Request, k *ranking, now time.Time) (place int, ok bool) {
	if q.Session == "" {
		return 0, false
	}
	node := r.sessions.at(q.Session, now, r.config.SessionTTL)
	for i := range k.order {
		if c := k.get(i); c.Node == node {
			return i, c.Cost <= r.config.StickyFactor*k.get(0).Cost
		}
	}
	return 0, false
}
