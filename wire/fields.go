package wire

import (
	"fmt"

	"cairn/resp"
)

// Fields is a reply of names and values: a map in RESP3, an array in RESP2.
type Fields map[string]resp.Value

// ReadFields reads such a reply.
func ReadFields(conn *resp.Conn) (Fields, error) {
	v, err := conn.ReadReply()
	if err != nil {
		return nil, err
	}
	if v.Kind != resp.Array && v.Kind != resp.Map || len(v.Elems)%2 != 0 {
		return nil, fmt.Errorf("%w: want names and values", resp.ErrProtocol)
	}
	f := make(Fields, len(v.Elems)/2)
	for i := 0; i < len(v.Elems); i += 2 {
		f[v.Elems[i].Text()] = v.Elems[i+1]
	}
	return f, nil
}

// Int is the number under a name; 0 if there is none.
func (f Fields) Int(name string) int64 { return f[name].Int }

// Text is the text under a name; "" if there is none.
func (f Fields) Text(name string) string { return f[name].Text() }
