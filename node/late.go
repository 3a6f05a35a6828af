package node

import (
	"sync"
	"time"

	"cairn/wire"
)

// excuseFor is how long a token that did not come true in time, and later ones of
// the same node, are not waited for.
const excuseFor = 2 * time.Second

// late remembers, by node, the tokens that did not come true in time.
type late struct {
	// mu guards nodes.
	mu    sync.Mutex
	nodes map[string]lateNode
}

type lateNode struct {
	token wire.Token
	until time.Time
}

// note says that the token did not come true in time.
func (l *late) note(t wire.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes == nil {
		l.nodes = map[string]lateNode{}
	}
	l.nodes[t.Node] = lateNode{token: t, until: time.Now().Add(excuseFor)}
}

// excuses tells whether waiting for the token has just been in vain.
func (l *late) excuses(t wire.Token) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.nodes[t.Node]
	if !ok {
		return false
	}
	if time.Now().After(n.until) {
		delete(l.nodes, t.Node)
		return false
	}
	return n.token.Incarnation == t.Incarnation && t.Position >= n.token.Position
}
