package client

import (
	"context"
	"fmt"

	"cairn/block"
	"cairn/resp"
	"cairn/vram"
	"cairn/wire"
)

// Slot is a piece of the node's GPU memory that the engine fills, and commits as a block.
// Nobody else sees it before.
type Slot struct {
	d      *Device
	number int64
	at     vram.Addr
	length int
}

// Addr is where the slot begins, to the device that OpenDevice was given.
func (s *Slot) Addr() vram.Addr { return s.at }

// Len is how many bytes it has.
func (s *Slot) Len() int { return s.length }

// Reserve takes slots of these lengths in bytes, all or none. The node evicts blocks for
// them. Each ends with Commit, CommitView, CommitName or Abort.
func (d *Device) Reserve(ctx context.Context, lengths ...int) (slots []*Slot, err error) {
	if len(lengths) == 0 {
		return nil, nil
	}
	err = d.chain(ctx, "reserve", false, func() error {
		d.conn.AppendHeader(1 + len(lengths))
		d.conn.AppendString("CAIRN.DEVICE.RESERVE")
		for _, n := range lengths {
			d.conn.AppendInt(int64(n))
		}
		v, err := d.conn.ReadReply()
		if err == nil && len(v.Elems) != len(lengths) {
			err = fmt.Errorf("%w: %d slots for %d lengths", resp.ErrProtocol, len(v.Elems), len(lengths))
		}
		if err != nil {
			return err
		}
		for i, e := range v.Elems {
			if len(e.Elems) != 2 {
				return fmt.Errorf("%w: want number and offset of a slot", resp.ErrProtocol)
			}
			slots = append(slots, &Slot{d: d, number: e.Elems[0].Int, at: d.arena + vram.Addr(e.Elems[1].Int), length: lengths[i]})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return slots, nil
}

// Abort gives the slot back, for other blocks to be there.
func (s *Slot) Abort(ctx context.Context) error {
	return s.d.chain(ctx, "abort", false, func() error { return s.d.give("CAIRN.DEVICE.ABORT", s.number) })
}

// Commit makes the slot the sealed block key, the successor of parent in its sequence
// (zero: the first). What the engine has queued to write must be over, and it must not
// write there any more. stored tells that the node did not have the block yet. Of the
// options, WithPolicy counts. After an error the slot is as before and may be committed
// again, for example after ErrFull, or aborted.
func (s *Slot) Commit(ctx context.Context, key, parent block.Key, opts ...PutOption) (stored bool, err error) {
	_, stored, err = s.commitKey(ctx, key, parent, options(opts), false)
	return stored, err
}

// CommitView is Commit, and gives a view of the block, so that the engine can go on reading
// what it has written. Where the node had the block in GPU memory already that is another
// place than the slot's. The view is nil if the node could not pin the block.
func (s *Slot) CommitView(ctx context.Context, key, parent block.Key, opts ...PutOption) (view *View, stored bool, err error) {
	return s.commitKey(ctx, key, parent, options(opts), true)
}

func (s *Slot) commitKey(ctx context.Context, key, parent block.Key, o putOptions, pin bool) (view *View, stored bool, err error) {
	words := keyTarget(key, parent, o, pin)
	err = s.d.chain(ctx, "commit", false, func() error { // it may be sent again: a block is there once
		s.d.conn.AppendHeader(2 + len(words))
		s.d.conn.AppendString("CAIRN.DEVICE.COMMIT")
		s.d.conn.AppendInt(s.number)
		appendStrings(s.d.conn, words)
		view, stored, err = s.d.committed(key, s.length)
		return err
	})
	return view, stored, err
}

// keyTarget is the words that say which block a slot is to become.
func keyTarget(key, parent block.Key, o putOptions, pin bool) []string {
	words := []string{"KEY", key.String(), "-"}
	if !parent.IsZero() {
		words[2] = parent.String()
	}
	if o.policy != "" {
		words = append(words, "POLICY", o.policy)
	}
	if pin {
		words = append(words, "PIN")
	}
	return words
}

// nameTarget is the words that say which name a slot is to become the newest version of.
func nameTarget(name string, o putOptions) []string {
	words := []string{"NAME", name}
	switch {
	case o.expects:
		words = append(words, "EXPECT", fmt.Sprint(uint64(o.expect)))
	case o.ifAbsent:
		words = append(words, "EXPECT", "0")
	}
	if o.policy != "" {
		words = append(words, "POLICY", o.policy)
	}
	return words
}

// committed reads what became of a sealed block.
func (d *Device) committed(key block.Key, length int) (view *View, stored bool, err error) {
	f, err := wire.ReadFields(d.conn)
	if err != nil {
		return nil, false, err
	}
	token, err := wire.ParseToken(f.Text("token"))
	if err != nil {
		return nil, false, err
	}
	d.n.c.remember(token)
	if number := f.Int("pin"); number != 0 {
		sum, err := wire.ParseSum(f.Text("sum"))
		if err != nil {
			return nil, false, err
		}
		view = &View{d: d, key: key, number: number, at: d.arena + vram.Addr(f.Int("offset")), length: length, sum: sum}
	}
	return view, f.Int("stored") == 1, nil
}

// CommitName makes the slot the newest version of a named block, and returns that version.
// The rest is as of Commit and of PutName; of the options, WithPolicy, ExpectVersion and
// IfAbsent count. A name that is not as expected is a ConflictError. A change whose
// answer was lost is ErrUnknownOutcome.
func (s *Slot) CommitName(ctx context.Context, name string, opts ...PutOption) (Version, error) {
	o, err := slotOptions(name, opts)
	if err != nil {
		return 0, err
	}
	return s.d.commitName(ctx, nameTarget(name, o), func(words int) {
		s.d.conn.AppendHeader(2 + words)
		s.d.conn.AppendString("CAIRN.DEVICE.COMMIT")
		s.d.conn.AppendInt(s.number)
	})
}

// slotOptions checks the options of a change of a name by a slot.
func slotOptions(name string, opts []PutOption) (putOptions, error) {
	o := options(opts)
	if o.ifPresent || o.ttl > 0 {
		return o, fmt.Errorf("cairn: commit %.64q: neither IfPresent nor WithTTL goes with GPU memory: read the version, and expect it", name)
	}
	return o, o.named(name)
}

// commitName sends a command that begins with what begin appends and ends with words.
func (d *Device) commitName(ctx context.Context, words []string, begin func(words int)) (v Version, err error) {
	err = d.chain(ctx, "commit", true, func() error {
		return d.n.tracked(d.conn, "", func() {
			begin(len(words))
			appendStrings(d.conn, words)
		}, func() error {
			f, err := wire.ReadFields(d.conn)
			v = Version(f.Int("version"))
			return err
		})
	})
	return v, err
}
