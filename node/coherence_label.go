package node

import (
	"errors"

	"cairn/block"
)

// labelParent marks labels among the objects of the home tier: named objects have
// no parent.
var labelParent = block.NamedKey("\x00cairn", []byte("label"), 1)

func isLabel(d block.Descriptor) bool { return d.Parent == labelParent && d.Key.Named() }

// appendAuthor begins a label: the length of the node's id, the id, the incarnation;
// then follow the writes.
func appendAuthor(b []byte, a stageAuthor) []byte {
	b = append(b, byte(len(a.node)))
	b = append(b, a.node...)
	for shift := 56; shift >= 0; shift -= 8 {
		b = append(b, byte(a.incarnation>>shift))
	}
	return b
}

func parseLabel(b []byte) (a stageAuthor, writes []stagedWrite, err error) {
	if len(b) == 0 || len(b) < 1+int(b[0])+8 || (len(b)-9-int(b[0]))%stagedSize != 0 {
		return a, nil, errors.New("malformed label")
	}
	n := int(b[0])
	a.node = string(b[1 : 1+n])
	for _, c := range b[1+n : 9+n] {
		a.incarnation = a.incarnation<<8 | uint64(c)
	}
	for b = b[9+n:]; len(b) > 0; b = b[stagedSize:] {
		w, err := parseStaged(b[:stagedSize])
		if err != nil {
			return a, nil, err
		}
		writes = append(writes, w)
	}
	return a, writes, nil
}
