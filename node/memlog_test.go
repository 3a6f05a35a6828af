package node

import (
	"bytes"
	"sync"

	"cairn/coherency/ledger"
)

// memLog is a coherence log in memory. Each node has a reader of its own, which a test
// can hold up; what a node publishes can be kept back.
type memLog struct {
	mu       sync.Mutex
	grown    broadcast
	messages [][]byte // encoded, by sequence-1
	kept     map[string][][]byte
	cut      map[string]bool
	snapshot []byte
	at       uint64 // sequence of snapshot
	first    uint64 // sequence of the first message that is left
}

func newMemLog() *memLog {
	return &memLog{kept: map[string][][]byte{}, cut: map[string]bool{}, first: 1}
}

func (l *memLog) publish(id string, m *ledger.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data := m.Append(nil)
	if l.cut[id] {
		l.kept[id] = append(l.kept[id], data)
		return
	}
	l.messages = append(l.messages, data)
	l.grown.notify()
}

// disconnect keeps back what a node publishes, until connect.
func (l *memLog) disconnect(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[id] = true
}

func (l *memLog) connect(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[id] = false
	l.messages = append(l.messages, l.kept[id]...)
	delete(l.kept, id)
	l.grown.notify()
}

func (l *memLog) save(sequence uint64, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshot, l.at = bytes.Clone(data), sequence
}

// logReader gives the log to one node.
type logReader struct {
	quit, done chan struct{}
	once       sync.Once

	// mu is held while a message is given.
	mu sync.Mutex
}

// hold keeps messages from the node until release.
func (r *logReader) hold()    { r.mu.Lock() }
func (r *logReader) release() { r.mu.Unlock() }

// stop ends the reading. A reader that is held must be released first.
func (r *logReader) stop() {
	r.once.Do(func() { close(r.quit) })
	<-r.done
}

func (l *memLog) read(_ string, h LogHandler) *logReader {
	r := &logReader{quit: make(chan struct{}), done: make(chan struct{})}
	l.mu.Lock()
	next, end := uint64(1), uint64(len(l.messages))
	snapshot, at := l.snapshot, l.at
	l.mu.Unlock()
	go func() {
		defer close(r.done)
		if snapshot != nil {
			if err := h.Restore(at, bytes.NewReader(snapshot)); err != nil {
				panic(err)
			}
			next = at + 1
		}
		caught := false
		for {
			grown := l.grown.wait()
			l.mu.Lock()
			rest := l.messages[next-1:]
			l.mu.Unlock()
			for _, data := range rest {
				select {
				case <-r.quit:
					return
				default:
				}
				r.mu.Lock()
				var m ledger.Message
				if err := ledger.Decode(data, &m); err != nil {
					h.Bad(next, ledger.Sum(data))
				} else {
					h.Message(next, &m, ledger.Sum(data))
				}
				r.mu.Unlock()
				next++
			}
			if !caught && next > end {
				caught = true
				h.CaughtUp()
			}
			select {
			case <-grown:
			case <-r.quit:
				return
			}
		}
	}()
	return r
}
