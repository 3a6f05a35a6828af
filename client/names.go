package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cairn/resp"
	"cairn/wire"
)

// Version names one state of a named block; 0 is one that does not exist. The
// versions of a block grow, also when it is deleted and made again.
type Version = wire.Version

// ParseVersion reads what Version.String writes, and the integer that nodes speak.
func ParseVersion(s string) (Version, error) { return wire.ParseVersion(s) }

// Versioned is what a read of a named block gives.
type Versioned struct {
	// Value is the block's bytes, in the caller's memory or in new memory.
	Value []byte
	// Version is what ExpectVersion takes to change exactly this state.
	Version Version
	// Age is for how long at most the answer may have been out of date when it was
	// given.
	Age time.Duration
}

// sender is Node.chain or Node.once.
type sender func(ctx context.Context, op string, f func(*resp.Conn) error) error

// within asks in the namespace given, or else the configured one. Connections are
// shared, and a new one begins in the node's first namespace: where one is configured,
// every question names it; where none is, a connection goes back to the first.
func (n *Node) within(conn *resp.Conn, ns string, ask func(), answer func() error) error {
	space := cmp.Or(ns, n.c.cfg.Namespace)
	back := space != "" && n.c.cfg.Namespace == ""
	if space == "" {
		ask()
		return answer()
	}
	conn.Append("CAIRN.NAMESPACE", []byte(space))
	ask()
	if back {
		conn.Append("RESET")
	}
	if _, err := conn.ReadStatus(); err != nil {
		// The node refuses all that is behind it, and what else may come before it
		// has been told a namespace.
		_ = answer()
		conn.Close()
		return err
	}
	err := answer()
	if back && (err == nil || answered(err)) {
		if _, e := conn.ReadStatus(); e != nil {
			conn.Close()
		}
	}
	return err
}

// tracked asks in a namespace, and learns behind the answer how far the session has
// come.
func (n *Node) tracked(conn *resp.Conn, ns string, ask func(), answer func() error) error {
	return n.within(conn, ns, func() {
		ask()
		conn.Append("CAIRN.SESSION")
	}, func() error {
		err := answer()
		if err != nil && !answered(err) {
			return err // the connection is of no use any more
		}
		sequence, e := conn.ReadInt()
		switch {
		case e == nil && sequence > 0:
			n.c.session.learn(uint64(sequence))
		case e != nil && (err == nil || errors.Is(err, resp.ErrNil)):
			n.c.session.blind.Store(true)
		}
		return err
	})
}

// answered tells whether err is a node's answer, after which the connection goes on.
func answered(err error) bool {
	var reply resp.ServerError
	return errors.As(err, &reply) || errors.Is(err, resp.ErrNil)
}

// GetName reads a named block into dst, which grows if it is too short. See GetOption
// for how fresh it is.
func (n *Node) GetName(ctx context.Context, name string, dst []byte, opts ...GetOption) (Versioned, error) {
	return n.getName(ctx, "", name, dst, opts)
}

func (n *Node) getName(ctx context.Context, ns, name string, dst []byte, opts []GetOption) (v Versioned, err error) {
	var o getOptions
	for _, f := range opts {
		f(&o)
	}
	blind := n.c.session.blind.Load()
	if blind && (o.level == bySession || o.level == byNamespace) {
		o.level = strict
	}
	session := int64(n.c.session.sequence.Load())
	tell := o.level == byNamespace && session > 0 // by itself, for want of a word that it could go with
	err = n.chain(ctx, "get", func(conn *resp.Conn) error {
		return n.tracked(conn, ns, func() {
			if tell {
				conn.AppendHeader(2)
				conn.AppendString("CAIRN.SESSION")
				conn.AppendInt(session)
			}
			askName(conn, name, o, session)
		}, func() error {
			if tell {
				if _, err := conn.ReadInt(); err != nil {
					_, _ = conn.ReadReply() // refused as well
					return err
				}
			}
			v, err = readName(conn, dst)
			return err
		})
	})
	if errors.Is(err, resp.ErrNil) {
		err = fmt.Errorf("cairn: get %.64q at %s: %w", name, n.addr, ErrNotFound)
	}
	if blind && o.level == strict && (err == nil || errors.Is(err, ErrNotFound)) {
		n.c.session.blind.CompareAndSwap(true, false)
	}
	if err != nil {
		return Versioned{}, err
	}
	return v, nil
}

// askName queues a CAIRN.GET.
func askName(conn *resp.Conn, name string, o getOptions, session int64) {
	word, number := "", int64(-1)
	switch o.level {
	case strict:
		word = "STRICT"
	case bySession:
		word, number = "SESSION", session
	case bounded:
		word, number = "BOUNDED", milliseconds(o.bound)
	case local:
		word = "LOCAL"
	}
	words := 2
	if word != "" {
		words++
	}
	if number >= 0 {
		words++
	}
	conn.AppendHeader(words)
	conn.AppendString("CAIRN.GET")
	conn.AppendString(name)
	if word != "" {
		conn.AppendString(word)
	}
	if number >= 0 {
		conn.AppendInt(number)
	}
}

// milliseconds rounds up.
func milliseconds(d time.Duration) int64 {
	return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond)
}

// readName reads the answer to a CAIRN.GET.
func readName(conn *resp.Conn, dst []byte) (v Versioned, err error) {
	elements, err := conn.ReadArrayLen()
	if err != nil {
		return v, err
	}
	if elements != 3 {
		return v, fmt.Errorf("%w: %d elements for a named block", resp.ErrProtocol, elements)
	}
	version, err := conn.ReadInt()
	if err != nil {
		return v, err
	}
	age, err := conn.ReadInt()
	if err != nil {
		return v, err
	}
	length, err := conn.ReadBulkHeader()
	if err != nil {
		return v, err
	}
	if cap(dst) < length || dst == nil {
		dst = make([]byte, length)
	}
	v = Versioned{Value: dst[:length], Version: Version(version), Age: time.Duration(age) * time.Millisecond}
	return v, conn.ReadBody(v.Value)
}

// PutName makes p, which it only reads, the newest version of a named block. When it
// returns nil, strict reads at all nodes see the change; what it survives depends on the
// policy. A change whose answer was lost is ErrUnknownOutcome, and not sent again,
// unless Resend allows it.
func (n *Node) PutName(ctx context.Context, name string, p []byte, opts ...PutOption) error {
	o := options(opts)
	if err := o.named(name); err != nil {
		return err
	}
	if o.expects {
		_, err := n.compareAndSet(ctx, "", name, o.expect, p, o)
		return err
	}
	send := sender(n.once) // a repetition would find the first attempt's name, or overwrite a later one
	if o.resend && !o.ifAbsent && !o.ifPresent {
		send = n.chain
	}
	var words []string
	if o.ifAbsent {
		words = append(words, "NX")
	}
	if o.ifPresent {
		words = append(words, "XX")
	}
	words = o.words(words)
	err := send(ctx, "put", func(conn *resp.Conn) error {
		return n.tracked(conn, "", func() {
			conn.AppendHeader(3 + len(words))
			conn.AppendString("SET")
			conn.AppendString(name)
			conn.AppendArg(p)
			appendStrings(conn, words)
		}, func() error {
			_, err := conn.ReadStatus()
			return err
		})
	})
	if errors.Is(err, resp.ErrNil) {
		why := ErrExists
		if o.ifPresent {
			why = ErrNotFound
		}
		return fmt.Errorf("cairn: put %.64q at %s: %w", name, n.addr, why)
	}
	return err
}

// words appends what SET and CAIRN.CAS have in common.
func (o *putOptions) words(words []string) []string {
	if o.policy != "" {
		words = append(words, "POLICY", o.policy)
	}
	if o.ttl > 0 {
		if o.ttl%time.Second == 0 {
			return append(words, "EX", strconv.FormatInt(int64(o.ttl/time.Second), 10))
		}
		return append(words, "PX", strconv.FormatInt(milliseconds(o.ttl), 10))
	}
	return words
}

func appendStrings(conn *resp.Conn, words []string) {
	for _, w := range words {
		conn.AppendString(w)
	}
}

// CompareAndSet makes p the newest version of a named block if its version is expect,
// 0 for a name that does not exist, and returns the new version. Another version is
// a ConflictError. Of the options only WithPolicy and WithTTL count. It is never sent
// twice: see ErrUnknownOutcome.
func (n *Node) CompareAndSet(ctx context.Context, name string, expect Version, p []byte, opts ...PutOption) (Version, error) {
	return n.compareAndSet(ctx, "", name, expect, p, options(opts))
}

func (n *Node) compareAndSet(ctx context.Context, ns, name string, expect Version, p []byte, o putOptions) (v Version, err error) {
	words := o.words(nil)
	err = n.once(ctx, "put", func(conn *resp.Conn) error {
		return n.tracked(conn, ns, func() {
			conn.AppendHeader(4 + len(words))
			conn.AppendString("CAIRN.CAS")
			conn.AppendString(name)
			conn.AppendInt(int64(expect))
			conn.AppendArg(p)
			appendStrings(conn, words)
		}, func() error {
			made, err := conn.ReadInt()
			v = Version(made)
			return err
		})
	})
	return v, err
}

// DeleteName removes a named block, or with "block:" in front of its key a sealed
// one, and reports whether it was there. Of the options only Resend counts.
func (n *Node) DeleteName(ctx context.Context, name string, opts ...PutOption) (was bool, err error) {
	send := sender(n.once)
	if options(opts).resend {
		send = n.chain
	}
	err = send(ctx, "delete", func(conn *resp.Conn) error {
		return n.tracked(conn, "", func() { conn.Append("DEL", []byte(name)) }, func() error {
			count, err := conn.ReadInt()
			was = count > 0
			return err
		})
	})
	return was, err
}

// Barrier returns when every change of a name, at any node, that was acknowledged
// before is durable at home or was declared lost, and gives the number of the epoch
// that began. It is for the names of all namespaces; but where one is configured that the
// node does not have, it fails with ErrNamespace.
func (n *Node) Barrier(ctx context.Context) (epoch uint64, err error) {
	err = n.chain(ctx, "barrier", func(conn *resp.Conn) error {
		return n.within(conn, "", func() { conn.Append("CAIRN.BARRIER") }, func() error {
			e, err := conn.ReadInt()
			epoch = uint64(e)
			return err
		})
	})
	return epoch, err
}

// Clear deletes all names of a namespace, "" for the configured one, at once. It is
// never sent twice: see ErrUnknownOutcome.
func (n *Node) Clear(ctx context.Context, ns string) error {
	ns = cmp.Or(ns, n.c.cfg.Namespace)
	if ns == "" {
		return fmt.Errorf("cairn: clear: %w: name one, there is no default for this", ErrNamespace)
	}
	return n.once(ctx, "clear", func(conn *resp.Conn) error {
		return n.tracked(conn, "", func() { conn.Append("CAIRN.CLEAR", []byte(ns)) }, func() error {
			_, err := conn.ReadReply()
			return err
		})
	})
}
