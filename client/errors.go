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
	// ErrConflict: the block exists with other bytes, or a name has another version
	// than expected: then errors.As finds a ConflictError.
	ErrConflict = errors.New("conflict")
	// ErrFull: the node has no room now: everything it holds is in use or on its
	// way to disk. Trying again later may help.
	ErrFull = errors.New("node full")
	// ErrNoSpace: a node's disk is full: of whatever the file system has, or of names'
	// values, which are never evicted. Delete some, or give the node a larger disk.
	ErrNoSpace = errors.New("no space left on a node's disk")
	// ErrTooLarge: the block exceeds a limit of the node.
	ErrTooLarge = errors.New("block too large")
	// ErrNamespace: the node serves no such namespace.
	ErrNamespace = errors.New("unknown namespace")
	// ErrCorrupt: the bytes that arrived do not have the block's checksum.
	ErrCorrupt = errors.New("bytes do not match the block's checksum")
	// ErrUnavailable: no node answered, or the one that did cannot do it now. A
	// change was not made.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnknownOutcome: a change may have been made, or may be made yet; the answer
	// was lost. Read the name, and do not repeat what must not happen twice.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNoHome: no live node can keep the block durably. A change was not made.
	ErrNoHome = errors.New("no node can keep the block durably")
	// ErrUnreachable: the version is known, but no node that has its bytes answers.
	ErrUnreachable = errors.New("bytes out of reach")
	// ErrExists: PutName with IfAbsent found the name taken.
	ErrExists = errors.New("name exists")
	// ErrSequence: the sequence is closed, was not used for long, or its connection broke.
	// Nothing is kept in place for it any more; open another.
	ErrSequence = errors.New("sequence is not open")
	// ErrPinned: open sequences keep as much of a tier in place as the node allows: close
	// or truncate some, or try another node. Or engines hold as much of GPU memory as they
	// may.
	ErrPinned = errors.New("too much kept in place")
	// ErrLimit: a limit of the node on sequences, or on what one engine holds of its GPU
	// memory.
	ErrLimit = errors.New("limit of the node")
	// ErrNoDevice: the node has no GPU memory for engines, or not for this one.
	ErrNoDevice = errors.New("no GPU memory for engines")
	// ErrDeviceClosed: the Device is closed, or its connection broke. Its views and slots
	// have ended with it.
	ErrDeviceClosed = errors.New("the hold on GPU memory has ended")
	// ErrSlot: the slot, view or region has ended: it was committed, aborted or closed, or
	// taken away because the engine was silent for too long.
	ErrSlot = errors.New("no such slot, view or region")
	// ErrHandle: the node cannot map the memory that it was offered.
	ErrHandle = errors.New("the node cannot map that memory")
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
	wire.CodeUnknown:     ErrUnknownOutcome,
	wire.CodeNoHome:      ErrNoHome,
	wire.CodeUnreachable: ErrUnreachable,
	wire.CodeSequence:    ErrSequence,
	wire.CodePinned:      ErrPinned,
	wire.CodeLimit:       ErrLimit,
	wire.CodeDevice:      ErrNoDevice,
	wire.CodeSlot:        ErrSlot,
	wire.CodeHandle:      ErrHandle,
	"BUSY":               ErrFull,
}

// ConflictError is an ErrConflict about a named block.
type ConflictError struct {
	// Version is the one that the block has; 0: it does not exist.
	Version Version
}

func (e *ConflictError) Error() string { return "conflict: the version is " + e.Version.String() }

// Unwrap makes it an ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

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

func (e *failure) Unwrap() []error {
	if e.unsure {
		return []error{ErrUnknownOutcome, e.err}
	}
	return []error{ErrUnavailable, e.err}
}

// translate says where an error comes from, and gives one from the wire its
// sentinel.
func translate(ctx context.Context, op, addr string, err error, unsure bool) error {
	if err == nil {
		return nil
	}
	var reply resp.ServerError
	switch {
	case errors.As(err, &reply):
		kind, ok := sentinels[reply.Code()]
		if !ok {
			return &replyError{op, addr, reply, string(reply)}
		}
		text := strings.TrimPrefix(string(reply), reply.Code()+" ")
		if v, ok := wire.ConflictVersion(text); ok && kind == ErrConflict {
			_, why, _ := strings.Cut(text, ": ")
			kind, text = &ConflictError{v}, "the version is "+v.String()+": "+why
		}
		return &replyError{op, addr, kind, text}
	case errors.Is(err, resp.ErrNil), errors.Is(err, ErrClosed), ctx.Err() != nil && !unsure:
		return fmt.Errorf("cairn: %s at %s: %w", op, addr, err)
	}
	return &failure{op, addr, err, unsure}
}

// final tells whether another node is not to be asked: the node itself gave the
// error, so another would give the same, or it may have done what was asked.
func final(err error) bool {
	var reply *replyError
	var f *failure
	return errors.As(err, &reply) || errors.As(err, &f) && f.unsure || errors.Is(err, resp.ErrNil) || errors.Is(err, errConditions) ||
		errors.Is(err, ErrExists) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrNamespace)
}

// finalForNames is final for what concerns names: a node that has no strict service, or
// cannot reach the bytes, has not done anything, and another may.
func finalForNames(err error) bool {
	var reply *replyError
	if errors.As(err, &reply) && (reply.kind == ErrUnavailable || reply.kind == ErrUnreachable) {
		return false
	}
	return final(err)
}
