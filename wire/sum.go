package wire

import (
	"fmt"
	"strconv"
)

// FormatSum writes a block's checksum as text, for which integers of the protocol, having
// a sign, are too short: 16 hexadecimal digits.
func FormatSum(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// ParseSum reads what FormatSum has written.
func ParseSum(text string) (uint64, error) {
	sum, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 {
		return 0, fmt.Errorf("not a checksum: want 16 hexadecimal digits, got %.32q", text)
	}
	return sum, nil
}
