package replay

import (
	"fmt"
	"strconv"
	"time"
)

// Percent is a ratio for people: "36.64 %".
func Percent(ratio float64) string { return fmt.Sprintf("%.2f %%", 100*ratio) }

// Count is a number with separators: "12,031".
func Count[T int | int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Bytes is a size with three digits: "1.41 GiB".
func Bytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	u := 0
	for n >= 1000 && u < len(units)-1 {
		n /= 1024
		u++
	}
	return threeDigits(n) + " " + units[u]
}

// Micros is a time given in microseconds, with three digits: "1.84 ms".
func Micros(us float64) string {
	switch {
	case us >= 1e6:
		return threeDigits(us/1e6) + " s"
	case us >= 1e3:
		return threeDigits(us/1e3) + " ms"
	}
	return threeDigits(us) + " µs"
}

// Seconds is a duration given in seconds: "12.3 s", "1h2m3s".
func Seconds(s float64) string {
	if s < 120 {
		return Micros(s * 1e6)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func threeDigits(v float64) string {
	switch {
	case v >= 99.95 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
