package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cairn/resp"
	"cairn/wire"
)

// Errors of calls; test for them with errors.Is.
var (
	// ErrNotFound: neither the node nor its peers have the block.
	ErrNotFound = errors.New("block not found")
	// ErrConflict: the block exists with other bytes, or a name was changed by
	// someone else meanwhile.
	ErrConflict = errors.New("conflict")
	// ErrFull: the node has no room now: everything it holds is in use or on its
	// way to disk. Trying again later may help.
	ErrFull = errors.New("node full")
	// ErrNoSpace: the node's file system is full.
	ErrNoSpace = errors.New("no space left on the node's file system")
	// ErrTooLarge: the block exceeds a limit of the node.
	ErrTooLarge = errors.New("block too large")
	// ErrNamespace: the node serves no such namespace.
	ErrNamespace = errors.New("unknown namespace")
	// ErrCorrupt: the bytes that arrived do not have the block's checksum.
	ErrCorrupt = errors.New("bytes do not match the block's checksum")
	// ErrUnavailable: no node answered, or the one that did cannot do it now.
	ErrUnavailable = errors.New("unavailable")
	// ErrExists: PutName with IfAbsent found the name taken.
	ErrExists = errors.New("name exists")
	// ErrClosed: the client is closed.
	ErrClosed = errors.New("client closed")
)

var sentinels = map[string]error{
	wire.CodeNotFound:    ErrNotFound,
	wire.CodeConflict:    ErrConflict,
	wire.CodeFull:        ErrFull,
	wire.CodeNoSpace:     ErrNoSpace,
	wire.CodeTooLarge:    ErrTooLarge,
	wire.CodeNamespace:   ErrNamespace,
	wire.CodeUnavailable: ErrUnavailable,
	"BUSY":               ErrFull,
}

// replyError is an error that a node gave as its answer.
type replyError struct {
	op, addr string
	kind     error // one of the sentinels, or the reply itself
	text     string
}

func (e *replyError) Error() string { return "cairn: " + e.op + " at " + e.addr + ": " + e.text }

func (e *replyError) Unwrap() error { return e.kind }

// failure is a call that got no answer.
type failure struct {
	op, addr string
	err      error
	unsure   bool // a write that must not be repeated may have been carried out
}

func (e *failure) Error() string {
	text := "cairn: " + e.op + " at " + e.addr + ": " + e.err.Error()
	if e.unsure {
		text += " (whether it was done is unknown)"
	}
	return text
}

func (e *failure) Unwrap() []error { return []error{ErrUnavailable, e.err} }

// translate says where an error comes from, and gives one from the wire its
// sentinel.
func translate(ctx context.Context, op, addr string, err error, unsure bool) error {
	if err == nil {
		return nil
	}
	var reply resp.ServerError
	switch {
	case errors.As(err, &reply):
		if kind, ok := sentinels[reply.Code()]; ok {
			return &replyError{op, addr, kind, strings.TrimPrefix(string(reply), reply.Code()+" ")}
		}
		return &replyError{op, addr, reply, string(reply)}
	case errors.Is(err, resp.ErrNil), errors.Is(err, ErrClosed), ctx.Err() != nil:
		return fmt.Errorf("cairn: %s at %s: %w", op, addr, err)
	}
	return &failure{op, addr, err, unsure}
}

// final tells whether another node is not to be asked: the node itself gave the
// error, so another would give the same, or it may have done what was asked.
func final(err error) bool {
	var reply *replyError
	var f *failure
	return errors.As(err, &reply) || errors.As(err, &f) && f.unsure || errors.Is(err, resp.ErrNil) ||
		errors.Is(err, ErrExists) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound)
}
