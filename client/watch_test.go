package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"cairn/client"
)

// watching gathers the events of a Watch in the background.
type watching struct {
	t      *testing.T
	events chan client.Event
	ended  chan error // the error that was yielded, or nil
	cancel context.CancelFunc
}

func watch(t *testing.T, c *client.Client, ns, name string) *watching {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{t: t, events: make(chan client.Event, 100), ended: make(chan error, 1), cancel: cancel}
	go func() {
		var last error
		for ev, err := range c.Watch(ctx, ns, name) {
			if err != nil {
				last = err
				continue
			}
			w.events <- ev
		}
		w.ended <- last
	}()
	return w
}

const watchPatience = time.Minute

func (w *watching) next() client.Event {
	w.t.Helper()
	select {
	case ev := <-w.events:
		return ev
	case err := <-w.ended:
		w.t.Fatalf("the watch has ended: %v", err)
	case <-time.After(watchPatience):
		w.t.Fatal("no event came")
	}
	return client.Event{}
}

func (w *watching) end() error {
	w.t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(watchPatience):
		w.t.Fatal("the watch does not end")
	}
	return nil
}

func TestWatch(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{WatchPoll: 5 * time.Millisecond, MaxConnections: 1}, s)
	w := watch(t, c, "other", "k")
	put := func(value string) client.Version { return s.log.set("other\x00k", []byte(value), true) }
	v1 := put("1")
	if ev := w.next(); ev != (client.Event{Version: v1, Exists: true}) {
		t.Errorf("first: %+v", ev)
	}
	s.awaitCalls(t, "CAIRN.WATCH", 4)                         // polls that bring nothing
	if err := nodeOf(t, c, s).Ping(t.Context()); err != nil { // a watch takes no connection of the pool
		t.Fatal(err)
	}
	gone := s.log.set("other\x00k", nil, false)
	if ev := w.next(); ev != (client.Event{Version: gone}) {
		t.Errorf("deleted: %+v", ev)
	}
	late := watch(t, c, "other", "k")
	if ev := late.next(); ev != (client.Event{Version: gone}) {
		t.Errorf("the present state: %+v", ev)
	}
	late.cancel()
	if err := late.end(); err != nil {
		t.Errorf("cancelled: %v", err)
	}
	for i := 0; i < 100; i++ {
		gone = put("n")
	}
	for ev := w.next(); ev.Version != gone; ev = w.next() {
	}
	c.Close()
	if err := w.end(); !errors.Is(err, client.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := watch(t, c, "", "k").end(); !errors.Is(err, client.ErrClosed) {
		t.Errorf("of a closed client: %v", err)
	}
}

// A watch goes on at another node when one fails, and misses nothing that is still so.
func TestWatchGoesOn(t *testing.T) {
	a, b, c := pair(t, client.Config{MaxBackoff: 5 * time.Millisecond, Cooldown: time.Hour})
	v1 := a.log.set("default\x00k", nil, true)
	w := watch(t, c, "", "k")
	if ev := w.next(); ev.Version != v1 {
		t.Errorf("%+v", ev)
	}
	a.stop()
	defer a.serve("tcp", a.addr) // for the tests' end
	v2 := a.log.set("default\x00k", nil, true)
	if ev := w.next(); ev.Version != v2 || b.count("CAIRN.WATCH") == 0 {
		t.Errorf("%+v", ev)
	}
	b.on("CAIRN.WATCH", refuse)
	b.stop()
	if err := b.serve("tcp", b.addr); err != nil {
		t.Fatal(err)
	}
	b.awaitCalls(t, "CAIRN.WATCH", b.count("CAIRN.WATCH")+3) // it tries again and again
	v3 := a.log.set("default\x00k", nil, true)
	b.setFault(nil)
	if ev := w.next(); ev.Version != v3 {
		t.Errorf("%+v, want %s", ev, v3)
	}
	w.cancel()
	if err := w.end(); err != nil {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWatchOfWhatIsWrongEnds(t *testing.T) {
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{}, s)
	if err := watch(t, c, "bogus", "k").end(); !errors.Is(err, client.ErrNamespace) {
		t.Errorf("got %v, want ErrNamespace", err)
	}
	s.log.set("default\x00k", nil, true)
	asked := s.count("CAIRN.WATCH")
	for range c.Watch(t.Context(), "", "k") {
		break
	}
	if n := s.count("CAIRN.WATCH") - asked; n != 1 {
		t.Errorf("asked %d times after the caller had enough", n)
	}
}
