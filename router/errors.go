package router

import (
	"errors"
	"fmt"
)

// Errors that callers test for with errors.Is.
var (
	// ErrGap: changes are missing between what is known of a node and the event;
	// errors.As finds a [*GapError].
	ErrGap = errors.New("router: gap in a node's changes")
	// ErrEvent: an event or a snapshot is malformed; nothing of it was applied.
	ErrEvent = errors.New("router: malformed event")
	// ErrNode: a node's description is malformed.
	ErrNode = errors.New("router: malformed node")
	// ErrTooManyNodes: the index holds [MaxNodes] nodes.
	ErrTooManyNodes = errors.New("router: too many nodes")
	// ErrNoNodes: no node is left to send a request to.
	ErrNoNodes = errors.New("router: no node to route to")
	// ErrRequest: a routing request is malformed.
	ErrRequest = errors.New("router: malformed request")
	// ErrConfig: a configuration cannot be used.
	ErrConfig = errors.New("router: invalid configuration")
)

// GapError says which changes are missing. Ask the node for a snapshot and call
// [Index.Load]. errors.Is finds [ErrGap].
type GapError struct {
	Node        string
	Incarnation uint64
	// Expected is the number of the next change that the index can take, Got
	// the first one of the event.
	Expected, Got uint64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("%v: node %s, incarnation %d: expected change %d, got %d", ErrGap, e.Node, e.Incarnation, e.Expected, e.Got)
}

// Unwrap is [ErrGap].
func (e *GapError) Unwrap() error { return ErrGap }
