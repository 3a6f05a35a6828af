package client

import (
	"context"
	"errors"
	"fmt"

	"cairn/block"
	"cairn/resp"
	"cairn/vram"
)

// Region is memory of the engine that the node has mapped: blocks are copied from and to
// it on the device, for an engine that keeps its blocks where it wants to. Offsets count
// bytes from its beginning.
type Region struct {
	d      *Device
	number int64
	size   int64
}

// Import lets the node map an allocation of the device that OpenDevice was given, which
// must not be freed before Close.
func (d *Device) Import(ctx context.Context, a vram.Addr) (*Region, error) {
	handle, err := d.dev.Export(a)
	if err != nil {
		return nil, fmt.Errorf("cairn: import: %w", err)
	}
	r := &Region{d: d}
	err = d.chain(ctx, "import", false, func() error {
		d.conn.Append("CAIRN.DEVICE.IMPORT", handle)
		v, err := d.conn.ReadReply()
		if err == nil && len(v.Elems) != 2 {
			err = fmt.Errorf("%w: want number and size of a region", resp.ErrProtocol)
		}
		if err == nil {
			r.number, r.size = v.Elems[0].Int, v.Elems[1].Int
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Size is in bytes; it may be rounded up from what was allocated.
func (r *Region) Size() int64 { return r.size }

// Close lets the node unmap the memory.
func (r *Region) Close(ctx context.Context) error {
	return r.d.chain(ctx, "unimport", false, func() error {
		r.d.conn.AppendHeader(2)
		r.d.conn.AppendString("CAIRN.DEVICE.UNIMPORT")
		r.d.conn.AppendInt(r.number)
		_, err := r.d.conn.ReadStatus()
		return err
	})
}

// begin appends a command about a piece of the region.
func (r *Region) begin(command string, offset int64, length, more int) {
	r.d.conn.AppendHeader(4 + more)
	r.d.conn.AppendString(command)
	r.d.conn.AppendInt(r.number)
	r.d.conn.AppendInt(offset)
	r.d.conn.AppendInt(int64(length))
}

// Store makes a copy of length bytes at an offset the sealed block key; see Slot.Commit.
// The bytes must not change meanwhile.
func (r *Region) Store(ctx context.Context, offset int64, length int, key, parent block.Key, opts ...PutOption) (stored bool, err error) {
	words := keyTarget(key, parent, options(opts), false)
	err = r.d.chain(ctx, "store", false, func() error {
		r.begin("CAIRN.DEVICE.STORE", offset, length, len(words))
		appendStrings(r.d.conn, words)
		_, stored, err = r.d.committed(key, length)
		return err
	})
	return stored, err
}

// StoreName makes a copy of length bytes at an offset the newest version of a named block;
// see Slot.CommitName.
func (r *Region) StoreName(ctx context.Context, offset int64, length int, name string, opts ...PutOption) (Version, error) {
	o, err := slotOptions(name, opts)
	if err != nil {
		return 0, err
	}
	return r.d.commitName(ctx, nameTarget(name, o), func(words int) { r.begin("CAIRN.DEVICE.STORE", offset, length, words) })
}

// Load copies a block that is in the node's GPU memory to an offset, where there is room
// for so many bytes, and returns the block's length. One that is not there is ErrNotFound:
// Sequence.Onboard brings it there.
func (r *Region) Load(ctx context.Context, offset int64, room int, key block.Key) (length int, err error) {
	err = r.d.chain(ctx, "load", false, func() error {
		r.begin("CAIRN.DEVICE.LOAD", offset, room, 1)
		r.d.conn.AppendArg(key[:])
		v, err := r.d.conn.ReadReply()
		switch {
		case err != nil:
		case v.Kind == resp.Null:
			err = resp.ErrNil
		case len(v.Elems) != 2:
			err = fmt.Errorf("%w: want length and checksum", resp.ErrProtocol)
		default:
			length = int(v.Elems[0].Int)
		}
		return err
	})
	if errors.Is(err, resp.ErrNil) {
		err = fmt.Errorf("cairn: load %s at %s: %w", key, r.d.n.addr, ErrNotFound)
	}
	return length, err
}
