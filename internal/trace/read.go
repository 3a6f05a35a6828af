package trace

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"time"
)

// Kinds of errors of a reader; the text of the error names the line and says
// what to do.
var (
	// ErrFormat: the line is no request of a trace, or contradicts itself.
	ErrFormat = errors.New("not a request")
	// ErrTruncated: the text ends inside its last line.
	ErrTruncated = errors.New("ends in the middle of a line")
	// ErrTooLarge: the line exceeds one of the [Limits].
	ErrTooLarge = errors.New("over a limit")
	// ErrEmpty: there is no request at all.
	ErrEmpty = errors.New("no request in it")
)

//go:embed testdata/conversation_slice.jsonl
var bundled []byte

// BundledName says what [Bundled] is, for people.
const BundledName = "Mooncake conversation trace, first 1,000 requests"

// Bundled yields the trace inside the binary: the first 1,000 requests of the
// Mooncake conversation trace (testdata/README.md). It may be ranged over again.
func Bundled() iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) { Read(bytes.NewReader(bundled), Limits{})(yield) }
}

// ReadFile yields the requests of a file, as [Read] does; it opens the file when
// it is ranged over, each time, and closes it afterwards.
func ReadFile(path string, limits Limits) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: get a trace from github.com/kvcache-ai/Mooncake (FAST25-release/traces), "+
					"or name none to use the one that is built in", err)
			}
			yield(Request{}, fmt.Errorf("trace: %w", err))
			return
		}
		defer f.Close()
		for r, err := range Read(f, limits) {
			if err != nil {
				err = fmt.Errorf("%w (in %s)", err, path)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// Read yields the requests of a trace one at a time. The first error ends the
// sequence. The slices of a request belong to the receiver. A sequence can be
// ranged over once, since it consumes in.
func Read(in io.Reader, limits Limits) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		if err := limits.Validate(); err != nil {
			yield(Request{}, err)
			return
		}
		l := limits.withDefaults()
		lines := bufio.NewReaderSize(in, 64<<10)
		var line []byte
		found := false
		for n := 1; ; n++ {
			var err error
			line, err = appendLine(line[:0], lines, l.LineBytes)
			last := err == io.EOF
			if err != nil && !last {
				yield(Request{}, fmt.Errorf("trace: line %d: %w", n, err))
				return
			}
			if len(bytes.TrimSpace(line)) > 0 {
				r, err := parse(line, l)
				if err != nil {
					yield(Request{}, fmt.Errorf("trace: line %d: %w", n, explain(err, last, n)))
					return
				}
				found = true
				if !yield(r, nil) {
					return
				}
			}
			if last {
				break
			}
		}
		if !found {
			yield(Request{}, fmt.Errorf("trace: %w: want one JSON object a line", ErrEmpty))
		}
	}
}

// appendLine reads up to and with the next newline; io.EOF comes with the last line.
func appendLine(line []byte, in *bufio.Reader, most int) ([]byte, error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > most+1 {
			return line, fmt.Errorf("%w: longer than %d bytes: raise the line limit if this is a trace", ErrTooLarge, most)
		}
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// explain tells a file that was cut off from one that is wrong.
func explain(err error, last bool, line int) error {
	var syntax *json.SyntaxError
	if last && errors.As(err, &syntax) {
		return fmt.Errorf("%w: copy the file again, or keep its first %d lines with head -n %d", ErrTruncated, line-1, line-1)
	}
	return err
}

// record is a line as it is written; pointers tell what is missing.
type record struct {
	Timestamp *float64 `json:"timestamp"`
	Input     *int     `json:"input_length"`
	Output    *int     `json:"output_length"`
	IDs       *[]int64 `json:"hash_ids"`
}

func parse(line []byte, l Limits) (Request, error) {
	var rec record
	if err := json.Unmarshal(line, &rec); err != nil {
		return Request{}, fmt.Errorf("%w: %w: want {\"timestamp\": ms, \"input_length\": tokens, \"output_length\": tokens, \"hash_ids\": [numbers]}", ErrFormat, err)
	}
	switch {
	case rec.Timestamp == nil:
		return Request{}, missing("timestamp")
	case rec.Input == nil:
		return Request{}, missing("input_length")
	case rec.Output == nil:
		return Request{}, missing("output_length")
	case rec.IDs == nil:
		return Request{}, missing("hash_ids")
	case *rec.Timestamp < 0 || *rec.Timestamp > maxTimestamp:
		return Request{}, fmt.Errorf("%w: timestamp %g: want 0 to %.0f milliseconds since the start of the trace", ErrFormat, *rec.Timestamp, maxTimestamp)
	case *rec.Input < 0 || *rec.Output < 0:
		return Request{}, fmt.Errorf("%w: lengths %d and %d: want 0 tokens or more", ErrFormat, *rec.Input, *rec.Output)
	}
	ids := *rec.IDs
	if len(ids) > l.IDs {
		return Request{}, fmt.Errorf("%w: %d hash_ids, at most %d are accepted: raise the limit of blocks a request", ErrTooLarge, len(ids), l.IDs)
	}
	full := *rec.Input / l.BlockTokens
	all := full
	if *rec.Input%l.BlockTokens > 0 {
		all++
	}
	if len(ids) != full && len(ids) != all {
		return Request{}, fmt.Errorf("%w: %d hash_ids for %d tokens: want %d, one for each block of %d tokens: set the block size that the trace was made with",
			ErrFormat, len(ids), *rec.Input, all, l.BlockTokens)
	}
	r := Request{
		Arrival: time.Duration(*rec.Timestamp * float64(time.Millisecond)), Input: *rec.Input, Output: *rec.Output,
		IDs: make([]uint64, len(ids)),
	}
	for i, id := range ids {
		if id < 0 {
			return Request{}, fmt.Errorf("%w: hash_ids[%d] is %d: want 0 or more", ErrFormat, i, id)
		}
		r.IDs[i] = uint64(id)
	}
	return r, nil
}

// maxTimestamp is what a time.Duration can hold, in milliseconds: 292 years.
const maxTimestamp = float64(math.MaxInt64/int64(time.Millisecond) - 1)

func missing(field string) error {
	return fmt.Errorf("%w: no %q: is this a trace in Mooncake's format?", ErrFormat, field)
}
