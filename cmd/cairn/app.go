package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"cairn/client"
	"cairn/cluster"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
)

// The exit codes; the description of the program lists them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitConflict    = 5
	exitWrongBytes  = 6
	exitUnknown     = 7
)

var (
	// errUsage marks an error that the user's input explains.
	errUsage = errors.New("usage")
	// errWrongBytes: a read returned other bytes than were written.
	errWrongBytes = errors.New("wrong bytes were read")
	// errSilent marks an error that has been shown already.
	errSilent = errors.New("")
)

// usage makes an error that ends with the exit code for wrong usage.
func usage(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

type usageError struct{ error }

func (e usageError) Is(target error) bool { return target == errUsage }
func (e usageError) Unwrap() error        { return e.error }

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage), errors.Is(err, client.ErrNamespace):
		return exitUsage
	case errors.Is(err, client.ErrUnknownOutcome):
		return exitUnknown
	case errors.Is(err, errWrongBytes), errors.Is(err, client.ErrCorrupt):
		return exitWrongBytes
	case errors.Is(err, client.ErrNotFound):
		return exitNotFound
	case errors.Is(err, client.ErrConflict), errors.Is(err, client.ErrExists), errors.Is(err, cluster.ErrMemberExists):
		return exitConflict
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrFull), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, client.ErrNoHome), errors.Is(err, client.ErrUnreachable),
		errors.Is(err, cluster.ErrUnreachable), errors.Is(err, cluster.ErrNoJetStream), errors.Is(err, cluster.ErrNoService):
		return exitUnavailable
	default:
		return exitFailure
	}
}

// app is what every command gets.
type app struct {
	ctx  context.Context // ends with SIGINT or SIGTERM
	out  io.Writer
	err  io.Writer
	env  []string
	log  *slog.Logger
	json bool
}

// printJSON writes v to standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false) // people read it too
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine writes v to standard output in one line, for answers that go on.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// advice says what to do about an error, or nothing.
func advice(err error) string {
	var conflict *client.ConflictError
	switch {
	case errors.Is(err, client.ErrUnknownOutcome):
		return "; the change may have been made: read the name before you try again"
	case errors.As(err, &conflict) && conflict.Version == 0:
		return "; there is no such name: expect version 0 to make it"
	case errors.As(err, &conflict):
		return fmt.Sprintf("; read it again, and expect version %s", conflict.Version)
	case errors.Is(err, client.ErrExists):
		return "; to overwrite it leave --if-absent out, or say the version with --expect-version"
	case errors.Is(err, client.ErrTooLarge):
		return "; a node's --max-block and --classes say how large a block may be"
	case errors.Is(err, client.ErrNoHome):
		return "; cairn status shows which nodes are up: one with a disk is needed"
	case errors.Is(err, client.ErrUnreachable):
		return "; cairn explain NAME shows which nodes should have them"
	}
	return ""
}

// logLevel is the level that auto stands for.
func logLevel(level, command string) string {
	if level != "auto" {
		return level
	}
	switch command {
	case "node", "router", "nats":
		return "info"
	}
	return "warn"
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // the parser admits only its words
	o := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// groups are the headings of the help.
var groups = []kong.Group{
	{Key: "cluster", Title: "Run:"},
	{Key: "blocks", Title: "Blocks:"},
	{Key: "look", Title: "Look:"},
	{Key: "measure", Title: "Measure:"},
	{Key: "doctor", Title: "Doctor:"},
	{Key: "nats", Title: "NATS:"},
	{Key: "limits", Title: "Limits:"},
	{Key: "cost", Title: "Cost model:"},
}

// size is a number of bytes as people write it: 64KiB, 1.5GiB, 4096.
type size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is no size: want a number of bytes such as 4096, 64KiB, 1.5GiB", text)
	}
	*s = size(n)
	return nil
}

// String is the size with a unit.
func (s size) String() string { return bytesText(int64(s)) }

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// connection is how a command reaches the cluster.
type connection struct {
	Nodes     []string      `name:"node" help:"Data address of a node, host:port or unix:/path; more are used when one fails. Default: the nodes that --router names, or 127.0.0.1:7070." placeholder:"ADDR"`
	RouterURL string        `name:"router" help:"HTTP address of a router; without one, nodes are asked for routes." placeholder:"URL"`
	Namespace string        `help:"Namespace of names; the node's first by default."`
	Timeout   time.Duration `help:"Limit of one call." default:"30s"`
}

// defaultNode is asked when neither a node nor a router is named.
const defaultNode = "127.0.0.1:7070"

// find makes Nodes those of the router where only a router is named.
func (c *connection) find(ctx context.Context) (err error) {
	switch {
	case len(c.Nodes) > 0:
	case c.RouterURL == "":
		c.Nodes = []string{defaultNode}
	default:
		c.Nodes, err = memberAddrs(ctx, c.RouterURL)
		if err == nil && len(c.Nodes) == 0 {
			err = fmt.Errorf("%w: router %s knows no live node", client.ErrUnavailable, c.RouterURL)
		}
	}
	return err
}

func (c *connection) open(ctx context.Context) (*client.Client, error) {
	if err := c.find(ctx); err != nil {
		return nil, err
	}
	cl, err := client.Open(ctx, client.Config{Nodes: c.Nodes, Router: c.RouterURL, Namespace: c.Namespace, Timeout: c.Timeout})
	if err != nil && !errors.Is(err, client.ErrUnavailable) {
		return nil, usageError{err}
	}
	return cl, err
}
