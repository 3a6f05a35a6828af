package client_test

import (
	"fmt"
	"slices"
	"strconv"

	"cairn/block"
	"cairn/resp"
	"cairn/wire"
)

// fakeSequence is a sequence of a connection: its keys. What it onboards is what the
// server has.
type fakeSequence struct {
	keys []block.Key
}

func keysIn(args [][]byte) []block.Key {
	keys := make([]block.Key, len(args))
	for i, a := range args {
		keys[i] = block.Key(a)
	}
	return keys
}

func (c *session) doSequence(w *resp.Writer, call []string, args [][]byte) bool {
	if call[0] == "CAIRN.SEQ.OPEN" {
		c.opened = append(c.opened, &fakeSequence{keys: keysIn(args[1+slices.Index(call[1:], "KEYS")+1:])})
		c.sequenceReply(w, len(c.opened))
		return true
	}
	if len(call) < 2 {
		return false
	}
	id, _ := strconv.Atoi(call[1])
	if id < 1 || id > len(c.opened) || c.opened[id-1] == nil {
		w.Error(wire.CodeSequence + " no such open sequence")
		return true
	}
	q := c.opened[id-1]
	switch call[0] {
	case "CAIRN.SEQ.MATCH", "CAIRN.SEQ.STAT":
		c.sequenceReply(w, id)
	case "CAIRN.SEQ.ONBOARD":
		held := c.held(q.keys)
		missing := ""
		if held < len(q.keys) {
			missing = "absent"
		}
		fields(w, "from", 0, "to", held, "missing", missing, "peer", held, "bytes", 10*held, "microseconds", 7)
	case "CAIRN.SEQ.EXTEND":
		q.keys = append(q.keys, keysIn(args[3:])...)
		fields(w, "from", len(q.keys)-len(args[3:]), "to", len(q.keys))
	case "CAIRN.SEQ.COMMIT":
		at, _ := strconv.Atoi(call[2])
		if at+len(args[4:]) > len(q.keys) {
			w.Error("ERR position outside the sequence")
			return true
		}
		for i, p := range args[4:] {
			k := q.keys[at+i]
			c.s.blocks[k] = stored{block.Describe(k, block.Key{}, p), slices.Clone(p)}
			c.s.position++
		}
		fields(w, "stored", len(args[4:]), "existed", 0, "token", wire.Token{Node: c.s.id, Incarnation: 1, Position: c.s.position}.String())
	case "CAIRN.SEQ.TRUNCATE":
		n, _ := strconv.Atoi(call[2])
		q.keys = q.keys[:n]
		c.sequenceReply(w, id)
	case "CAIRN.SEQ.CANCEL":
		w.Int(0)
	case "CAIRN.SEQ.CLOSE":
		c.opened[id-1] = nil
		w.Status("OK")
	default:
		return false
	}
	return true
}

// held is how many leading blocks the server has.
func (c *session) held(keys []block.Key) int {
	for i, k := range keys {
		if _, ok := c.s.blocks[k]; !ok {
			return i
		}
	}
	return len(keys)
}

func (c *session) sequenceReply(w *resp.Writer, id int) {
	q := c.opened[id-1]
	fields(w, "sequence", id, "blocks", len(q.keys), "matched", c.held(q.keys), "local", 0, "vram", "", "host", "", "pending", 0)
}

func fields(w *resp.Writer, pairs ...any) {
	w.Map(len(pairs) / 2)
	for _, v := range pairs {
		if n, ok := v.(int); ok {
			w.Int(int64(n))
		} else {
			w.BulkString(fmt.Sprint(v))
		}
	}
}
