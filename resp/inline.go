package resp

import "bytes"

// inline reads a command that a person typed: a line of words, quoted as in
// redis-cli. An empty line is ignored.
func (r *commandReader) inline() error {
	line, err := r.in.line(r.cfg.MaxInline)
	if err == errLongLine {
		return protocolError("too big inline request")
	}
	if err != nil {
		return err
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	for {
		line = bytes.TrimLeft(line, " \t\r\n\v\f")
		if len(line) == 0 {
			break
		}
		if len(r.cmd.Args) == r.cfg.MaxArguments {
			return protocolError("too many arguments in inline request")
		}
		start := len(r.text)
		rest, ok := r.word(line)
		if !ok {
			return protocolError("unbalanced quotes in request")
		}
		line = rest
		r.cmd.Args = append(r.cmd.Args, r.text[start:len(r.text):len(r.text)])
	}
	// A web page can make a browser post lines to this port. As in Redis, a
	// request of HTTP ends the connection before a later line is executed.
	if len(r.cmd.Args) > 0 && (bytes.EqualFold(r.cmd.Args[0], []byte("POST")) || bytes.EqualFold(r.cmd.Args[0], []byte("Host:"))) {
		return protocolError("this is not an HTTP port")
	}
	return nil
}

// word appends the first word of line to r.text and returns what is behind it.
// "…" knows the escapes \xHH \n \r \t \b \a and \<any>; '…' knows \' only. A
// closing quote must end the word.
func (r *commandReader) word(line []byte) (rest []byte, ok bool) {
	for len(line) > 0 && !space(line[0]) {
		switch line[0] {
		case '"':
			line, ok = r.quoted(line[1:])
		case '\'':
			line, ok = r.singleQuoted(line[1:])
		default:
			r.text = append(r.text, line[0])
			line = line[1:]
			continue
		}
		return line, ok && (len(line) == 0 || space(line[0]))
	}
	return line, true
}

func (r *commandReader) quoted(line []byte) (rest []byte, ok bool) {
	for len(line) > 0 {
		c := line[0]
		line = line[1:]
		switch {
		case c == '"':
			return line, true
		case c != '\\' || len(line) == 0:
			r.text = append(r.text, c)
		case len(line) >= 3 && line[0] == 'x' && hex(line[1]) >= 0 && hex(line[2]) >= 0:
			r.text = append(r.text, byte(hex(line[1])<<4|hex(line[2])))
			line = line[3:]
		default:
			r.text = append(r.text, unescape(line[0]))
			line = line[1:]
		}
	}
	return nil, false
}

func (r *commandReader) singleQuoted(line []byte) (rest []byte, ok bool) {
	for len(line) > 0 {
		switch {
		case line[0] == '\'':
			return line[1:], true
		case line[0] == '\\' && len(line) > 1 && line[1] == '\'':
			r.text = append(r.text, '\'')
			line = line[2:]
		default:
			r.text = append(r.text, line[0])
			line = line[1:]
		}
	}
	return nil, false
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func space(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r'
}
