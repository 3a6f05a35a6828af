package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"cairn/resp"
)

// TestSequencesDoc plays docs/sequences.md: what stands there is what a node answers.
func TestSequencesDoc(t *testing.T) {
	text, err := os.ReadFile("../../docs/sequences.md")
	if err != nil {
		t.Fatal(err)
	}
	s := startSystem(t, systemConfig{nodes: 1, flags: smallNode()})
	conn, err := resp.Dial(t.Context(), "tcp", s.nodes[0].addr, resp.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Begin(t.Context())
	steps := regexp.MustCompile(`(?m)^> (.*)\n(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(steps) < 20 {
		t.Fatalf("%d steps", len(steps))
	}
	for _, step := range steps {
		want := regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(step[2]), "…", ".+") + "$")
		if got := askShell(t, conn, step[1]); !want.MatchString(got) {
			t.Errorf("%s\n got %q\nwant %q", step[1], got, step[2])
		}
	}
}

// askShell sends a command as a person types it, and returns the answer on one line: maps
// as name=value.
func askShell(t *testing.T, conn *resp.Conn, line string) string {
	t.Helper()
	var args [][]byte
	for _, word := range regexp.MustCompile(`'[^']*'|"(?:[^"\\]|\\.)*"|\S+`).FindAllString(line, -1) {
		switch word[0] {
		case '\'':
			word = word[1 : len(word)-1]
		case '"':
			var err error
			if word, err = strconv.Unquote(word); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, []byte(word))
	}
	conn.Append(string(args[0]), args[1:]...)
	v, err := conn.ReadReply()
	var refusal resp.ServerError
	switch {
	case errors.As(err, &refusal):
		return string(refusal)
	case err != nil:
		t.Fatal(err)
	case v.Kind != resp.Array:
		return v.Text()
	}
	var words []string
	for i := 0; i < len(v.Elems); i++ {
		word := v.Elems[i].Text()
		if !strings.Contains(line, "CAIRN.SEQ.READ") {
			i++
			word = fmt.Sprintf("%s=%s", word, v.Elems[i].Text())
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}
