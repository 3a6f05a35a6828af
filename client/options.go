package client

import (
	"errors"
	"fmt"
	"time"
)

// PutOption changes a Put, or a change of a named block.
type PutOption func(*putOptions)

type putOptions struct {
	policy    string
	ttl       time.Duration
	ifAbsent  bool
	ifPresent bool
	expects   bool
	expect    Version
	resend    bool
}

// Policies for WithPolicy.
const (
	WriteBack    = "write-back"    // answered when a read finds the block
	WriteThrough = "write-through" // answered when the block is durable
	WriteAll     = "write-all"     // a sealed block: every tier of the node holds it; a name: every live node knows it
)

// WithPolicy sets the write policy; the default is the namespace's.
func WithPolicy(policy string) PutOption { return func(o *putOptions) { o.policy = policy } }

// WithTTL lets a named block end by itself; it has no effect on Put.
func WithTTL(d time.Duration) PutOption { return func(o *putOptions) { o.ttl = d } }

// IfAbsent makes PutName fail with ErrExists when the name is taken; Put never
// overwrites anyway.
func IfAbsent() PutOption { return func(o *putOptions) { o.ifAbsent = true } }

// IfPresent makes PutName fail with ErrNotFound when there is no such name; it has
// no effect on Put.
func IfPresent() PutOption { return func(o *putOptions) { o.ifPresent = true } }

// ExpectVersion makes PutName fail with a ConflictError when the name has another
// version; 0 is that of a name which does not exist. It has no effect on Put.
func ExpectVersion(v Version) PutOption {
	return func(o *putOptions) { o.expects, o.expect = true, v }
}

// Resend lets an unconditional PutName or a DeleteName be sent again, also to
// another node, when its answer was lost. It may then happen twice: the value may
// come back after somebody else has overwritten it. Without it such a loss is
// ErrUnknownOutcome. It has no effect on Put, which may always be sent again.
func Resend() PutOption { return func(o *putOptions) { o.resend = true } }

func options(opts []PutOption) putOptions {
	var o putOptions
	for _, f := range opts {
		f(&o)
	}
	return o
}

// named checks the options of a change of a named block.
func (o *putOptions) named(name string) error {
	conditions := 0
	for _, c := range []bool{o.ifAbsent, o.ifPresent, o.expects} {
		if c {
			conditions++
		}
	}
	if conditions > 1 {
		return fmt.Errorf("cairn: put %.64q: %w", name, errConditions)
	}
	return nil
}

var errConditions = errors.New("more than one of IfAbsent, IfPresent and ExpectVersion")

// GetOption says how fresh a read of a named block must be. Without one, it is as the
// namespace is configured at the node, Session if nothing is said there.
type GetOption func(*getOptions)

type getOptions struct {
	level consistency
	bound time.Duration
}

type consistency uint8

const (
	byNamespace consistency = iota
	strict
	bySession
	bounded
	local
)

// Strict reads give nothing older than any change that was acknowledged, to
// whomever, before the read began. They need the coherence log.
func Strict() GetOption { return func(o *getOptions) { o.level = strict } }

// Session reads give nothing older than what this Client has read or written,
// through whichever node; see Client.Session.
func Session() GetOption { return func(o *getOptions) { o.level = bySession } }

// Bounded reads give nothing that was out of date for longer than d, which is rounded
// up to milliseconds. Where the node cannot say so, they are Strict.
func Bounded(d time.Duration) GetOption {
	return func(o *getOptions) { o.level, o.bound = bounded, d }
}

// Local reads give what the node asked knows. They are answered also while it is
// cut off from the log; Versioned.Age tells how old the answer may be.
func Local() GetOption { return func(o *getOptions) { o.level = local } }
