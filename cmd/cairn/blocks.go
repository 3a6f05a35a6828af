package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"cairn/block"
	"cairn/client"
)

// asKey tells a block's key, 32 hexadecimal digits with or without "block:" in
// front, from a name.
func asKey(s string) (block.Key, bool) {
	const prefix = "block:"
	if len(s) == len(prefix)+2*block.KeySize && s[:len(prefix)] == prefix {
		s = s[len(prefix):]
	}
	k, err := block.ParseKey(s)
	return k, err == nil
}

type getCmd struct {
	connection
	Name   string `arg:"" help:"Name of the block, or its key: 32 hexadecimal digits."`
	Output string `short:"o" help:"File to write to; standard output by default." type:"path" placeholder:"FILE"`
}

func (c *getCmd) Run(a *app) error {
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	var p []byte
	if key, ok := asKey(c.Name); ok {
		p, err = cl.Get(a.ctx, key, nil)
	} else {
		var v client.Versioned
		v, err = cl.GetName(a.ctx, c.Name, nil)
		p = v.Value
	}
	if err != nil {
		return err
	}
	if c.Output != "" {
		return os.WriteFile(c.Output, p, 0o644)
	}
	_, err = a.out.Write(p)
	return err
}

type putCmd struct {
	connection
	Name     string        `arg:"" help:"Name of the block, or its key: 32 hexadecimal digits."`
	File     string        `arg:"" optional:"" help:"File with its bytes; standard input by default, and for -." type:"path"`
	Parent   string        `help:"Key of the block before it in its sequence."`
	Policy   string        `help:"Write policy: ${enum}; the namespace's by default." enum:",write-back,write-through,write-all" default:""`
	TTL      time.Duration `name:"ttl" help:"Let the name end after this time."`
	IfAbsent bool          `help:"Fail if the name is taken."`
}

func (c *putCmd) Run(a *app) error {
	p, err := c.read()
	if err != nil {
		return err
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	var opts []client.PutOption
	if c.Policy != "" {
		opts = append(opts, client.WithPolicy(c.Policy))
	}
	key, sealed := asKey(c.Name)
	if !sealed {
		if c.Parent != "" {
			return usage("--parent is for blocks with a key; %q is a name", c.Name)
		}
		if c.TTL > 0 {
			opts = append(opts, client.WithTTL(c.TTL))
		}
		if c.IfAbsent {
			opts = append(opts, client.IfAbsent())
		}
		if err := cl.PutName(a.ctx, c.Name, p, opts...); err != nil {
			return err
		}
		return c.report(a, true, len(p))
	}
	if c.TTL > 0 {
		return usage("--ttl is for names; a block with a key lives until it is evicted or deleted")
	}
	var parent block.Key
	if c.Parent != "" {
		if parent, err = block.ParseKey(c.Parent); err != nil {
			return usageError{err}
		}
	}
	stored, err := cl.Put(a.ctx, key, parent, p, opts...)
	if err != nil {
		return err
	}
	return c.report(a, stored, len(p))
}

// read reads the bytes to store, never more than any node accepts.
func (c *putCmd) read() ([]byte, error) {
	in := io.Reader(os.Stdin)
	if c.File != "" && c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close()
		in = f
	}
	p, err := io.ReadAll(io.LimitReader(in, block.MaxLength+1))
	if err == nil && len(p) > block.MaxLength {
		err = usage("more than %s: no block is larger", bytesText(block.MaxLength))
	}
	return p, err
}

func (c *putCmd) report(a *app, stored bool, length int) error {
	if a.json {
		return a.printJSON(map[string]any{"name": c.Name, "stored": stored, "bytes": length})
	}
	if !stored {
		_, err := fmt.Fprintln(a.out, "exists already, with the same bytes")
		return err
	}
	_, err := fmt.Fprintf(a.out, "stored %s\n", bytesText(int64(length)))
	return err
}

type rmCmd struct {
	connection
	Names []string `arg:"" name:"name" help:"Names or keys of blocks."`
}

func (c *rmCmd) Run(a *app) error {
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	var missing error
	for _, name := range c.Names {
		target := name
		if key, ok := asKey(name); ok {
			target = "block:" + key.String()
		}
		was, err := cl.DeleteName(a.ctx, target)
		switch {
		case err != nil:
			return err
		case !was:
			missing = errors.Join(missing, fmt.Errorf("%s: %w", name, client.ErrNotFound))
		}
	}
	return missing
}

type lsCmd struct {
	connection
	Pattern string `arg:"" optional:"" help:"Pattern of names, as Redis's SCAN takes it: * ? [a-z]." default:"*"`
	Blocks  bool   `help:"List the sealed blocks of the node as well; names only by default."`
	Limit   int    `help:"Stop after so many; 0 is never." default:"1000"`
}

// Run lists with SCAN, so that a node never has to hold a long answer.
func (c *lsCmd) Run(a *app) error {
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	node, err := cl.Node(c.Nodes[0])
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.out)
	defer out.Flush()
	names := []string{}
	for name, err := range node.Scan(a.ctx, c.Pattern) {
		if err != nil {
			return err
		}
		if _, isKey := asKey(name); isKey && !c.Blocks {
			break // names come first
		}
		if c.Limit > 0 && len(names) == c.Limit {
			fmt.Fprintf(a.err, "more than %d: give a pattern, or --limit 0\n", c.Limit)
			break
		}
		names = append(names, name)
		if !a.json {
			fmt.Fprintln(out, name)
		}
	}
	if a.json {
		return a.printJSON(names)
	}
	return nil
}

type healthCmd struct {
	Addrs   []string      `arg:"" name:"addr" help:"Data address of a node (host:port, unix:/path), or URL of a router or NATS server (http://…, nats://…)."`
	Timeout time.Duration `help:"Limit of each question." default:"3s"`
}

func (c *healthCmd) Run(a *app) error {
	for _, addr := range c.Addrs {
		ctx, cancel := context.WithTimeout(a.ctx, c.Timeout)
		err := healthy(ctx, addr)
		cancel()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", client.ErrUnavailable, addr, err)
		}
	}
	return nil
}

// pingNode asks a node's data plane.
func pingNode(ctx context.Context, addr string) error {
	cl, err := client.Open(ctx, client.Config{Nodes: []string{addr}})
	if err == nil {
		cl.Close()
	}
	return err
}

// readFileOrStdin reads a small file; "-" is standard input.
func readFileOrStdin(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, maxRequest))
	}
	return os.ReadFile(path)
}

// maxRequest bounds a request read from standard input, in bytes.
const maxRequest = 64 << 20
