package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
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
	Name        string      `arg:"" help:"Name of the block, or its key: 32 hexadecimal digits."`
	Output      string      `short:"o" help:"File to write to; standard output by default." type:"path" placeholder:"FILE"`
	Consistency consistency `help:"How fresh a name must be: strict, session[=SEQUENCE], bounded=50ms or local." default:"strict"`
	Version     bool        `help:"Say the version of a name, for put --expect-version and cas, on standard error." env:"-"`
}

func (c *getCmd) Run(a *app) error {
	key, sealed := asKey(c.Name)
	if sealed && (c.Version || c.Consistency.text != "strict") {
		return usage("--version and --consistency are for names; the bytes of a block with a key never change")
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	var v client.Versioned
	if sealed {
		v.Value, err = cl.Get(a.ctx, key, nil)
	} else {
		cl.Resume(c.Consistency.session)
		v, err = cl.GetName(a.ctx, c.Name, nil, c.Consistency.option)
	}
	if !sealed && c.Consistency.text == "strict" && errors.Is(err, client.ErrUnavailable) {
		return fmt.Errorf("%w; --consistency local gives what the node knows, however old it is", err)
	}
	if err != nil {
		return err
	}
	if c.Version {
		fmt.Fprintf(a.err, "version %s, at most %v old\n", v.Version, v.Age)
	}
	if c.Output != "" {
		return os.WriteFile(c.Output, v.Value, 0o644)
	}
	_, err = a.out.Write(v.Value)
	return err
}

// consistency is how fresh a read of a name must be, as people write it.
type consistency struct {
	text    string
	option  client.GetOption
	session uint64
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *consistency) UnmarshalText(text []byte) (err error) {
	word, value, given := strings.Cut(string(text), "=")
	*c = consistency{text: string(text)}
	switch {
	case word == "strict" && !given:
		c.option = client.Strict()
	case word == "local" && !given:
		c.option = client.Local()
	case word == "session":
		c.option = client.Session()
		if given {
			c.session, err = strconv.ParseUint(value, 10, 63)
		}
	case word == "bounded" && given:
		var d time.Duration
		if d, err = time.ParseDuration(value); d < 0 {
			err = errors.New("negative")
		}
		c.option = client.Bounded(d)
	default:
		err = errors.New("no such level")
	}
	if err != nil {
		return fmt.Errorf("%q: want strict, session, session=SEQUENCE, bounded=50ms or local", text)
	}
	return nil
}

type putCmd struct {
	connection
	Name          string         `arg:"" help:"Name of the block, or its key: 32 hexadecimal digits."`
	File          string         `arg:"" optional:"" help:"File with its bytes; standard input by default, and for -." type:"path"`
	Parent        string         `help:"Key of the block before it in its sequence."`
	Policy        string         `help:"Write policy, write-back, write-through or write-all; the namespace's by default." enum:",write-back,write-through,write-all" default:""`
	TTL           time.Duration  `name:"ttl" help:"Let the name end after this time."`
	IfAbsent      bool           `help:"Fail if the name is taken." xor:"condition"`
	IfPresent     bool           `help:"Fail if there is no such name." xor:"condition"`
	ExpectVersion *versionNumber `help:"Fail if the name has another version; 0 is that of one that does not exist." xor:"condition" placeholder:"VERSION"`
}

// versionNumber is a version of a name as people write it.
type versionNumber struct{ client.Version }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *versionNumber) UnmarshalText(text []byte) (err error) {
	if v.Version, err = client.ParseVersion(string(text)); err != nil {
		err = fmt.Errorf("%w; cairn get --version NAME says it", err)
	}
	return err
}

func (c *putCmd) Run(a *app) error {
	p, err := readPayload(c.File)
	if err != nil {
		return err
	}
	key, sealed := asKey(c.Name)
	var opts []client.PutOption
	if c.Policy != "" {
		opts = append(opts, client.WithPolicy(c.Policy))
	}
	if !sealed {
		return c.putName(a, p, opts)
	}
	if c.TTL > 0 || c.IfPresent || c.ExpectVersion != nil {
		return usage("--ttl, --if-present and --expect-version are for names; a block with a key never changes, and lives until it is evicted or deleted")
	}
	var parent block.Key
	if c.Parent != "" {
		if parent, err = block.ParseKey(c.Parent); err != nil {
			return usageError{err}
		}
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	stored, err := cl.Put(a.ctx, key, parent, p, opts...)
	if err != nil {
		return err
	}
	return c.report(a, stored, map[string]any{"name": c.Name, "stored": stored, "bytes": len(p)})
}

func (c *putCmd) putName(a *app, p []byte, opts []client.PutOption) error {
	if c.Parent != "" {
		return usage("--parent is for blocks with a key; %q is a name", c.Name)
	}
	if c.TTL < 0 {
		return usage("--ttl %v: want more than 0", c.TTL)
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if c.TTL > 0 {
		opts = append(opts, client.WithTTL(c.TTL))
	}
	report := map[string]any{"name": c.Name, "stored": true, "bytes": len(p)}
	if c.ExpectVersion != nil {
		var v client.Version
		v, err = cl.CompareAndSet(a.ctx, c.Name, c.ExpectVersion.Version, p, opts...)
		report["version"] = v
	} else {
		if c.IfAbsent {
			opts = append(opts, client.IfAbsent())
		}
		if c.IfPresent {
			opts = append(opts, client.IfPresent())
		}
		if err = cl.PutName(a.ctx, c.Name, p, opts...); c.IfPresent && errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("%w; to make it leave --if-present out", err)
		}
	}
	if err != nil {
		return err
	}
	report["session"] = cl.Session()
	return c.report(a, true, report)
}

// readPayload reads the bytes to store from a file or, for "" and "-", standard input,
// never more than any node accepts.
func readPayload(file string) ([]byte, error) {
	in := io.Reader(os.Stdin)
	if file != "" && file != "-" {
		f, err := os.Open(file)
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

func (c *putCmd) report(a *app, stored bool, report map[string]any) error {
	if a.json {
		return a.printJSON(report)
	}
	if !stored {
		_, err := fmt.Fprintln(a.out, "exists already, with the same bytes")
		return err
	}
	_, err := fmt.Fprintf(a.out, "stored %s\n", bytesText(int64(report["bytes"].(int))))
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
