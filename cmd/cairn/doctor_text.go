package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"cairn/internal/doctor"

	"golang.org/x/sys/unix"
)

// display is what a text is written for.
type display struct {
	columns int
	colour  bool
}

const (
	// plainColumns is the width where the output is no terminal.
	plainColumns = 100
	// leastColumns keeps a text readable on the narrowest terminal.
	leastColumns = 60
)

// displayOf asks the output. There is no colour unless it is a terminal, nor with
// NO_COLOR or TERM=dumb (no-color.org).
func displayOf(w io.Writer, env []string) display {
	t := display{columns: plainColumns}
	f, ok := w.(*os.File)
	if !ok {
		return t
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return t
	}
	if size.Col > 0 {
		t.columns = max(int(size.Col), leastColumns)
	}
	t.colour = wantsColour(env)
	return t
}

func wantsColour(env []string) bool {
	return !slices.ContainsFunc(env, func(s string) bool {
		return s == "TERM=dumb" || strings.HasPrefix(s, "NO_COLOR=") && s != "NO_COLOR="
	})
}

// Colours of a terminal: SGR parameters of ECMA-48.
const (
	bold   = "1"
	red    = "31;1"
	green  = "32"
	yellow = "33"
)

func (t display) paint(colour, text string) string {
	if !t.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// groupTitles are the headings of the report.
var groupTitles = map[string]string{
	doctor.GPU: "GPU memory", doctor.Memory: "Host memory", doctor.Disk: "Disk", doctor.Network: "Network", doctor.System: "System",
}

// doctorText is the report for people: a line for each result, in groups, with the
// advice below.
func doctorText(report doctorReport, t display) string {
	const mark = 4 // the longest level
	name := 0
	for _, r := range report.Results {
		name = max(name, utf8.RuneCountInString(r.Name))
	}
	margin := 2 + mark + 2 + name + 2
	var b strings.Builder
	fmt.Fprintf(&b, "cairn %s on this machine, as node %s\n", report.Version, report.Node)
	group := ""
	for _, r := range report.Results {
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(&b, "\n%s\n", t.paint(bold, groupTitles[group]))
		}
		colour := map[doctor.Level]string{doctor.OK: green, doctor.Warn: yellow, doctor.Bad: red}[r.Level]
		fmt.Fprintf(&b, "  %s  %-*s  ", t.paint(colour, fmt.Sprintf("%-*s", mark, r.Level)), name, r.Name)
		for i, line := range wrap(r.Found, t.columns-margin) {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", margin))
			}
			b.WriteString(line + "\n")
		}
		if r.Advice == "" {
			continue
		}
		for i, line := range wrap(r.Advice, t.columns-margin-2) {
			lead := "  "
			if i == 0 {
				lead = "→ "
			}
			b.WriteString(strings.Repeat(" ", margin) + t.paint(colour, lead+line) + "\n")
		}
	}
	b.WriteString("\n" + doctorSummary(report, t) + "\n")
	return b.String()
}

// doctorSummary counts the results.
func doctorSummary(report doctorReport, t display) string {
	var count [doctor.Bad + 1]int
	for _, r := range report.Results {
		count[r.Level]++
	}
	text := t.paint(green, fmt.Sprintf("%d ok", count[doctor.OK]))
	if n := count[doctor.Warn]; n > 0 {
		text += ", " + t.paint(yellow, fmt.Sprintf("%d to look at", n))
	}
	if n := count[doctor.Bad]; n > 0 {
		text += ", " + t.paint(red, fmt.Sprintf("%d bad", n))
	}
	return text
}

// wrap breaks a text into lines of at most width runes, at spaces, but not inside of
// commands, which people copy; what is longer has a line for itself. There is at
// least one line.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range unbroken(text, width) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// unbroken are the words of a text; what stands in backquotes is one, where it fits a line.
func unbroken(text string, width int) []string {
	var words []string
	quoted := false // the last word has begun with a backquote
	for _, word := range strings.Fields(text) {
		if n := len(words) - 1; quoted && utf8.RuneCountInString(words[n])+1+utf8.RuneCountInString(word) <= width {
			words[n] += " " + word
		} else {
			words = append(words, word)
		}
		if strings.Count(word, "`")%2 == 1 {
			quoted = !quoted
		}
	}
	return words
}

// progressLine tells on a terminal what takes a while, in one line that is gone
// afterwards.
type progressLine struct {
	w    io.Writer
	term bool
}

func newProgress(w io.Writer) *progressLine {
	p := &progressLine{w: w}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		p.term = err == nil
	}
	return p
}

const eraseLine = "\r\x1b[K"

func (p *progressLine) show(text string) {
	if p.term {
		fmt.Fprint(p.w, eraseLine+"cairn: "+text+"…")
		return
	}
	fmt.Fprintln(p.w, "cairn: "+text)
}

func (p *progressLine) end() {
	if p.term {
		fmt.Fprint(p.w, eraseLine)
	}
}
