package resp

import (
	"errors"
	"math"
	"strings"
)

// The type bytes of RESP2 and, from typeNull on, RESP3.
const (
	typeStatus    = '+'
	typeError     = '-'
	typeInt       = ':'
	typeBulk      = '$'
	typeArray     = '*'
	typeNull      = '_'
	typeBool      = '#'
	typeDouble    = ','
	typeBigNumber = '('
	typeBlobError = '!'
	typeVerbatim  = '='
	typeMap       = '%'
	typeSet       = '~'
	typePush      = '>'
	typeAttribute = '|'
)

// maxHeader bounds a header line, such as "$524288": a type byte, a sign, the
// 19 digits of an int64, and the end of the line, rounded up.
const maxHeader = 32

// codeTooLarge is the code of an error about an argument over a limit.
const codeTooLarge = "TOOLARGE"

// ServerError is an error reply: its text with the code in front, such as
// "ERR unknown command" or "BUSY try again". A Handler returns one from Payload
// to choose the code.
type ServerError string

func (e ServerError) Error() string { return string(e) }

// Code returns the first word, such as ERR.
func (e ServerError) Code() string {
	code, _, _ := strings.Cut(string(e), " ")
	return code
}

// protocolError is a violation of the protocol by a client. It is answered with
// its text and ends the connection.
type protocolError string

func (e protocolError) Error() string { return "ERR Protocol error: " + string(e) }

// errorText is the text of err in an error reply.
func errorText(err error) string {
	var reply ServerError
	if errors.As(err, &reply) {
		return string(reply)
	}
	var bad protocolError
	if errors.As(err, &bad) {
		return bad.Error()
	}
	return "ERR " + err.Error()
}

// parseInt parses a decimal as Redis writes it: digits with an optional minus, no
// plus, no leading zeros, within int64.
func parseInt(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	digits := b
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		return 0, false
	}
	if digits[0] == '0' {
		return 0, len(digits) == 1 && !negative
	}
	var v uint64
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		v = v*10 + uint64(d-'0') // at most 19 digits: below 2^64
	}
	if negative {
		if v > 1<<63 {
			return 0, false
		}
		return -int64(v), true
	}
	if v > math.MaxInt64 {
		return 0, false
	}
	return int64(v), true
}
