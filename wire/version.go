package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Version names one state of a named block; 0 is one that was never written. It is
// the place in the log where the state was made: the sequence of a message, and below
// that, in 20 bits, the number within the message. So the versions of a block grow, and
// the log that made a version can be looked up. On the wire it is an integer, for
// people it is the two parts with a point between: 1234.0.
type Version uint64

// VersionBits is how many bits of a Version number what happens at one sequence.
const VersionBits = 20

// Sequence is that of the log's message that made the version, or, of a write under
// ownership, of the message with which the ownership began.
func (v Version) Sequence() uint64 { return uint64(v >> VersionBits) }

// String is the version for people; 0 is "0".
func (v Version) String() string {
	if v == 0 {
		return "0"
	}
	return strconv.FormatUint(v.Sequence(), 10) + "." + strconv.FormatUint(uint64(v&(1<<VersionBits-1)), 10)
}

// ParseVersion reads a version in either form: 1234.0, or the integer of the wire.
func ParseVersion(s string) (Version, error) {
	high, low, parts := strings.Cut(s, ".")
	n, err := strconv.ParseUint(high, 10, 63)
	if err == nil && parts {
		var index uint64
		index, err = strconv.ParseUint(low, 10, VersionBits)
		if n > 1<<(63-VersionBits)-1 {
			err = strconv.ErrRange
		}
		n = n<<VersionBits | index
	}
	if err != nil {
		return 0, fmt.Errorf("not a version: want a number such as 1234.0, or 0 for none, got %.64q", s)
	}
	return Version(n), nil
}

// MarshalText is String.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText is ParseVersion.
func (v *Version) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVersion(string(text))
	return err
}

// UnmarshalJSON takes a string or a number.
func (v *Version) UnmarshalJSON(text []byte) error {
	return v.UnmarshalText([]byte(strings.Trim(string(text), `"`)))
}

// conflictWord begins a conflict that names the version.
const conflictWord = "version "

// Conflict is the error reply to a change of a name that has another version than
// the change expects: the code, "version", the version as an integer, and why.
func Conflict(v Version, why string) string {
	return CodeConflict + " " + conflictWord + strconv.FormatUint(uint64(v), 10) + ": " + why
}

// ConflictVersion finds the version in what follows the code of a Conflict; ok is
// false for another kind of conflict.
func ConflictVersion(text string) (v Version, ok bool) {
	rest, ok := strings.CutPrefix(text, conflictWord)
	if !ok {
		return 0, false
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	n, err := strconv.ParseUint(rest[:end], 10, 63)
	return Version(n), err == nil
}
