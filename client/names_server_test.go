package client_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"cairn/client"
	"cairn/resp"
	"cairn/wire"
)

// nameLog is what the servers of one cluster know of names: every change has a
// sequence, and every server sees it at once.
type nameLog struct {
	// mu guards what follows.
	mu       sync.Mutex
	names    map[string]named // namespace and name
	sequence uint64
	changed  chan struct{} // closed at the next change
}

type named struct {
	value   []byte
	version client.Version
	exists  bool
}

func newNameLog() *nameLog { return &nameLog{names: map[string]named{}, changed: make(chan struct{})} }

func (l *nameLog) set(name string, value []byte, exists bool) client.Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.setLocked(name, value, exists)
}

func (l *nameLog) setLocked(name string, value []byte, exists bool) client.Version {
	l.sequence++
	v := client.Version(l.sequence << wire.VersionBits)
	l.names[name] = named{slices.Clone(value), v, exists}
	close(l.changed)
	l.changed = make(chan struct{})
	return v
}

func (l *nameLog) get(name string) (n named, sequence uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names[name], l.sequence, l.changed
}

func (l *nameLog) present() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, n := range l.names {
		if n.exists {
			names = append(names, name)
		}
	}
	return names
}

// compareAndSet is CAIRN.CAS: now is the version before if that is not expect.
func (l *nameLog) compareAndSet(name string, expect client.Version, value []byte) (v, now client.Version, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.names[name]
	if n.version != expect && (expect != 0 || n.exists) {
		return 0, n.version, false
	}
	return l.setLocked(name, value, true), 0, true
}

// doNamed answers a command about names.
func (c *session) doNamed(w *resp.Writer, call []string, args [][]byte) bool {
	log, name := c.s.log, ""
	if len(call) > 1 {
		name = c.namespace + "\x00" + call[1]
	}
	now, sequence, _ := log.get(name)
	switch call[0] {
	case "SET":
		if now.exists && slices.Contains(call[3:], "NX") || !now.exists && slices.Contains(call[3:], "XX") {
			w.Null()
			return true
		}
		log.set(name, args[2], true)
		w.Status("OK")
	case "CAIRN.GET":
		if !now.exists {
			w.NullArray()
			return true
		}
		w.Array(3)
		w.Int(int64(now.version))
		w.Int(5)
		w.Bulk(now.value)
	case "CAIRN.CAS":
		expect, err := wire.ParseVersion(call[2])
		if err != nil {
			w.Error("ERR " + err.Error())
			return true
		}
		made, is, ok := log.compareAndSet(name, expect, args[3])
		if !ok {
			w.Error(wire.Conflict(is, "expected "+call[2]))
			return true
		}
		w.Int(int64(made))
	case "DEL":
		was := int64(0)
		if now.exists {
			was = 1
			log.set(name, nil, false)
		}
		w.Int(was)
	case "CAIRN.SESSION":
		w.Int(int64(sequence))
	case "CAIRN.BARRIER":
		w.Int(7)
	case "CAIRN.CLEAR":
		for _, n := range log.present() {
			log.set(n, nil, false)
		}
		w.Status("OK")
	default:
		return false
	}
	return true
}

// watch answers a CAIRN.WATCH.
func (c *session) watch(ctx context.Context, w *resp.Writer, call []string) {
	since, _ := strconv.ParseUint(call[2], 10, 64)
	ms, _ := strconv.Atoi(call[3])
	limit := time.After(time.Duration(ms) * time.Millisecond)
	for {
		now, _, changed := c.s.log.get(c.namespace + "\x00" + call[1])
		if now.version > client.Version(since) {
			w.Array(2)
			w.Int(int64(now.version))
			if now.exists {
				w.Int(1)
			} else {
				w.Int(0)
			}
			return
		}
		select {
		case <-changed:
		case <-limit:
			w.NullArray()
			return
		case <-ctx.Done():
			w.NullArray()
			return
		}
	}
}
