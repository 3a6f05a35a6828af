package client_test

import (
	"slices"
	"strconv"
	"strings"

	"cairn/block"
	"cairn/resp"
	"cairn/vram"
	"cairn/vram/emulated"
	"cairn/wire"
)

// fakeMemory is the GPU memory of a server: slots of one size, of which each is used once.
type fakeMemory struct {
	dev    *emulated.Device
	stream vram.Stream
	arena  vram.Addr
	handle vram.Handle
	next   int64 // offset
	slots  map[int64]fakeSlot
	blocks map[block.Key]fakeSlot // committed in place
	pins   map[int64]bool
	number int64
}

type fakeSlot struct {
	offset int64
	length int
}

const fakeSlotSize = 64 << 10

// withMemory gives a server GPU memory, which ends with its device.
func (s *server) withMemory(dev *emulated.Device) (err error) {
	m := &fakeMemory{dev: dev, slots: map[int64]fakeSlot{}, blocks: map[block.Key]fakeSlot{}, pins: map[int64]bool{}}
	if m.stream, err = dev.NewStream(); err != nil {
		return err
	}
	if m.arena, err = dev.Alloc(16 * fakeSlotSize); err != nil {
		return err
	}
	m.handle, err = dev.Export(m.arena)
	s.memory = m
	return err
}

// bytes is what lies in a slot.
func (m *fakeMemory) bytes(s fakeSlot) []byte {
	p := make([]byte, s.length)
	if m.stream.CopyOut(p, m.arena+vram.Addr(s.offset)) != nil || m.stream.Synchronize() != nil {
		return nil
	}
	return p
}

func (m *fakeMemory) pin() int64 {
	m.number++
	m.pins[m.number] = true
	return m.number
}

func (c *session) doDevice(w *resp.Writer, call []string, args [][]byte) bool {
	if !strings.HasPrefix(call[0], "CAIRN.DEVICE.") {
		return false
	}
	m := c.s.memory
	if m == nil {
		w.Error(wire.CodeDevice + " this node has none")
		return true
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(call[i], 10, 64); return n }
	switch call[0] {
	case "CAIRN.DEVICE.INFO":
		fields(w, "name", "emulated", "kind", "emulated", "id", "", "handle", string(m.handle), "bytes", 16*fakeSlotSize, "held", 0, "limit", 8*fakeSlotSize)
	case "CAIRN.DEVICE.RESERVE":
		w.Array(len(call) - 1)
		for i := range call[1:] {
			m.number++
			m.slots[m.number] = fakeSlot{m.next, int(number(1 + i))}
			w.Array(2)
			w.Int(m.number)
			w.Int(m.next)
			m.next += fakeSlotSize
		}
	case "CAIRN.DEVICE.ABORT", "CAIRN.DEVICE.UNMAP":
		_, slot := m.slots[number(1)]
		if slot || m.pins[number(1)] {
			w.Int(1)
		} else {
			w.Int(0)
		}
		delete(m.slots, number(1))
		delete(m.pins, number(1))
	case "CAIRN.DEVICE.COMMIT":
		slot, ok := m.slots[number(1)]
		if !ok {
			w.Error(wire.CodeSlot + " no such slot")
			return true
		}
		delete(m.slots, number(1))
		p, pin := m.bytes(slot), int64(0)
		if call[2] == "NAME" {
			v := c.s.log.set("default\x00"+call[3], p, true)
			fields(w, "stored", 1, "version", int(v), "pin", 0, "offset", 0, "sum", wire.FormatSum(0))
			return true
		}
		k, err := block.ParseKey(call[3])
		if err != nil {
			w.Error("ERR " + err.Error())
			return true
		}
		if slices.Contains(call, "PIN") {
			pin = m.pin()
		}
		m.blocks[k] = slot
		c.s.position++
		c.s.blocks[k] = stored{block.Describe(k, block.Key{}, p), p}
		fields(w, "stored", 1, "token", wire.Token{Node: c.s.id, Incarnation: 1, Position: c.s.position}.String(),
			"pin", int(pin), "offset", int(slot.offset), "sum", wire.FormatSum(block.Checksum(p)))
	case "CAIRN.DEVICE.MAP":
		w.Array(len(args) - 2)
		for _, a := range args[2:] {
			slot, ok := m.blocks[block.Key(a)]
			if !ok {
				w.NullArray()
				continue
			}
			w.Array(4)
			w.Int(m.pin())
			w.Int(slot.offset)
			w.Int(int64(slot.length))
			w.BulkString(wire.FormatSum(block.Checksum(m.bytes(slot))))
		}
	case "CAIRN.DEVICE.RECLAIM":
		w.Int(3)
	default:
		return false
	}
	return true
}
