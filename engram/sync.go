package engram

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"cairn/coherency"
	"cairn/tier"
	"cairn/vram"
)

// SyncAll syncs every engram that is dirty, in the order of ids, many copies to an event,
// and with one call of the driver where the device's streams can do that. One that
// fails stays as it was and does not keep the others from being synced: the error joins
// all failures, in the order of ids.
func (m *Manager) SyncAll(ctx context.Context) error {
	ids, engrams := m.list()
	errs := make([]error, len(ids))
	var later []int // somebody else is at work on them
	var b batch
	flush := func() {
		for i, err := range b.carry(ctx) {
			errs[b.index[i]] = err
		}
		b = batch{}
	}
	for i, e := range engrams {
		e.mu.Lock()
		t, err := e.planLocked((*coherency.Mirror).Sync)
		e.mu.Unlock()
		switch {
		case errors.Is(err, coherency.ErrCurrent):
			continue
		case errors.Is(err, coherency.ErrInFlight):
			later = append(later, i)
			continue
		case err != nil:
			errs[i] = err
			continue
		}
		if b.add(i, t); len(b.moves) >= m.cfg.Batch || b.bytes >= m.cfg.BatchBytes {
			flush()
		}
	}
	flush()
	for i, err := range errs {
		// What was overtaken by a write is as dirty as before.
		if errors.Is(err, coherency.ErrStale) {
			errs[i] = nil
			later = append(later, i)
		}
	}
	for _, i := range later {
		errs[i] = engrams[i].Sync(ctx)
	}
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("engram: sync %d: %w", ids[i], err)
		}
	}
	return errors.Join(errs...)
}

// batch is copies that have begun, to and from any device.
type batch struct {
	moves []*transfer
	index []int // of the engram
	bytes int64
}

func (b *batch) add(i int, t *transfer) {
	b.moves = append(b.moves, t)
	b.index = append(b.index, i)
	b.bytes += int64(t.copy.Content.Length)
}

// carry ends every copy and returns how each went. A group that fails is copied once
// more one by one, so that a copy that cannot be made takes no other with it.
func (b *batch) carry(ctx context.Context) []error {
	errs := make([]error, len(b.moves))
	groups := map[group][]*transfer{}
	var order []group // as they come first
	for i, t := range b.moves {
		if errs[i] = t.prepare(); errs[i] != nil || len(t.bytes) == 0 {
			continue
		}
		g := group{t.mem, t.copy.To}
		if _, ok := groups[g]; !ok {
			order = append(order, g)
		}
		groups[g] = append(groups[g], t)
	}
	failed := map[*transfer]error{}
	for _, g := range order {
		moves := groups[g]
		err := g.carry(ctx, moves)
		for _, t := range moves {
			switch {
			case err == nil:
			case len(moves) == 1, ctx.Err() != nil, errors.Is(err, tier.ErrDeviceLost), errors.Is(err, tier.ErrClosed):
				failed[t] = err
			default:
				failed[t] = t.again(ctx)
			}
		}
	}
	for i, t := range b.moves {
		errs[i] = t.end(errors.Join(errs[i], failed[t]))
	}
	return errs
}

// again copies what prepare has made memory for.
func (t *transfer) again(ctx context.Context) error {
	if t.copy.To == Host {
		t.bytes = make([]byte, len(t.bytes)) // the batch may be writing to the other still
		return t.held.copyOut(ctx, t.bytes)
	}
	return t.held.copyIn(ctx, t.bytes)
}

// group is copies in one direction of one device.
type group struct {
	mem *Memory
	to  Side
}

func (g group) carry(ctx context.Context, moves []*transfer) error {
	addrs := make([]vram.Addr, len(moves))
	bytes := make([][]byte, len(moves))
	held := make([]*buffer, len(moves))
	for i, t := range moves {
		addrs[i], bytes[i], held[i] = t.held.addr, t.bytes, t.held.hold()
	}
	over := func() {
		runtime.KeepAlive(bytes)
		for _, b := range held {
			_ = b.drop()
		}
	}
	if g.to == Device {
		return g.mem.run(ctx, &g.mem.in, func(s vram.Stream) (int, error) { return queueIn(s, addrs, bytes) }, over)
	}
	return g.mem.run(ctx, &g.mem.out, func(s vram.Stream) (int, error) { return queueOut(s, bytes, addrs) }, over)
}

func queueIn(s vram.Stream, dst []vram.Addr, src [][]byte) (queued int, err error) {
	if b, ok := s.(vram.BatchStream); ok && len(dst) > 1 {
		return 0, b.CopyInBatch(dst, src)
	}
	for i := range dst {
		if err := s.CopyIn(dst[i], src[i]); err != nil {
			return i, err
		}
	}
	return len(dst), nil
}

func queueOut(s vram.Stream, dst [][]byte, src []vram.Addr) (queued int, err error) {
	if b, ok := s.(vram.BatchStream); ok && len(dst) > 1 {
		return 0, b.CopyOutBatch(dst, src)
	}
	for i := range dst {
		if err := s.CopyOut(dst[i], src[i]); err != nil {
			return i, err
		}
	}
	return len(dst), nil
}
