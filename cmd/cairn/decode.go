package main

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"strings"

	"cairn/coherency/ledger"
)

type decodeCmd struct {
	Message string `arg:"" optional:"" help:"The message's bytes in hexadecimal or base64; standard input by default, which may also have the bytes themselves."`
}

// Run prints one message, as "nats subscribe --translate 'cairn decode'" wants it.
func (c *decodeCmd) Run(a *app) error {
	data := []byte(c.Message)
	if c.Message == "" || c.Message == "-" {
		var err error
		if data, err = io.ReadAll(io.LimitReader(os.Stdin, maxRequest)); err != nil {
			return err
		}
	}
	var m ledger.Message
	err := ledger.Decode(data, &m)
	if err == nil {
		return a.printJSON(m)
	}
	text := strings.TrimSpace(string(data))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		plain, e := decode(text)
		if e != nil {
			continue
		}
		if err = ledger.Decode(plain, &m); err == nil {
			return a.printJSON(m)
		}
	}
	return usage("no message of the coherence log: %w; it takes the body of one message of stream CAIRN_COH_0", err)
}
