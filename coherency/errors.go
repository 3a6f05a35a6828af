package coherency

import (
	"errors"
	"fmt"
)

// Errors of the transitions and of the queue; test for them with errors.Is. A
// transition that returns an error has changed nothing.
var (
	// ErrTier: the argument is not one of the tiers.
	ErrTier = errors.New("no such tier")
	// ErrHome: home must be host memory or disk. A State that was not made by
	// New gives it too.
	ErrHome = errors.New("home must be host or disk")
	// ErrPolicy: the argument is not one of the write policies.
	ErrPolicy = errors.New("unknown write policy")
	// ErrConflict: the block has another version than the writer expected. Read
	// the newest version and decide again.
	ErrConflict = errors.New("version conflict")
	// ErrNoCopy: no tier has what the transition needs.
	ErrNoCopy = errors.New("no such copy")
	// ErrCurrent: the target holds the newest version already; nothing to copy.
	ErrCurrent = errors.New("copy is current")
	// ErrInFlight: a copy to the same tier is under way; wait for its end.
	ErrInFlight = errors.New("copy in flight")
	// ErrStale: the version moved on, or the source or the target was dropped,
	// since the copy began. Free what was copied; Begin again if still needed.
	ErrStale = errors.New("copy is stale")
	// ErrLastCopy: no other tier holds the newest version. Only Discard removes
	// such a copy.
	ErrLastCopy = errors.New("last copy of the newest version")
	// ErrLastDirtyCopy is the ErrLastCopy of a version that home does not hold
	// durably: sync it home first, or Discard it and declare the write lost.
	ErrLastDirtyCopy = fmt.Errorf("%w, not yet durable at home", ErrLastCopy)
	// ErrPending: intents of the present epoch are not done yet.
	ErrPending = errors.New("sync pending")
)
