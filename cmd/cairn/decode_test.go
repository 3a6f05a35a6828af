package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/wire"
)

// TestDecode shows a message in each of the forms that it may come in.
func TestDecode(t *testing.T) {
	key := block.NamedKey("default", []byte("k"), 0)
	m := ledger.Message{Node: "n1", Incarnation: 7, Number: 3, Records: []ledger.Record{
		{Kind: ledger.Commit, Key: key, Namespace: "default", Name: []byte("k"), If: ledger.Exactly, Expect: 5<<20 | 1},
	}}
	body := m.Append(nil)
	for name, arg := range map[string]string{
		"hexadecimal": hex.EncodeToString(body), "base64": base64.StdEncoding.EncodeToString(body), "standard input": "-",
	} {
		in, err := os.Create(filepath.Join(t.TempDir(), "in"))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := in.Write(body); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		stdin := os.Stdin
		os.Stdin = in
		var out bytes.Buffer
		err = (&decodeCmd{Message: arg}).Run(&app{out: &out})
		os.Stdin = stdin
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got struct {
			Node    string
			Records []struct{ Kind, Name, Expect string }
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Node != "n1" || len(got.Records) != 1 ||
			got.Records[0].Kind != "commit" || got.Records[0].Name != "k" || got.Records[0].Expect != "5.1" {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}

// TestVersionOfTheLedger: a version on the wire is a version of the ledger, and
// both are written alike.
func TestVersionOfTheLedger(t *testing.T) {
	at := ledger.At(77, 5)
	if v := wire.Version(at); v.Sequence() != at.Sequence() || v.String() != "77.5" {
		t.Errorf("place %d is version %s", at, v)
	}
}
