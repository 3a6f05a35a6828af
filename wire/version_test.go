package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"0": 0, "0.0": 0, "1.0": 1 << 20, "1.1048575": 1<<21 - 1, "8796093022207.1048575": 1<<63 - 1,
		"1048576": 1 << 20, "9223372036854775807": 1<<63 - 1,
	} {
		got, err := ParseVersion(text)
		if err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %d, %v, want %d", text, got, err, want)
		}
		if again, err := ParseVersion(got.String()); err != nil || again != got {
			t.Errorf("%d is %s, which is read as %d, %v", got, got, again, err)
		}
	}
	for _, text := range []string{"", ".", "1.", ".1", "-1", "1.-1", "1.2.3", "x", "1.1048576", "8796093022208.0", "9223372036854775808", " 1"} {
		if v, err := ParseVersion(text); err == nil {
			t.Errorf("ParseVersion(%q) = %s, want an error", text, v)
		}
	}
	if v := Version(7<<20 | 3); v.Sequence() != 7 || v.String() != "7.3" {
		t.Errorf("sequence %d of %s", v.Sequence(), v)
	}
}

func TestVersionInJSON(t *testing.T) {
	for _, text := range []string{`"7.3"`, `7340035`, `"7340035"`} {
		var v Version
		if err := json.Unmarshal([]byte(text), &v); err != nil || v != 7<<20|3 {
			t.Errorf("%s is %s, %v", text, v, err)
		}
	}
	var v Version
	for _, text := range []string{`"7.x"`, `1.5e3`, `{}`, `-1`} {
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			t.Errorf("%s is %s, want an error", text, v)
		}
	}
	if text, err := json.Marshal(Version(7<<20 | 3)); err != nil || string(text) != `"7.3"` {
		t.Errorf("written as %s, %v", text, err)
	}
}

func TestConflict(t *testing.T) {
	reply := Conflict(7<<20|3, "expected another")
	if reply != "CONFLICT version 7340035: expected another" {
		t.Errorf("the reply is %q", reply)
	}
	for text, want := range map[string]Version{strings.TrimPrefix(reply, CodeConflict+" "): 7<<20 | 3, "version 5": 5, "version 0 is it": 0} {
		if v, ok := ConflictVersion(text); !ok || v != want {
			t.Errorf("%q: %d, %v", text, v, ok)
		}
	}
	for _, text := range []string{"", "other bytes", "version ", "version x", "version 99999999999999999999"} {
		if v, ok := ConflictVersion(text); ok {
			t.Errorf("%q: %d", text, v)
		}
	}
}
