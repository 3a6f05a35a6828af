package node

import (
	"context"
	"errors"
	"fmt"

	"cairn/resp"
	"cairn/wire"
)

// Words of CAIRN.TAKE that say whether room is made for the blocks.
const (
	takeFits   = "FITS"
	takeEvicts = "EVICT"
)

func takeMode(evict bool) string {
	if evict {
		return takeEvicts
	}
	return takeFits
}

// cairnTake is CAIRN.TAKE node FITS|EVICT [key…], by which a node that drains asks this one
// to take over blocks, in the order of their sequence. It answers with the number of leading
// blocks that are durable here, why not the next ("" if all are), the free bytes and the
// capacity of the home tier, and a token for CAIRN.MATCH.
func (s *session) cairnTake(ctx context.Context, w *resp.Writer, args [][]byte) {
	mode := string(args[2])
	if mode != takeFits && mode != takeEvicts {
		w.Error("ERR CAIRN.TAKE: want FITS or EVICT before the keys")
		return
	}
	if len(args)-3 > s.n.cfg.MaxBatch {
		w.Error(fmt.Sprintf("ERR CAIRN.TAKE: %d keys, max-batch is %d", len(args)-3, s.n.cfg.MaxBatch))
		return
	}
	keys, err := parseKeys(args[3:])
	var t Taken
	if err == nil {
		t, err = s.n.Take(ctx, string(args[1]), keys, mode == takeEvicts)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Array(5)
	w.Int(int64(t.Held))
	w.BulkString(string(t.Refused))
	w.Int(t.Free)
	w.Int(t.Capacity)
	w.BulkString(t.Token.String())
}

var errTaken = errors.New("malformed answer to CAIRN.TAKE")

// readTaken reads that answer.
func readTaken(conn *resp.Conn) (Taken, error) {
	v, err := conn.ReadReply()
	if err != nil {
		return Taken{}, err
	}
	e := v.Elems
	if v.Kind != resp.Array || len(e) != 5 || e[0].Kind != resp.Int || e[0].Int < 0 ||
		e[1].Kind != resp.String || e[2].Kind != resp.Int || e[3].Kind != resp.Int || e[4].Kind != resp.String {
		return Taken{}, errTaken
	}
	token, err := wire.ParseToken(e[4].Text())
	return Taken{Held: int(e[0].Int), Refused: TakeRefusal(e[1].Text()), Free: e[2].Int, Capacity: e[3].Int, Token: token}, err
}
