package main

import (
	"context"
	"errors"
	"fmt"

	"cairn/client"
	"cairn/vram"
	"cairn/vram/emulated"
)

const (
	// engineShare: one worker in so many is an engine as well.
	engineShare = 4
	// inPlaceShare: one in so many of its operations, of those that can be, is done in place.
	inPlaceShare = 2
)

// chaosEngine is what a worker has mapped of the nodes' GPU memory.
type chaosEngine struct {
	dev    *emulated.Device
	stream vram.Stream
	maps   map[chaosMap]*client.Device
}

// chaosMap is one mapping: the namespace is that of its connection.
type chaosMap struct {
	space string
	node  int
}

func newChaosEngine() (*chaosEngine, error) {
	dev, err := emulated.New(emulated.Config{Memory: 1 << 16})
	if err != nil {
		return nil, err
	}
	stream, err := dev.NewStream()
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return &chaosEngine{dev: dev, stream: stream, maps: map[chaosMap]*client.Device{}}, nil
}

func (e *chaosEngine) close() {
	for _, d := range e.maps {
		d.Close()
	}
	e.dev.Close()
}

// inPlace tells whether to do an operation of that kind in the node's GPU memory.
func (w *chaosWorker) inPlace(kind chaosKind) bool {
	return w.id < chaosWorkers && w.id%engineShare == 0 && (kind == set || kind == cas || kind == readStrict) && w.rng.IntN(inPlaceShare) == 0
}

// memory is a node's GPU memory, mapped anew after the connection broke. Slots that were
// lost with it stay lost while this process lives, for it may still be writing to them.
func (w *chaosWorker) memory(ctx context.Context, key, at int) (*client.Device, error) {
	if w.engine == nil {
		var err error
		if w.engine, err = newChaosEngine(); err != nil {
			return nil, err
		}
	}
	where := chaosMap{w.l.keys[key].Space, at}
	if d := w.engine.maps[where]; d != nil {
		return d, nil
	}
	n, err := w.space[where.space].Node("unix:" + w.l.nodes[at].socket)
	if err != nil {
		return nil, err
	}
	d, err := n.OpenDevice(ctx, w.engine.dev)
	if err == nil {
		w.engine.maps[where] = d
	}
	return d, err
}

// unmap forgets a mapping whose connection may be of no use any more.
func (w *chaosWorker) unmap(key, at int) {
	where := chaosMap{w.l.keys[key].Space, at}
	if d := w.engine.maps[where]; d != nil {
		d.Close()
		delete(w.engine.maps, where)
	}
}

// changeInPlace is change by way of a slot of GPU memory.
func (w *chaosWorker) changeInPlace(ctx context.Context, o *chaosOp) (err error) {
	p := chaosValue(o.Value)
	var options []client.PutOption
	if o.Through {
		options = append(options, client.WithPolicy(client.WriteThrough))
	}
	if o.Kind == cas {
		options = append(options, client.ExpectVersion(o.Expect))
	}
	slot, err := w.fill(ctx, o, p)
	if err != nil {
		o.Outcome = failed // nobody has been told of the slot
		return err
	}
	o.Version, err = slot.CommitName(ctx, w.l.keys[o.Key].Name, options...)
	var conflict *client.ConflictError
	if errors.As(err, &conflict) {
		o.Version = conflict.Version
	}
	o.Outcome = chaosOutcomeOf(err)
	if err != nil {
		slot.Abort(ctx)
	}
	if err != nil && o.Outcome != refused {
		w.unmap(o.Key, o.Node)
	}
	if err != nil && conflict == nil || o.Kind == set {
		o.Version = 0 // as for a set by any other way
	}
	return err
}

// fill reserves a slot and writes to it.
func (w *chaosWorker) fill(ctx context.Context, o *chaosOp, p []byte) (*client.Slot, error) {
	d, err := w.memory(ctx, o.Key, o.Node)
	if err != nil {
		return nil, err
	}
	slots, err := d.Reserve(ctx, len(p))
	if err == nil {
		err = errors.Join(w.engine.stream.CopyIn(slots[0].Addr(), p), w.engine.stream.Synchronize())
	}
	if err != nil {
		w.unmap(o.Key, o.Node)
		return nil, err
	}
	return slots[0], nil
}

// readInPlace is a strict read of the bytes where they lie.
func (w *chaosWorker) readInPlace(ctx context.Context, o *chaosOp) error {
	o.Outcome = failed
	d, err := w.memory(ctx, o.Key, o.Node)
	if err != nil {
		return err
	}
	view, version, err := d.ViewName(ctx, w.l.keys[o.Key].Name, client.Strict())
	if errors.Is(err, client.ErrNotFound) {
		o.Outcome = done
		return nil
	}
	if err != nil {
		w.unmap(o.Key, o.Node)
		return err
	}
	p := make([]byte, view.Len())
	err = errors.Join(w.engine.stream.CopyOut(p, view.Addr()), w.engine.stream.Synchronize())
	if gone := view.Release(ctx); gone != nil { // what was read may be anything
		w.unmap(o.Key, o.Node)
		return errors.Join(err, gone)
	}
	if err != nil {
		return err
	}
	if o.Value, err = chaosValueID(p); err != nil {
		w.wrong("%s in place at %s: %v", w.l.keys[o.Key], w.l.nodes[o.Node].id, err)
		return fmt.Errorf("in place: %w", err)
	}
	o.Version, o.Outcome = version, done
	return nil
}
