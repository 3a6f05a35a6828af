package doctor

import "fmt"

// Level says how serious a result is.
type Level uint8

// The levels, least first.
const (
	// OK: as it should be, or of no importance to this configuration.
	OK Level = iota
	// Warn: the node runs, but slower than it could, or it may fail later.
	Warn
	// Bad: the node does not start, or fails when it is as full as it is
	// configured to be.
	Bad
)

// String is "ok", "warn" or "bad".
func (l Level) String() string { return [...]string{"ok", "warn", "bad"}[l] }

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Level) UnmarshalText(text []byte) error {
	for _, known := range []Level{OK, Warn, Bad} {
		if string(text) == known.String() {
			*l = known
			return nil
		}
	}
	return fmt.Errorf("doctor: level %q: want ok, warn or bad", text)
}

// Result is what one check has found.
type Result struct {
	// Group and Name say what was looked at.
	Group string `json:"group"`
	Name  string `json:"name"`
	Level Level  `json:"level"`
	// Found is what there is, in a few words.
	Found string `json:"found"`
	// Advice is what to do, one sentence, with commands in backquotes; empty where
	// nothing is to be done.
	Advice string `json:"advice,omitempty"`
	// Values are figures for programs; their names end with the unit.
	Values map[string]int64 `json:"values,omitempty"`
}

// The groups, in the order in which they are shown.
const (
	GPU     = "gpu"
	Memory  = "memory"
	Disk    = "disk"
	Network = "network"
	System  = "system"
)

// Worst is the highest level among results.
func Worst(results []Result) Level {
	worst := OK
	for _, r := range results {
		worst = max(worst, r.Level)
	}
	return worst
}

// ok, warn and bad make results without a group, which the caller sets.
func ok(name, format string, args ...any) Result {
	return Result{Name: name, Found: fmt.Sprintf(format, args...)}
}

func (r Result) warn(format string, args ...any) Result { return r.with(Warn, format, args...) }
func (r Result) bad(format string, args ...any) Result  { return r.with(Bad, format, args...) }

// with raises the level and takes the advice, unless r has worse news already.
func (r Result) with(l Level, format string, args ...any) Result {
	if r.Level < l {
		r.Level, r.Advice = l, fmt.Sprintf(format, args...)
	}
	return r
}

// value notes a figure.
func (r Result) value(name string, v int64) Result {
	if r.Values == nil {
		r.Values = map[string]int64{}
	}
	r.Values[name] = v
	return r
}
