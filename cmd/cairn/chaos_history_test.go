package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
)

// chaosKind is what an operation does.
type chaosKind uint8

const (
	readStrict chaosKind = iota
	readSession
	readLocal
	set
	cas
	setNX
	setXX
	del
	chaosKinds
)

var chaosKindNames = [chaosKinds]string{"get strict", "get session", "get local", "set", "cas", "set nx", "set xx", "del"}

func (k chaosKind) String() string               { return chaosKindNames[k] }
func (k chaosKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// chaosOutcome is how an operation ended, as far as its client knows.
type chaosOutcome uint8

const (
	done    chaosOutcome = iota
	refused              // the condition did not hold, or there was nothing to delete
	failed               // it has not happened, and never will
	unknown              // it may have happened, or may happen later
	outcomes
)

var chaosOutcomeNames = [outcomes]string{"done", "refused", "failed", "unknown"}

func (o chaosOutcome) String() string               { return chaosOutcomeNames[o] }
func (o chaosOutcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// chaosOp is one operation of a history. Times are since the beginning of the
// round, by the one clock of this process.
type chaosOp struct {
	Client  int            `json:"client"` // the session
	Node    int            `json:"node"`
	Life    int            `json:"life"` // of the node's process; -1: it changed meanwhile
	Key     int            `json:"key"`
	Kind    chaosKind      `json:"kind"`
	Outcome chaosOutcome   `json:"outcome"`
	Call    time.Duration  `json:"call"`
	Return  time.Duration  `json:"return"`
	Value   int64          `json:"value"`              // that was written or read; 0: absent
	Expect  client.Version `json:"expect"`             // of a cas
	Version client.Version `json:"version"`            // that was read, made, or named by a conflict; 0: not known
	Durable bool           `json:"durable,omitempty"`  // acknowledged only when no crash of a node can undo it
	Through bool           `json:"through,omitempty"`  // as write-through, whatever the namespace's policy
	InPlace bool           `json:"in_place,omitempty"` // in the node's GPU memory
	Err     string         `json:"err,omitempty"`
}

// chaosBarrier is a barrier that was passed.
type chaosBarrier struct {
	Call   time.Duration `json:"call"`
	Return time.Duration `json:"return"`
}

// writes tells whether the operation may change its block.
func (k chaosKind) writes() bool { return k >= set }

// chaosKey is a block of a round.
type chaosKey struct {
	Space string `json:"space"`
	Name  string `json:"name"`
}

func (k chaosKey) String() string { return k.Space + "/" + k.Name }

// chaosLoss is a declared loss: at its place in the log the block has again what its
// base version had, under a new version.
type chaosLoss struct {
	Key      int
	Call     time.Duration // no later than its place in the log
	Return   time.Duration // no earlier
	Version  client.Version
	Base     client.Version
	Present  bool // there is a value afterwards
	Replaced bool // that of the newest copy found, not of the base
}

// chaosSpan is a time in which a node was a member, as the log says. Until is the
// earliest moment at which that may have ended.
type chaosSpan struct {
	Node        string
	From, Until time.Duration
	first, last uint64 // sequences; last is 0 while it goes on
}

// chaosHistory is all that a round is judged by.
type chaosHistory struct {
	Nodes  []string
	Keys   []chaosKey
	Ops    []chaosOp
	Losses []chaosLoss
	Spans  []chaosSpan
	Bars   []chaosBarrier
}

// forever is later than everything.
const forever = time.Duration(1<<63 - 1)

// chaosValue is the bytes of value number id: no other value has them.
func chaosValue(id int64) []byte {
	n := 16 + int(uint64(id)*2654435761>>7)%500
	if id%16 == 0 {
		n += 16 << 10
	}
	p := binary.BigEndian.AppendUint64(make([]byte, 0, n), uint64(id))[:n]
	replay.Fill(p[8:], block.NamedKey("chaos", nil, uint64(id)))
	return p
}

// chaosValueID is the number of a value, whose bytes it verifies.
func chaosValueID(p []byte) (int64, error) {
	if len(p) < 8 {
		return 0, fmt.Errorf("a value of %d bytes", len(p))
	}
	id := int64(binary.BigEndian.Uint64(p))
	if id <= 0 || id > 1<<40 || !slices.Equal(p, chaosValue(id)) {
		return 0, fmt.Errorf("%d bytes that nobody has written", len(p))
	}
	return id, nil
}

// chaosOutcomeOf reads the error of a change.
func chaosOutcomeOf(err error) chaosOutcome {
	var conflict *client.ConflictError
	switch {
	case err == nil:
		return done
	case errors.As(err, &conflict), errors.Is(err, client.ErrExists), errors.Is(err, client.ErrNotFound):
		return refused
	case errors.Is(err, client.ErrUnknownOutcome):
		return unknown
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrFull), errors.Is(err, client.ErrNoSpace),
		errors.Is(err, client.ErrNoHome), errors.Is(err, client.ErrNamespace):
		return failed
	}
	return unknown
}
