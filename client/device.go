package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"cairn/block"
	"cairn/resp"
	"cairn/vram"
	"cairn/wire"
)

// Device is the GPU memory of a node, for an engine on the same machine that reads and
// writes blocks where they are. It has a connection of its own, over the node's unix
// socket, with which everything ends that it holds: views, slots and regions. Close it in
// any case. All methods, also of what it has given out, may be called in parallel, and run
// one after another.
//
// The node cannot see what an engine does in its memory. An engine writes to a [Slot] until
// it commits it, and reads a [View] until it releases it; both end when the Device does.
// Whatever it has queued on the device must be over by then: synchronise the stream before
// Commit, Abort, Release and Close.
//
// A context that ends while a method waits for the node's answer breaks the connection, and
// so ends the Device; so does [Config.Timeout] where the context has no deadline. One that
// has ended before ends nothing: the method does nothing, and returns its error.
type Device struct {
	n     *Node
	conn  *resp.Conn
	dev   vram.Sharer
	info  DeviceInfo
	arena vram.Addr // of the node's memory, to dev

	// turn has an element while a method runs; its holder uses conn and ended.
	turn  chan struct{}
	ended error
}

// DeviceInfo says what a node's GPU memory is.
type DeviceInfo struct {
	// Name is the device for people; two processes that see the same Kind and ID see the
	// same device, and where ID is empty any device of the kind will do.
	Name, Kind, ID string
	// Bytes is the size of the memory, Classes the sizes of its slots, ascending: a block
	// takes the smallest that it fits.
	Bytes   int64
	Classes []int
	// Held is what engines hold of it, Limit the most that they may, in bytes.
	Held, Limit int64
}

// OpenDevice maps a node's GPU memory for dev, which is the engine's own access to the same
// device and stays the caller's: it must live until Close. An emulated device of any
// process will do where the node's is emulated. The node must be addressed by its unix
// socket, and run as the same user. ErrNoDevice says why there is nothing to map.
func (n *Node) OpenDevice(ctx context.Context, dev vram.Device) (*Device, error) {
	sharer, ok := dev.(vram.Sharer)
	if !ok {
		return nil, fmt.Errorf("cairn: open the GPU memory of %s: %w: %s cannot map memory of another process", n.addr, ErrNoDevice, dev.Name())
	}
	conn, err := resp.Dial(ctx, n.network, n.target, n.c.cfg.conn())
	if err != nil {
		return nil, translate(ctx, "open GPU memory", n.addr, err, false)
	}
	d := &Device{n: n, conn: conn, dev: sharer, turn: make(chan struct{}, 1)}
	if err := d.open(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) open(ctx context.Context) error {
	info, handle, err := d.ask(ctx)
	if err != nil {
		return err
	}
	if i, ok := d.dev.(vram.Identified); ok {
		if kind, id := i.Identity(); kind != info.Kind || id != info.ID {
			return fmt.Errorf("cairn: open the GPU memory of %s: %w: it is %s %s, and the device given is %s %s",
				d.n.addr, ErrNoDevice, info.Kind, info.ID, kind, id)
		}
	}
	if d.arena, _, err = d.dev.Import(handle); err != nil {
		return fmt.Errorf("cairn: open the GPU memory of %s: %w", d.n.addr, err)
	}
	d.info = info
	return nil
}

// ask asks what the memory is.
func (d *Device) ask(ctx context.Context) (info DeviceInfo, handle vram.Handle, err error) {
	err = d.chain(ctx, "open GPU memory", false, func() error {
		d.conn.Append("CAIRN.DEVICE.INFO")
		f, err := wire.ReadFields(d.conn)
		if err != nil {
			return err
		}
		info = DeviceInfo{
			Name: f.Text("name"), Kind: f.Text("kind"), ID: f.Text("id"), Bytes: f.Int("bytes"), Held: f.Int("held"), Limit: f.Int("limit"),
		}
		for _, size := range f["classes"].Elems {
			info.Classes = append(info.Classes, int(size.Int))
		}
		handle = vram.Handle(f.Text("handle"))
		return nil
	})
	return info, handle, err
}

// Info asks the node what its GPU memory is, and how much of it engines hold. That counts
// as a use: an engine from which nothing comes for the node's --device-idle loses what it
// holds.
func (d *Device) Info(ctx context.Context) (DeviceInfo, error) {
	info, _, err := d.ask(ctx)
	return info, err
}

// chain runs f, which uses the connection, as one method. A change whose answer is lost is
// unsure.
func (d *Device) chain(ctx context.Context, op string, unsure bool, f func() error) error {
	if err := ctx.Err(); err != nil { // nothing is sent, so nothing breaks
		return translate(ctx, op, d.n.addr, err, false)
	}
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return translate(ctx, op, d.n.addr, ctx.Err(), false)
	}
	defer func() { <-d.turn }()
	if d.ended != nil {
		return fmt.Errorf("cairn: %s at %s: %w", op, d.n.addr, d.ended)
	}
	d.conn.Begin(ctx)
	err := f()
	d.conn.End()
	broke := !d.conn.Usable()
	if broke {
		d.ended = fmt.Errorf("%w: its connection broke: %w", ErrDeviceClosed, errors.Join(err, context.Cause(ctx)))
		d.conn.Close()
	}
	return translate(ctx, op, d.n.addr, err, unsure && broke)
}

// Close ends everything that the Device has given out and unmaps the node's memory. What
// it has not committed is gone; the node does not use those slots again while this process
// lives, unless Reclaim says that it may. A second Close does nothing.
func (d *Device) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	if d.arena == 0 {
		return nil
	}
	if d.ended == nil {
		d.ended = fmt.Errorf("%w: it is closed", ErrDeviceClosed)
		d.conn.Close()
	}
	arena := d.arena
	d.arena = 0
	if err := d.dev.Unimport(arena); err != nil {
		return fmt.Errorf("cairn: unmap the GPU memory of %s: %w", d.n.addr, err)
	}
	return nil
}

// Reclaim gives the node back the slots that this process has reserved, and not committed,
// over connections that have ended. The caller answers for it that nothing of this process
// writes to them any more: other blocks will be there. It returns how many slots that were.
func (d *Device) Reclaim(ctx context.Context) (slots int, err error) {
	err = d.chain(ctx, "reclaim", false, func() error {
		d.conn.Append("CAIRN.DEVICE.RECLAIM")
		n, err := d.conn.ReadInt()
		slots = int(n)
		return err
	})
	return slots, err
}

// View is a block in the node's GPU memory that stays where it is.
type View struct {
	d      *Device
	key    block.Key // of the object, where it was found by a name
	number int64
	at     vram.Addr
	length int
	sum    uint64
	ended  bool // guarded by Device.turn
}

// Addr is where the bytes begin, to the device that OpenDevice was given. They are
// read-only.
func (v *View) Addr() vram.Addr { return v.at }

// Len is how many bytes there are.
func (v *View) Len() int { return v.length }

// Key is the block's; zero of a view that was found by a name.
func (v *View) Key() block.Key { return v.key }

// Checksum is the xxh3-64 of the bytes. The node has not compared it with what is in GPU
// memory now.
func (v *View) Checksum() uint64 { return v.sum }

// Release ends the view. ErrSlot and ErrDeviceClosed say that it had ended before: what
// was read since may be anything, so throw away what came of it. A second Release does
// nothing.
func (v *View) Release(ctx context.Context) error {
	return v.d.chain(ctx, "release", false, func() error {
		if v.ended {
			return nil
		}
		v.ended = true
		return v.d.give("CAIRN.DEVICE.UNMAP", v.number)
	})
}

// give gives a pin or a slot back.
func (d *Device) give(command string, number int64) error {
	d.conn.AppendHeader(2)
	d.conn.AppendString(command)
	d.conn.AppendInt(number)
	there, err := d.conn.ReadInt()
	if err == nil && there == 0 {
		err = resp.ServerError(wire.CodeSlot + " the node had taken it away: nothing came from this connection for too long")
	}
	return err
}

// viewOf reads where a block is pinned; nil: it is not.
func (d *Device) viewOf(key block.Key, e resp.Value, more int) (*View, error) {
	if e.Kind == resp.Null {
		return nil, nil
	}
	if e.Kind != resp.Array || len(e.Elems) != 4+more {
		return nil, fmt.Errorf("%w: want where a block is", resp.ErrProtocol)
	}
	sum, err := wire.ParseSum(e.Elems[3].Text())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", resp.ErrProtocol, err)
	}
	return &View{d: d, key: key, number: e.Elems[0].Int, at: d.arena + vram.Addr(e.Elems[1].Int), length: int(e.Elems[2].Int), sum: sum}, nil
}

// View pins blocks in GPU memory, of which it says where they are. One that is not there
// is nil: Sequence.Onboard brings blocks there. On error nothing is pinned. ErrPinned
// says that engines hold as much of GPU memory as they may.
func (d *Device) View(ctx context.Context, keys []block.Key) (views []*View, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	err = d.chain(ctx, "view", false, func() error {
		d.conn.AppendHeader(2 + len(keys))
		d.conn.AppendString("CAIRN.DEVICE.MAP")
		d.conn.AppendString("KEYS")
		for i := range keys {
			d.conn.AppendArg(keys[i][:])
		}
		v, err := d.conn.ReadReply()
		if err == nil && len(v.Elems) != len(keys) {
			err = fmt.Errorf("%w: %d answers for %d keys", resp.ErrProtocol, len(v.Elems), len(keys))
		}
		if err != nil {
			return err
		}
		views = make([]*View, len(keys))
		for i, e := range v.Elems {
			if views[i], err = d.viewOf(keys[i], e, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return views, nil
}

// ViewName pins the newest version of a named block in GPU memory, where the node brings
// it first if need be. See GetOption for how fresh it is. A name that does not exist is
// ErrNotFound.
func (d *Device) ViewName(ctx context.Context, name string, opts ...GetOption) (view *View, v Version, err error) {
	var o getOptions
	for _, f := range opts {
		f(&o)
	}
	session := int64(d.n.c.session.sequence.Load())
	if d.n.c.session.blind.Load() && (o.level == bySession || o.level == byNamespace) {
		o.level = strict
	}
	words := []string{"CAIRN.DEVICE.MAP", "NAME", name}
	switch o.level {
	case strict:
		words = append(words, "STRICT")
	case bySession:
		words = append(words, "SESSION", strconv.FormatInt(session, 10))
	case bounded:
		words = append(words, "BOUNDED", strconv.FormatInt(milliseconds(o.bound), 10))
	case local:
		words = append(words, "LOCAL")
	}
	err = d.chain(ctx, "view", false, func() error {
		if _, err := d.resume(session); err != nil {
			return err
		}
		return d.n.tracked(d.conn, "", func() {
			d.conn.AppendHeader(len(words))
			appendStrings(d.conn, words)
		}, func() error {
			e, err := d.conn.ReadReply()
			if err != nil {
				return err
			}
			if view, err = d.viewOf(block.Key{}, e, 1); err == nil && view != nil {
				v = Version(e.Elems[4].Int)
			}
			return err
		})
	})
	if err == nil && view == nil {
		err = fmt.Errorf("cairn: view %.64q at %s: %w", name, d.n.addr, ErrNotFound)
	}
	return view, v, err
}

// resume tells the connection how far the client has seen the log.
func (d *Device) resume(session int64) (int64, error) {
	if session == 0 {
		return 0, nil
	}
	d.conn.AppendHeader(2)
	d.conn.AppendString("CAIRN.SESSION")
	d.conn.AppendInt(session)
	return d.conn.ReadInt()
}
