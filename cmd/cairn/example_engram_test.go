package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"cairn/client"
	"cairn/engram"
	"cairn/examples/engram/atlas"
)

// The example of a shared memory against real processes: what three workers learn at
// three nodes at the same time is all there, at each of them, and docs/engrams.md shows
// what it prints.
func TestExampleEngram(t *testing.T) {
	s := startSystem(t, systemConfig{nodes: 3, flags: smallNode()})
	tour := atlas.Tour{Name: "example/atlas"}
	for _, n := range s.nodes {
		tour.Nodes = append(tour.Nodes, n.addr)
	}
	run := func(questions ...string) (string, error) {
		var out bytes.Buffer
		now := tour
		now.Out, now.Questions = &out, questions
		err := now.Run(t.Context())
		return out.String(), err
	}
	if out, err := run("capital of Japan"); !errors.Is(err, client.ErrNotFound) || !strings.Contains(err.Error(), "without a question") {
		t.Errorf("a question to nobody: %v\n%s", err, out)
	}
	out, err := run()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log("\n" + out)
	want := exampleOutput(t, "../../docs/engrams.md", "go run ./examples/engram\n")
	if got := faceless(out); got != faceless(want) {
		t.Errorf("docs/engrams.md shows\n%s\nbut it is\n%s", faceless(want), got)
	}

	// Every fact, from one node; and as plain bytes, which any client can read.
	c, err := client.Open(t.Context(), client.Config{Nodes: tour.Nodes[1:2]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := atlas.New(c, "", tour.Name)
	if err := a.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range atlas.Countries() {
		for question, want := range map[string]string{
			"capital of " + n.Name: n.Capital, "currency of " + n.Name: n.Currency,
			"country of " + n.Capital: n.Name, "country of " + n.Currency: n.Name,
			"dollar of " + n.Name: n.Currency, "Washington of " + n.Name: n.Capital,
		} {
			if got, err := a.Ask(t.Context(), question); got.Name != want || err != nil {
				t.Errorf("%s: %+v, %v, want %s", question, got, err, want)
			}
		}
	}
	stored, err := c.GetName(t.Context(), tour.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := engram.Decode(stored.Value); err != nil || v.Len() < 5000 {
		t.Errorf("%d dimensions, %v", v.Len(), err)
	}

	// What goes wrong.
	if _, err := run("hello"); !errors.Is(err, atlas.ErrQuestion) || !strings.Contains(err.Error(), "dollar of Mexico") {
		t.Errorf("no question: %v", err)
	}
	if out, err := run("capital of Atlantis"); err != nil || !strings.Contains(out, " - ") {
		t.Errorf("an unknown country: %v\n%s", err, out)
	}
	tour.Namespace = "nowhere"
	if _, err := run(); !errors.Is(err, client.ErrNamespace) {
		t.Errorf("an unknown namespace: %v", err)
	}
	tour.Namespace, tour.Nodes = "", []string{"127.0.0.1:1"}
	if _, err := run(); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "`cairn up`") {
		t.Errorf("no cluster: %v", err)
	}
	tour.Nodes = nil
	if _, err := run(); err == nil {
		t.Error("no node is named, and it runs")
	}
	s.stop()
}

// exampleOutput is what a document says that a command prints: the block behind it.
func exampleOutput(t *testing.T, file, command string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "$ "+command)
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("%s does not show %q", file, command)
	}
	return block
}

var faces = regexp.MustCompile(`[0-9][0-9.:]*|next is \S+( \S+)? with`)

// faceless leaves out what differs from run to run: numbers, and who is near by chance.
func faceless(text string) string {
	text = faces.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "next") {
			return "next is ... with"
		}
		return "#"
	})
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
