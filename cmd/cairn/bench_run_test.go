package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"testing"
)

// resultsOf runs a command that answers with a list in JSON, and returns that.
func resultsOf[T any](t *testing.T, run func(*app) error) (list []T) {
	t.Helper()
	var out bytes.Buffer
	if err := run(&app{ctx: t.Context(), out: &out, err: io.Discard, log: slog.New(slog.DiscardHandler), json: true}); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	return list
}
