package node

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/resp"
)

// The keyspace events of Redis that a node has, and lost, which is Cairn's: writes
// that were acknowledged and not yet flushed are declared gone.
const (
	eventSet     = "set"
	eventDel     = "del"
	eventExpire  = "expire"
	eventPersist = "persist"
	eventExpired = "expired"
	eventEvicted = "evicted"
	eventLost    = "lost"
)

// subscriptionKind is how a subscription says which channels it means.
type subscriptionKind uint8

const (
	byChannel subscriptionKind = iota
	byPattern

	subscriptionKinds
)

// firstAlias is the name by which Redis clients know the first namespace: the
// number of a database.
const firstAlias = "0"

// pubsub knows which connections listen to which keyspace events.
type pubsub struct {
	first string // the namespace that firstAlias stands for; "" if it stands for none
	count atomic.Int64

	// mu guards by. Messages are queued under it, so that after a change of by no
	// message follows the old one.
	mu sync.RWMutex
	by [subscriptionKinds]map[string]map[*subscriber]struct{}
}

// subscriber is a connection with its subscriptions. Only the connection's
// goroutine uses to.
type subscriber struct {
	push *resp.Pusher
	to   [subscriptionKinds]map[string]struct{}
}

// count is the number of subscriptions.
func (s *subscriber) count() int { return len(s.to[byChannel]) + len(s.to[byPattern]) }

func newPubsub(namespaces []Namespace) *pubsub {
	p := &pubsub{first: namespaces[0].Name}
	for _, ns := range namespaces {
		if ns.Name == firstAlias {
			p.first = ""
		}
	}
	for kind := range p.by {
		p.by[kind] = map[string]map[*subscriber]struct{}{}
	}
	return p
}

// add subscribes s to a channel or pattern; again has no effect.
func (p *pubsub) add(kind subscriptionKind, channel string, s *subscriber) {
	if _, ok := s.to[kind][channel]; ok {
		return
	}
	if s.to[kind] == nil {
		s.to[kind] = map[string]struct{}{}
	}
	s.to[kind][channel] = struct{}{}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by[kind][channel] == nil {
		p.by[kind][channel] = map[*subscriber]struct{}{}
	}
	p.by[kind][channel][s] = struct{}{}
	p.count.Add(1)
}

// remove ends a subscription of s, if there is one: no message for it is queued
// once remove has returned.
func (p *pubsub) remove(kind subscriptionKind, channel string, s *subscriber) {
	if _, ok := s.to[kind][channel]; !ok {
		return
	}
	delete(s.to[kind], channel)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by[kind][channel], s)
	if len(p.by[kind][channel]) == 0 {
		delete(p.by[kind], channel)
	}
	p.count.Add(-1)
}

// removeAll ends all subscriptions of s.
func (p *pubsub) removeAll(s *subscriber) {
	for kind := range subscriptionKinds {
		for channel := range s.to[kind] {
			p.remove(kind, channel, s)
		}
	}
}

// channels are those, in order, that have subscribers by their name and match a pattern.
func (p *pubsub) channels(pattern string) []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var list []string
	for channel := range p.by[byChannel] {
		if globMatch(pattern, channel) {
			list = append(list, channel)
		}
	}
	slices.Sort(list)
	return list
}

// subscribers is how many connections listen to a channel by its name.
func (p *pubsub) subscribers(channel string) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.by[byChannel][channel])
}

// patterns is how many different patterns are listened to.
func (p *pubsub) patterns() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.by[byPattern])
}

// publishEvent tells the subscribers on this node that event has happened to a
// name. It does not block on them and does not keep name; when there are none it
// costs one atomic read. A goroutine's events arrive in the order in which it
// publishes them.
func (n *Node) publishEvent(namespace string, name []byte, event string) {
	if n.pubsub.count.Load() > 0 {
		n.pubsub.publish(namespace, string(name), event)
	}
}

func (p *pubsub) publish(namespace, name, event string) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	p.deliverLocked("__keyspace@", namespace, name, event)
	p.deliverLocked("__keyevent@", namespace, event, name)
}

// deliverLocked queues a message. A channel of the first namespace has two names;
// a pattern that matches both gets one message, with the namespace's own name.
func (p *pubsub) deliverLocked(prefix, namespace, subject, payload string) {
	channels := [2]string{prefix + namespace + "__:" + subject}
	names := channels[:1]
	if namespace == p.first {
		channels[1] = prefix + firstAlias + "__:" + subject
		names = channels[:2]
	}
	for _, channel := range names {
		for s := range p.by[byChannel][channel] {
			s.push.Push("message", channel, payload)
		}
	}
	for pattern, subscribers := range p.by[byPattern] {
		for _, channel := range names {
			if !globMatch(pattern, channel) {
				continue
			}
			for s := range subscribers {
				s.push.Push("pmessage", pattern, channel, payload)
			}
			break
		}
	}
}

// nameState is what of a name's state its events depend on.
type nameState struct {
	object  block.Key // zero: there is no such name
	expires int64     // milliseconds since 1970; 0: never
}

// at tells whether the name is there at a time.
func (s nameState) at(now time.Time) bool {
	return !s.object.IsZero() && (s.expires == 0 || now.UnixMilli() < s.expires)
}

// nameEvents are the events of a name's change, as Redis has them. A name whose end
// had come, and that nobody had removed yet, expires first.
func nameEvents(before, after nameState, now time.Time) (events []string) {
	was := before.at(now)
	if !was && !before.object.IsZero() {
		events = append(events, eventExpired)
	}
	switch {
	case after.object.IsZero():
		if was {
			events = append(events, eventDel)
		}
		return events
	case !was, before.object != after.object:
		events = append(events, eventSet)
		if after.expires == 0 {
			return events
		}
	}
	switch {
	case was && before.expires == after.expires: // also what KEEPTTL makes
	case after.expires != 0:
		events = append(events, eventExpire)
	default:
		events = append(events, eventPersist)
	}
	return events
}
