package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/ledger"
	"cairn/resp"
	"cairn/tier"
	"cairn/wire"
)

// deviceCommands are those of engines on this machine that work in the node's GPU memory
// in place. They are served on unix sockets alone.
func deviceCommands() commandTable {
	const tail = "(KEY key parent|- [POLICY policy] [PIN] | NAME name [EXPECT version] [POLICY policy] [PIN])"
	return commandTable{
		"CAIRN.DEVICE.INFO":     {arity: 1, do: onDevice((*session).deviceInfo)},
		"CAIRN.DEVICE.MAP":      {arity: -3, usage: "(KEYS key… | NAME name [STRICT | SESSION [sequence] | BOUNDED ms | LOCAL])", do: onDevice((*session).deviceMap)},
		"CAIRN.DEVICE.UNMAP":    {arity: -2, usage: "pin…", do: onDevice(deviceGive((*deviceConn).unpin))},
		"CAIRN.DEVICE.RESERVE":  {arity: -2, usage: "length…", do: onDevice((*session).deviceReserve)},
		"CAIRN.DEVICE.COMMIT":   {arity: -4, usage: "slot " + tail, do: onDevice((*session).deviceCommit)},
		"CAIRN.DEVICE.ABORT":    {arity: -2, usage: "slot…", do: onDevice(deviceGive((*deviceConn).abort))},
		"CAIRN.DEVICE.IMPORT":   {arity: 2, usage: "handle", do: onDevice((*session).deviceImport)},
		"CAIRN.DEVICE.UNIMPORT": {arity: 2, usage: "region", do: onDevice((*session).deviceUnimport)},
		"CAIRN.DEVICE.STORE":    {arity: -6, usage: "region offset length " + tail, do: onDevice((*session).deviceStore)},
		"CAIRN.DEVICE.LOAD":     {arity: 5, usage: "region offset room key", do: onDevice((*session).deviceLoad)},
		"CAIRN.DEVICE.RECLAIM":  {arity: 1, do: onDevice((*session).deviceReclaim)},
	}
}

// deviceCommand answers a command about what the connection holds of GPU memory.
type deviceCommand func(s *session, ctx context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error

func onDevice(do deviceCommand) func(*session, context.Context, *resp.Writer, [][]byte) {
	return func(s *session, ctx context.Context, w *resp.Writer, args [][]byte) {
		c, err := s.device()
		if err == nil {
			c.begin()
			err = do(s, ctx, w, c, args)
			c.end()
		}
		if err != nil {
			s.refuse(w, args, err)
		}
	}
}

// parseNumbers reads numbers of slots, pins or regions.
func parseNumbers(args [][]byte) ([]uint64, error) {
	numbers := make([]uint64, len(args))
	for i, arg := range args {
		n, ok := parseNumber(arg)
		if !ok {
			return nil, fmt.Errorf("%w: %q: want a number that this connection was given", ErrSlot, printable(arg))
		}
		numbers[i] = n
	}
	return numbers, nil
}

// deviceInfo is CAIRN.DEVICE.INFO.
func (s *session) deviceInfo(_ context.Context, w *resp.Writer, c *deviceConn, _ [][]byte) error {
	a, err := c.d.store.Arena()
	if err != nil {
		return c.d.noted(err)
	}
	st := c.d.status()
	w.Map(12)
	text(w, "name", a.Name)
	text(w, "kind", a.Kind)
	text(w, "id", a.ID)
	text(w, "handle", string(a.Handle))
	number(w, "bytes", a.Bytes)
	number(w, "alignment", a.Alignment)
	w.BulkString("classes")
	w.Array(len(a.Classes))
	for _, size := range a.Classes {
		w.Int(int64(size))
	}
	number(w, "held", st.Held)
	number(w, "limit", st.Limit)
	number(w, "quarantined", int64(st.Quarantined))
	number(w, "holds", int64(len(c.slots)+len(c.pins)))
	number(w, "idle_ms", s.n.cfg.DeviceIdle.Milliseconds())
	return nil
}

// deviceMap is CAIRN.DEVICE.MAP KEYS key… or NAME name [level].
func (s *session) deviceMap(ctx context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	switch what := strings.ToUpper(string(args[1])); what {
	case "KEYS":
		keys, err := parseKeys(args[2:])
		if err != nil {
			return err
		}
		if len(keys) > s.n.cfg.MaxBatch {
			return fmt.Errorf("%d keys, max-batch is %d", len(keys), s.n.cfg.MaxBatch)
		}
		numbers, at, err := c.pin(keys)
		if err != nil {
			return err
		}
		w.Array(len(keys))
		for i, number := range numbers {
			if number == 0 {
				w.NullArray()
				continue
			}
			writePinned(w, 4, number, at[i])
		}
		return nil
	case "NAME":
		o, err := s.parseReads(args[3:])
		if err == nil {
			err = checkName(args[2])
		}
		if err != nil {
			return err
		}
		at, state, err := c.d.findName(ctx, s.namespace.Name, args[2], o)
		s.saw(state.Sequence)
		if errors.Is(err, tier.ErrNotFound) {
			w.NullArray()
			return nil
		}
		if err != nil {
			return err
		}
		number, err := c.keep(at)
		if err != nil {
			return err
		}
		writePinned(w, 5, number, at)
		w.Int(int64(state.Version))
		return nil
	}
	return errArguments
}

// writePinned begins an array of so many elements with where a block lies: the number of the
// pin, offset, length, checksum.
func writePinned(w *resp.Writer, elements int, number uint64, at tier.Placed) {
	w.Array(elements)
	w.Int(int64(number))
	w.Int(at.Offset)
	w.Int(int64(at.Length))
	w.BulkString(wire.FormatSum(at.Sum))
}

// deviceGive is CAIRN.DEVICE.UNMAP and CAIRN.DEVICE.ABORT.
func deviceGive(give func(*deviceConn, []uint64) int) deviceCommand {
	return func(_ *session, _ context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
		numbers, err := parseNumbers(args[1:])
		if err == nil {
			w.Int(int64(give(c, numbers)))
		}
		return err
	}
}

// deviceReserve is CAIRN.DEVICE.RESERVE length….
func (s *session) deviceReserve(ctx context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	lengths := make([]int, len(args)-1)
	for i, arg := range args[1:] {
		n, err := parseLength(arg)
		if err != nil {
			return err
		}
		lengths[i] = n
	}
	numbers, slots, err := c.reserve(ctx, lengths)
	if err != nil {
		return err
	}
	w.Array(len(slots))
	for i, slot := range slots {
		w.Array(2)
		w.Int(int64(numbers[i]))
		w.Int(slot.Offset())
	}
	return nil
}

func parseLength(arg []byte) (int, error) {
	n, err := strconv.Atoi(string(arg))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("length %q: want a number of bytes above 0", printable(arg))
	}
	return n, nil
}

// deviceTarget is what a slot is to become.
type deviceTarget struct {
	key, parent block.Key // of a sealed block
	name        []byte    // nil: a sealed block
	o           NameOptions
	pin         bool
}

// parseDeviceTarget reads KEY key parent|- [POLICY policy] [PIN], or NAME name [EXPECT
// version] [POLICY policy] [PIN].
func (s *session) parseDeviceTarget(args [][]byte) (t deviceTarget, err error) {
	t.o.Policy = s.namespace.Policy
	switch what := strings.ToUpper(string(args[0])); {
	case what == "KEY" && len(args) >= 3:
		if t.key, err = parseKey(args[1]); err == nil && string(args[2]) != "-" {
			t.parent, err = parseKey(args[2])
		}
		if err == nil && (t.key.IsZero() || t.key.Named()) {
			err = fmt.Errorf("%w: %s", ErrKey, t.key)
		}
		args = args[3:]
	case what == "NAME" && len(args) >= 2:
		t.name, args, err = args[1], args[2:], checkName(args[1])
	default:
		return t, errArguments
	}
	for err == nil && len(args) > 0 {
		word := strings.ToUpper(string(args[0]))
		switch {
		case word == "PIN":
			t.pin, args = true, args[1:]
			continue
		case word == "POLICY" && len(args) > 1:
			t.o.Policy, err = coherency.ParseWritePolicy(string(args[1]))
		case word == "EXPECT" && len(args) > 1 && t.name != nil:
			version, ok := parseNumber(args[1])
			if !ok {
				return t, errNotInteger
			}
			t.o.If, t.o.Expect = ledger.Exactly, ledger.Version(version)
		default:
			return t, errArguments
		}
		args = args[2:]
	}
	return t, err
}

// deviceCommit is CAIRN.DEVICE.COMMIT slot target.
func (s *session) deviceCommit(ctx context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	numbers, err := parseNumbers(args[1:2])
	if err != nil {
		return err
	}
	slot, err := c.slot(numbers[0])
	if err != nil {
		return err
	}
	t, err := s.parseDeviceTarget(args[2:])
	if err != nil {
		return err
	}
	return s.commitSlot(ctx, w, c, slot, t, func() { delete(c.slots, numbers[0]) })
}

// commitSlot makes a slot a block and answers. done is called when the slot is used up.
func (s *session) commitSlot(ctx context.Context, w *resp.Writer, c *deviceConn, slot tier.DeviceSlot, t deviceTarget, done func()) error {
	var at tier.Placed
	var placed Placed
	var change NameChange
	var err error
	if t.name == nil {
		placed, at, err = c.d.commitBlock(ctx, slot, t.key, t.parent, t.o.Policy)
	} else {
		change, at, err = c.d.commitName(ctx, slot, s.namespace.Name, t.name, t.o)
		s.saw(change.Sequence)
	}
	switch {
	case errors.Is(err, ErrCondition):
		return resp.ServerError(wire.Conflict(wire.Version(change.After.Version), "the name has another version than expected"))
	case err != nil:
		return err
	}
	done()
	pin := uint64(0)
	if !t.pin || at.Key.IsZero() {
		at.Release()
	} else if pin, err = c.keep(at); err != nil {
		pin = 0 // the block is there all the same, and that is what counts
	}
	w.Map(5)
	if t.name == nil {
		number(w, "stored", map[bool]int64{false: 1}[placed.Existed])
		text(w, "token", placed.Token.String())
	} else {
		number(w, "stored", 1)
		number(w, "version", int64(change.After.Version))
	}
	number(w, "pin", int64(pin))
	number(w, "offset", at.Offset)
	text(w, "sum", wire.FormatSum(at.Sum))
	return nil
}

// deviceImport is CAIRN.DEVICE.IMPORT handle.
func (s *session) deviceImport(_ context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	number, size, err := c.importRegion(args[1])
	if err != nil {
		return err
	}
	w.Array(2)
	w.Int(int64(number))
	w.Int(size)
	return nil
}

// deviceUnimport is CAIRN.DEVICE.UNIMPORT region.
func (s *session) deviceUnimport(_ context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	numbers, err := parseNumbers(args[1:])
	if err != nil {
		return err
	}
	r, err := c.region(numbers[0])
	if err != nil {
		return err
	}
	delete(c.regions, numbers[0])
	c.closeRegion(r)
	w.Status("OK")
	return nil
}

// regionAt reads region offset length.
func (c *deviceConn) regionAt(args [][]byte) (r tier.Region, offset int64, length int, err error) {
	numbers, err := parseNumbers(args[:1])
	if err == nil {
		r, err = c.region(numbers[0])
	}
	if err != nil {
		return nil, 0, 0, err
	}
	at, ok := parseNumber(args[1])
	if !ok {
		return nil, 0, 0, errNotInteger
	}
	length, err = parseLength(args[2])
	if err == nil && (int64(at) > r.Size() || int64(length) > r.Size()-int64(at)) {
		err = fmt.Errorf("%d bytes at %d: the region has %d", length, at, r.Size())
	}
	return r, int64(at), length, err
}

// deviceStore is CAIRN.DEVICE.STORE region offset length target.
func (s *session) deviceStore(ctx context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	r, offset, length, err := c.regionAt(args[1:])
	if err != nil {
		return err
	}
	t, err := s.parseDeviceTarget(args[4:])
	if err != nil {
		return err
	}
	slot, err := c.d.reserve(ctx, length)
	if err != nil {
		return err
	}
	used := false
	if err = c.d.noted(r.Store(slot, offset)); err == nil {
		err = s.commitSlot(ctx, w, c, slot, t, func() { used = true })
	}
	if !used {
		c.d.abort(slot) // nobody but the node knows where it is
	}
	return err
}

// deviceLoad is CAIRN.DEVICE.LOAD region offset room key.
func (s *session) deviceLoad(_ context.Context, w *resp.Writer, c *deviceConn, args [][]byte) error {
	r, offset, room, err := c.regionAt(args[1:])
	if err != nil {
		return err
	}
	key, err := parseKey(args[4])
	if err != nil {
		return err
	}
	at, err := c.d.find(key)
	if errors.Is(err, tier.ErrNotFound) {
		w.NullArray()
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Release()
	if int(at.Length) > room {
		return fmt.Errorf("%w: %d bytes for a block of %d", tier.ErrShortBuffer, room, at.Length)
	}
	if err := c.d.noted(r.Load(at, offset)); err != nil {
		return err
	}
	w.Array(2)
	w.Int(int64(at.Length))
	w.BulkString(wire.FormatSum(at.Sum))
	return nil
}

// deviceReclaim is CAIRN.DEVICE.RECLAIM.
func (s *session) deviceReclaim(_ context.Context, w *resp.Writer, c *deviceConn, _ [][]byte) error {
	w.Int(int64(c.d.reclaim(c.process.pid)))
	return nil
}
