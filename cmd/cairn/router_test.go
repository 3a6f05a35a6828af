package main

import (
	"encoding/json"
	"strings"
	"testing"

	"cairn/sequence"
)

// The golden values are those of package sequence: tokens 1 to 12, blocks of 4,
// salt 1337.
func TestHashTokens(t *testing.T) {
	tokens := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	h, err := hashTokens(json.RawMessage(`{"model":"m","block_size":4,"hash":"xxh3","seed":1337}`), tokens)
	keys := h.Keys
	if err != nil || h.Layout.BlockTokens != 4 || h.Layout.Hash != "xxh3" || len(keys) != 3 {
		t.Fatal(h, err)
	}
	if got := sequence.SequenceHash(keys[2]); got != 12583592247330656132 {
		t.Errorf("third sequence hash is %d", got)
	}
	own, err := hashTokens(json.RawMessage(`{"model":"m","block_size":4}`), tokens)
	if err != nil || len(own.Keys) != 3 || own.Keys[0] == keys[0] || own.Layout.Hash != "sha256" || own.Layout.Salt == h.Layout.Salt {
		t.Error(own, err)
	}
	for text, want := range map[string]string{
		`{"model":"m","block_size":4,"hash":"md5"}`: `unknown hash "md5"`,
		`{"model":"m","block_size":4,"seed":1}`:     "seed goes with hash xxh3",
		`{"model":"m","block_size":0}`:              "block",
		`{"modl":"m"}`:                              "modl",
		`[]`:                                        "namespace",
	} {
		if _, err := hashTokens(json.RawMessage(text), tokens); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		}
	}
}
