package sequence

import (
	"errors"
	"strings"
	"testing"
)

func TestParseNamespace(t *testing.T) {
	salt, err := Namespace{Tenant: "a", Model: "m", BlockSize: 16}.Salt()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Keying{
		`{"tenant":"a","model":"m","block_size":16}`:                 {16, salt, SHA256{}, "sha256"},
		` {"tenant":"a","model":"m","block_size":16,"hash":"xxh3"} `: {16, salt, XXH3{}, "xxh3"},
		`{"block_size":4,"hash":"xxh3","seed":1337}`:                 {4, SeedSalt(1337), XXH3{}, "xxh3"},
		`{"model":"m","block_size":4,"hash":"xxh3","seed":0}`:        {4, SeedSalt(0), XXH3{}, "xxh3"},
	} {
		if got, err := ParseNamespace([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		``:                               "EOF",
		`llama`:                          "invalid character",
		`1`:                              "a number is no object",
		`{"model":"m","block_size":4}{}`: "something follows",
		`{"model":"m","block_size":4} x`: "something follows",
		`{"model":"m"}`:                  "block size out of range: 0 tokens",
		`{"block_size":4}`:               "model is empty",
		`{"model":"m","block_size":"4"}`: "block_size cannot be a string",
		`{"model":"m","block_size":4.5}`: "block_size cannot be a number 4.5",
		`{"model":"m","blocksize":4}`:    `unknown field "blocksize"`,
		`{"model":"m","block_size":4,"hash":"md5"}`: `unknown hash "md5"`,
		`{"model":"m","block_size":4,"seed":1}`:     "seed goes with hash xxh3",
		`{"block_size":0,"hash":"xxh3","seed":1}`:   "block size out of range",
		`{"block_size":4,"hash":"xxh3","seed":-1}`:  "seed cannot be a number -1",
	} {
		_, err := ParseNamespace([]byte(text))
		if !errors.Is(err, ErrNamespace) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "struct") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
