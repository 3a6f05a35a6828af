package cluster

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cairn/router"

	"github.com/nats-io/nats.go"
)

// DoneRequest says that a routed request is over, or that its prefill is.
type DoneRequest struct {
	ID string `json:"id"`
	// Decoding says that only the prefill is over: the request counts as being decoded
	// until it is reported done without this.
	Decoding bool `json:"decoding,omitempty"`
}

// LoadRequest says what a node has to do.
type LoadRequest struct {
	Node string `json:"node"`
	router.Load
}

// RoutedMessage is what a router publishes of each decision, a few hundred bytes, so
// that the others count the request as well. With what was learned of nodes that announce
// nothing it has the keys of the prompt, 35 bytes each.
type RoutedMessage struct {
	Router string `json:"router"` // that decided; it ignores its own messages
	router.Assignment
}

// newRouterID is a name for one run of a router.
func newRouterID() string { return rand.Text() }

// share tells the other routers what this one has decided. What is not heard is not
// counted: the estimates are repaired by the nodes' reports.
func (s *RouterService) share(a router.Assignment) {
	m := RoutedMessage{Router: s.id, Assignment: a}
	conn := s.view.conn
	body, err := json.Marshal(m)
	if err == nil && int64(len(body)) > conn.NC.MaxPayload() {
		m.Keys = nil
		body, err = json.Marshal(m)
	}
	if err == nil {
		err = conn.NC.Publish(SubjectRouted, body)
	}
	if err != nil {
		s.cfg.Logger.Debug("a decision was not told to the other routers", "error", err)
	}
}

// observe takes over what another router has decided.
func (s *RouterService) observe(m RoutedMessage) error {
	if m.Router == s.id {
		return nil
	}
	s.observed.Add(1)
	return s.router.Observe(m.Assignment, time.Now())
}

// over takes note that a request, or its prefill, is over.
func (s *RouterService) over(q DoneRequest) error {
	switch {
	case q.ID == "":
		return fmt.Errorf("%w: id is empty", router.ErrRequest)
	case q.Decoding:
		s.router.Prefilled(q.ID)
	default:
		s.router.Done(q.ID)
	}
	return nil
}

// Done implements node.Router. It tells the other routers, too.
func (s *RouterService) Done(id string) { s.tellDone(DoneRequest{ID: id}) }

// Prefilled implements node.Router. It tells the other routers, too.
func (s *RouterService) Prefilled(id string) { s.tellDone(DoneRequest{ID: id, Decoding: true}) }

// tellDone takes note of a request that is over, here and at the other routers.
func (s *RouterService) tellDone(q DoneRequest) {
	err := s.over(q)
	var body []byte
	if err == nil {
		body, err = json.Marshal(q)
	}
	if err == nil {
		err = s.view.conn.NC.Publish(SubjectDone, body)
	}
	if err != nil {
		s.cfg.Logger.Debug("the end of a request was not told to the other routers", "error", err)
	}
}

// Listen makes a router that does not answer on NATS count what the others decide and are
// told, until Stop. One that does ([RouterService.Start]) listens anyway.
func (s *RouterService) Listen() error {
	var subs []*nats.Subscription
	var errs []error
	listen := func(sub *nats.Subscription, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		subs = append(subs, sub)
	}
	listen(hear(s, SubjectRouted, s.observe))
	listen(hear(s, SubjectDone, s.over))
	listen(hear(s, SubjectLoad, s.load))
	s.mu.Lock()
	s.subs = append(s.subs, subs...)
	s.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return errors.Join(fmt.Errorf("cluster: listen to other routers: %w", err), s.Stop())
	}
	return nil
}

// hear calls apply with each message on a subject.
func hear[T any](s *RouterService, subject string, apply func(T) error) (*nats.Subscription, error) {
	return s.view.conn.NC.Subscribe(subject, func(msg *nats.Msg) {
		var q T
		err := json.Unmarshal(msg.Data, &q)
		if err == nil {
			err = apply(q)
		}
		if err != nil {
			s.cfg.Logger.Debug("what a router was told is ignored", "subject", subject, "error", err)
		}
	})
}

// unlisten ends what Listen began.
func (s *RouterService) unlisten() error {
	s.mu.Lock()
	subs := s.subs
	s.subs = nil
	s.mu.Unlock()
	var errs []error
	for _, sub := range subs {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
