package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// sink supplies memory for payloads, as a connection and its handler do.
type sink struct {
	payload func(args [][]byte, arg, n int) ([]byte, error)
	busy    error
	asked   int
}

func (s *sink) admit(int64) error { return s.busy }

func (s *sink) Payload(args [][]byte, arg, n int) ([]byte, error) {
	s.asked++
	if s.payload == nil {
		return nil, nil
	}
	return s.payload(args, arg, n)
}

// readAll reads commands until an error. A refused command is recorded as its
// error reply.
func readAll(src io.Reader, cfg ServerConfig, s *sink) (commands []string, err error) {
	cfg = cfg.withDefaults()
	r := newCommandReader(newInput(src, cfg.ReadBuffer), &cfg, s)
	for {
		if err := r.next(); err != nil {
			return commands, err
		}
		if r.refused != nil {
			commands = append(commands, "-"+errorText(r.refused))
			continue
		}
		commands = append(commands, fmt.Sprintf("%q", r.cmd.Args))
	}
}

// small is a configuration whose limits are easily reached.
func small() ServerConfig {
	return ServerConfig{
		ReadBuffer: 64, PayloadThreshold: 8, MaxArguments: 4, MaxInline: 100,
		MaxArgument: 16, MaxCommand: 30, MaxPayload: 64, MaxDiscard: 200,
	}
}

var protocolTable = []struct {
	name, in string
	want     []string
	err      string // the answer before the connection is closed
}{
	{name: "array", in: "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", want: []string{`["GET" "k"]`}},
	{name: "pipeline", in: "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", want: []string{`["PING"]`, `["PING"]`}},
	{name: "empty argument", in: "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", want: []string{`["GET" ""]`}},
	{name: "line ends inside", in: "*2\r\n$3\r\nGET\r\n$4\r\n\r\n\r\n\r\n", want: []string{`["GET" "\r\n\r\n"]`}},
	{name: "empty arrays are ignored", in: "*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", want: []string{`["PING"]`}},
	{name: "inline", in: "PING\r\nGET  k\n\r\n\n", want: []string{`["PING"]`, `["GET" "k"]`}},
	{name: "inline quotes", in: `SET "a \x41\n\"" 'it\'s'` + "\n", want: []string{`["SET" "a A\n\"" "it's"]`}},
	{name: "inline empty word", in: "SET '' \"\"\n", want: []string{`["SET" "" ""]`}},
	{name: "inline after array", in: "*1\r\n$4\r\nPING\r\nPING\r\n", want: []string{`["PING"]`, `["PING"]`}},
	{name: "no count", in: "*\r\n", err: "invalid multibulk length"},
	{name: "count is no number", in: "*2x\r\n", err: "invalid multibulk length"},
	{name: "count without CR", in: "*2\n", err: "invalid multibulk length"},
	{name: "count beyond int64", in: "*9223372036854775808\r\n", err: "invalid multibulk length"},
	{name: "count too long", in: "*" + strings.Repeat("1", 60), err: "too big mbulk count string"},
	{name: "too many arguments", in: "*5\r\n", err: "invalid multibulk length: 5 arguments exceed MaxArguments (4)"},
	{name: "not a bulk string", in: "*1\r\n:1\r\n", err: "expected '$', got ':'"},
	{name: "unprintable type", in: "*1\r\n\x001\r\n", err: "expected '$', got '?'"},
	{name: "negative length", in: "*1\r\n$-1\r\n", err: "invalid bulk length"},
	{name: "length with sign", in: "*1\r\n$+1\r\na\r\n", err: "invalid bulk length"},
	{name: "length with leading zero", in: "*1\r\n$01\r\na\r\n", err: "invalid bulk length"},
	{name: "length beyond sense", in: "*1\r\n$9223372036854775807\r\n", err: "invalid bulk length"},
	{name: "length too long", in: "*1\r\n$" + strings.Repeat("1", 60), err: "too big bulk count string"},
	{name: "bulk without CRLF", in: "*1\r\n$1\r\nabc", err: "expected CRLF after bulk string"},
	{name: "unbalanced quote", in: "GET \"a\n", err: "unbalanced quotes in request"},
	{name: "quote inside word", in: "GET \"a\"b\n", err: "unbalanced quotes in request"},
	{name: "inline too long", in: strings.Repeat("a", 101), err: "too big inline request"},
	{name: "inline too many", in: "a b c d e\n", err: "too many arguments in inline request"},
	{name: "a web page's request", in: "POST / HTTP/1.1\r\n", err: "this is not an HTTP port"},
	{
		name: "MaxPayload", in: "*2\r\n$3\r\nSET\r\n$65\r\n" + strings.Repeat("a", 65) + "\r\nPING\r\n",
		want: []string{"-TOOLARGE argument 1 has 65 bytes, the most is 64", `["PING"]`},
	},
	{
		name: "MaxArgument", in: "*2\r\n$3\r\nSET\r\n$17\r\n" + strings.Repeat("a", 17) + "\r\nPING\r\n",
		want: []string{"-TOOLARGE argument 1 has 17 bytes, MaxArgument is 16", `["PING"]`},
	},
	{
		name: "MaxCommand", in: "*3\r\n$16\r\n0123456789abcdef\r\n$16\r\n0123456789abcdef\r\n$1\r\na\r\nPING\r\n",
		want: []string{"-ERR the arguments have more than MaxCommand (30) bytes", `["PING"]`},
	},
	{
		name: "MaxDiscard", in: "*2\r\n$3\r\nSET\r\n$201\r\n",
		err: "TOOLARGE argument 1 has 201 bytes, the most is 64; more than MaxDiscard (200) bytes would have to be thrown away, closing",
	},
	{
		name: "MaxDiscard in sum", in: "*2\r\n$150\r\n" + strings.Repeat("a", 150) + "\r\n$51\r\n",
		err: "TOOLARGE argument 0 has 150 bytes, the most is 64; more than MaxDiscard (200) bytes would have to be thrown away, closing",
	},
}

func TestProtocol(t *testing.T) {
	for _, test := range protocolTable {
		t.Run(test.name, func(t *testing.T) {
			wantErr := "EOF"
			if test.err != "" {
				wantErr = "ERR Protocol error: " + test.err
				if strings.HasPrefix(test.err, codeTooLarge) {
					wantErr = test.err
				}
			}
			// The whole at once, cut at every place, and byte by byte.
			sources := []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in))}
			for i := 1; i < len(test.in); i++ {
				sources = append(sources, io.MultiReader(strings.NewReader(test.in[:i]), strings.NewReader(test.in[i:])))
			}
			for i, src := range sources {
				got, err := readAll(src, small(), &sink{})
				if d := cmp.Diff(test.want, got); d != "" {
					t.Fatalf("source %d: commands (-want +got):\n%s", i, d)
				}
				if err.Error() != wantErr {
					t.Fatalf("source %d: ended with %q, want %q", i, err, wantErr)
				}
			}
		})
	}
}

// A stream that ends inside a command is an unexpected end, wherever it is cut.
func TestCutShort(t *testing.T) {
	const in = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n0123456789abcdefghij\r\n"
	for i := 1; i < len(in); i++ {
		s := &sink{payload: func(_ [][]byte, _, n int) ([]byte, error) { return make([]byte, n), nil }}
		got, err := readAll(strings.NewReader(in[:i]), small(), s)
		if len(got) != 0 || err != io.ErrUnexpectedEOF {
			t.Fatalf("cut at %d: %q, %v", i, got, err)
		}
	}
}

func TestPayloadGoesToHandlersMemory(t *testing.T) {
	slot := bytes.Repeat([]byte{'x'}, 25)
	s := &sink{payload: func(args [][]byte, arg, n int) ([]byte, error) {
		if arg != 2 || n != 20 || fmt.Sprintf("%q", args) != `["SET" "k"]` {
			return nil, fmt.Errorf("asked with %q, %d, %d", args, arg, n)
		}
		return slot, nil
	}}
	got, err := readAll(strings.NewReader("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n0123456789abcdefghij\r\n"), small(), s)
	if d := cmp.Diff([]string{`["SET" "k" "0123456789abcdefghij"]`}, got); d != "" || err != io.EOF {
		t.Fatalf("%v\n%s", err, d)
	}
	if string(slot) != "0123456789abcdefghijxxxxx" {
		t.Fatalf("slot is %q", slot)
	}
}

func TestPayloadRefused(t *testing.T) {
	const set = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n0123456789abcdefghij\r\nPING\r\n"
	refuse := func(err error) func([][]byte, int, int) ([]byte, error) {
		return func([][]byte, int, int) ([]byte, error) { return nil, err }
	}
	for _, test := range []struct {
		name string
		sink sink
		want string
	}{
		{"plain error", sink{payload: refuse(errors.New("no slot"))}, "-ERR no slot"},
		{"error with code", sink{payload: refuse(ServerError("OOM no slot"))}, "-OOM no slot"},
		{"wrapped", sink{payload: refuse(errors.Join(ServerError("OOM no slot"), ErrClose))}, "-OOM no slot"},
		{"over budget", sink{busy: ServerError("BUSY")}, "-BUSY"},
		{
			"short memory",
			sink{payload: func([][]byte, int, int) ([]byte, error) { return make([]byte, 3), nil }},
			"-ERR internal error: memory of 3 bytes for argument 2 of 20",
		},
	} {
		got, err := readAll(strings.NewReader(set), small(), &test.sink)
		if d := cmp.Diff([]string{test.want, `["PING"]`}, got); d != "" || err != io.EOF {
			t.Errorf("%s: %v\n%s", test.name, err, d)
		}
	}
}

// A declared length allocates nothing until bytes arrive.
func TestDeclaredGigabyte(t *testing.T) {
	cfg := ServerConfig{MaxArgument: 1 << 30, MaxCommand: 1 << 30, MaxPayload: 1 << 30, MaxDiscard: 1 << 30}.withDefaults()
	src := strings.NewReader("*2\r\n$3\r\nSET\r\n$1073741824\r\nabc")
	r := newCommandReader(newInput(src, cfg.ReadBuffer), &cfg, &sink{})
	if err := r.next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if cap(r.text) > 4*growStep {
		t.Fatalf("%d bytes were allocated for 3 that arrived", cap(r.text))
	}
}

func TestReadCommandDoesNotAllocate(t *testing.T) {
	cfg := ServerConfig{}.withDefaults()
	one := []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\n" + strings.Repeat("a", 20000) + "\r\n")
	src := bytes.NewReader(nil)
	slot := make([]byte, 20000)
	s := &sink{payload: func([][]byte, int, int) ([]byte, error) { return slot, nil }}
	r := newCommandReader(newInput(src, cfg.ReadBuffer), &cfg, s)
	allocs := testing.AllocsPerRun(100, func() {
		src.Reset(one)
		if err := r.next(); err != nil || len(r.cmd.Args) != 3 {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a command", allocs)
	}
}

// FuzzReadCommand: no input makes the reader panic or keep more memory than its
// limits, and where the stream is cut makes no difference.
func FuzzReadCommand(f *testing.F) {
	for _, test := range protocolTable {
		f.Add([]byte(test.in), uint8(1))
	}
	f.Add([]byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20\r\n0123456789abcdefghij\r\n"), uint8(7))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		payload := func(_ [][]byte, arg, n int) ([]byte, error) {
			switch n % 3 {
			case 0:
				return make([]byte, n), nil
			case 1:
				return nil, nil
			}
			return nil, errors.New("refused")
		}
		whole, wholeErr := readAll(bytes.NewReader(in), small(), &sink{payload: payload})
		parts, partsErr := readAll(&pieces{in: in, n: int(cut%61) + 1}, small(), &sink{payload: payload})
		if d := cmp.Diff(whole, parts); d != "" || wholeErr.Error() != partsErr.Error() {
			t.Fatalf("whole %v, in pieces of %d %v\n%s", wholeErr, cut%61+1, partsErr, d)
		}

		cfg := small().withDefaults()
		r := newCommandReader(newInput(bytes.NewReader(in), cfg.ReadBuffer), &cfg, &sink{payload: payload})
		for r.next() == nil {
			text := 0
			for _, a := range r.cmd.Args {
				text += len(a)
			}
			if len(r.cmd.Args) > cfg.MaxArguments || text > cfg.MaxInline+cfg.MaxCommand+cfg.MaxArguments*cfg.MaxPayload {
				t.Fatalf("%d arguments of %d bytes", len(r.cmd.Args), text)
			}
			if len(r.in.buf) > max(cfg.MaxInline, cfg.ReadBuffer) || cap(r.text) > 2*growStep {
				t.Fatalf("buffers of %d and %d bytes", len(r.in.buf), cap(r.text))
			}
		}
	})
}

// pieces reads in at most n bytes at a time.
type pieces struct {
	in []byte
	n  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[:min(p.n, len(p.in))])
	p.in = p.in[n:]
	return n, nil
}
