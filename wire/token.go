package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Token is a point in one node's stream of changes: whoever has it wants to see
// at least the changes up to there. Clients carry it as text, from the answer to
// a Put to a later Match.
type Token struct {
	Node        string
	Incarnation uint64
	Position    uint64
}

// String is node/incarnation/position, the incarnation in hexadecimal.
func (t Token) String() string {
	return t.Node + "/" + strconv.FormatUint(t.Incarnation, 16) + "/" + strconv.FormatUint(t.Position, 10)
}

// ParseToken reads what Token.String writes.
func ParseToken(s string) (Token, error) {
	node, rest, ok := strings.Cut(s, "/")
	incarnation, position, ok2 := strings.Cut(rest, "/")
	inc, err1 := strconv.ParseUint(incarnation, 16, 64)
	pos, err2 := strconv.ParseUint(position, 10, 64)
	if !ok || !ok2 || node == "" || err1 != nil || err2 != nil {
		return Token{}, fmt.Errorf("not a token: want node/incarnation/position, got %.64q", s)
	}
	return Token{Node: node, Incarnation: inc, Position: pos}, nil
}
