package node

import (
	"testing"
	"testing/synctest"
	"time"

	"cairn/wire"
)

func TestLateTokensAreExcusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l late
		at := func(position uint64) wire.Token { return wire.Token{Node: "n2", Incarnation: 7, Position: position} }
		if l.excuses(at(10)) {
			t.Error("nothing has been late yet")
		}
		l.note(at(10))
		for _, c := range []struct {
			token wire.Token
			want  bool
		}{
			{at(10), true},
			{at(11), true}, // comes after it
			{at(9), false}, // may have come true
			{wire.Token{Node: "n2", Incarnation: 8, Position: 11}, false}, // another life
			{wire.Token{Node: "n3", Incarnation: 7, Position: 11}, false},
		} {
			if got := l.excuses(c.token); got != c.want {
				t.Errorf("%v: excused %v, want %v", c.token, got, c.want)
			}
		}
		time.Sleep(excuseFor + time.Millisecond)
		if l.excuses(at(10)) {
			t.Error("excused for ever")
		}
	})
}
