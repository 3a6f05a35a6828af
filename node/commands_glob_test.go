package node

import (
	"strings"
	"testing"
	"time"
)

func TestGlobMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"*", "anything\x00\xff", true},
		{"**", "ab", true},
		{"a*c", "abbbc", true},
		{"a*c", "abbb", false},
		{"*a*b*", "xxaxxbxx", true},
		{"*a*b*", "xxbxxaxx", false},
		{"?", "", false},
		{"?", "a", true},
		{"?", "ab", false},
		{"h?llo", "hello", true},
		{"h[ae]llo", "hallo", true},
		{"h[ae]llo", "hillo", false},
		{"h[^e]llo", "hello", false},
		{"h[^e]llo", "hallo", true},
		{"h[a-b]llo", "hbllo", true},
		{"h[b-a]llo", "hallo", true},
		{"h[a-b]llo", "hcllo", false},
		{"[\\]]", "]", true},
		{"[\\-z]", "m", false},
		{"[\\-z]", "-", true},
		{"[^]", "a", true},
		{"[]", "a", false},
		{"[abc", "c", true}, // the bracket may be missing at the end
		{"[a-", "-", true},
		{"[a-]", "^", true}, // a range from a to ], as in Redis
		{"\\*", "*", true},
		{"\\*", "a", false},
		{"a\\", "a\\", true},
		{"\\", "\\", true},
		{"user:*:kv", "user:17:kv", true},
		{"block:*", "block:00", true},
		{"ä?", "ä\xc3", true}, // bytes, not runes
		{"[\x80-\xff]", "\xc3", true},
	} {
		if got := globMatch(tc.pattern, tc.s); got != tc.want {
			t.Errorf("%q with %q: %v, want %v", tc.pattern, tc.s, got, tc.want)
		}
	}
}

// Patterns that make a matcher with naive backtracking take for ever.
func TestGlobMatchIsQuick(t *testing.T) {
	start := time.Now()
	s := strings.Repeat("a", 4096)
	for _, pattern := range []string{
		strings.Repeat("a*", 32) + "b", strings.Repeat("*a", 512) + "b", strings.Repeat("*", 4096) + "b",
		strings.Repeat("*[^b]", 200) + "b", strings.Repeat("?*", 1000) + "b",
	} {
		if globMatch(pattern, s) {
			t.Errorf("%.20q… matches", pattern)
		}
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

// globReference is the same rules as a plain recursion.
func globReference(p, s string) bool {
	if p == "" {
		return s == ""
	}
	if p[0] == '*' {
		return globReference(p[1:], s) || s != "" && globReference(p, s[1:])
	}
	if s == "" {
		return false
	}
	switch p[0] {
	case '?':
		return globReference(p[1:], s[1:])
	case '[':
		in, rest := classReference(p[1:], s[0])
		return in && globReference(rest, s[1:])
	case '\\':
		if len(p) > 1 {
			p = p[1:]
		}
	}
	return p[0] == s[0] && globReference(p[1:], s[1:])
}

func classReference(p string, c byte) (match bool, rest string) {
	not := strings.HasPrefix(p, "^")
	p = strings.TrimPrefix(p, "^")
	for {
		switch {
		case len(p) >= 2 && p[0] == '\\':
			match = match || p[1] == c
			p = p[2:]
		case p == "":
			return match != not, ""
		case p[0] == ']':
			return match != not, p[1:]
		case len(p) >= 3 && p[1] == '-':
			match = match || min(p[0], p[2]) <= c && c <= max(p[0], p[2])
			p = p[3:]
		default:
			match = match || p[0] == c
			p = p[1:]
		}
	}
}

func FuzzGlobMatch(f *testing.F) {
	for _, seed := range [][2]string{{"a*b?[c-d]\\e", "axxbycde"}, {"[^", "x"}, {"[a-]b", "]b"}, {"*[", "["}, {"\\", ""}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern)*len(s) > 1<<20 {
			return
		}
		got := globMatch(pattern, s)
		if strings.Count(pattern, "*") > 4 || len(s) > 64 {
			return // the reference would take for ever
		}
		if want := globReference(pattern, s); got != want {
			t.Errorf("%q with %q: %v, the reference says %v", pattern, s, got, want)
		}
	})
}
