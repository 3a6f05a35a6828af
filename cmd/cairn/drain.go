package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/client"
	"cairn/cluster"
	"cairn/node"

	"github.com/schollz/progressbar/v3"
)

type drainCmd struct {
	natsClient
	Node  string  `arg:"" help:"Name of the node."`
	Undo  bool    `help:"Let the node take requests again, and hand over no more."`
	Wait  bool    `help:"Wait until the node has handed over the blocks and names that only it has, and say whether it may be stopped." default:"true" negatable:""`
	Evict float64 `help:"Share of its capacity, 0 to 1, for which each other node may evict blocks of its own, the longest unused first, beyond giving free room." default:"0"`
}

// handoverFlags are the limits of a node that drains; see node.Config.
type handoverFlags struct {
	HandoverShare  float64 `help:"Share of the free room of another node that this one may fill when it drains, above 0 to 1." default:"0.8"`
	HandoverChains int     `help:"Chains of blocks that are handed over at once when this node drains, and requests of draining nodes that it serves at once." default:"4"`
	HandoverRate   size    `help:"Most bytes a second that are handed over when this node drains; 0 is no limit." default:"0"`
}

func (f handoverFlags) validate() error {
	var errs []error
	if !(f.HandoverShare > 0 && f.HandoverShare <= 1) { // also refuses NaN
		errs = append(errs, fmt.Errorf("--handover-share %v: want above 0, to 1", f.HandoverShare))
	}
	if f.HandoverChains <= 0 {
		errs = append(errs, errors.New("--handover-chains: want more than 0"))
	}
	return errors.Join(errs...)
}

func (f handoverFlags) apply(c *node.Config) {
	c.HandoverShare, c.HandoverChains, c.HandoverRate = f.HandoverShare, f.HandoverChains, int64(f.HandoverRate)
}

// Run asks the node itself, which drains for as long as it lives, or until --undo.
func (c *drainCmd) Run(a *app) error {
	if err := cluster.ValidID(c.Node); err != nil {
		return usageError{err}
	}
	if !(c.Evict >= 0 && c.Evict <= 1) { // also refuses NaN
		return usage("--evict %v: want 0 to 1", c.Evict)
	}
	conn, err := c.dial(a, "cairn drain")
	if err != nil {
		return err
	}
	defer conn.Close()
	before, err := cluster.Drain(a.ctx, conn, c.Node, cluster.DrainRequest{Look: true})
	if errors.Is(err, cluster.ErrNoService) {
		return fmt.Errorf("no node is called %s on this NATS, or it does not run (cairn status shows who does): %w", c.Node, cluster.ErrNoService)
	}
	if err != nil {
		return err
	}
	s, err := cluster.Drain(a.ctx, conn, c.Node, cluster.DrainRequest{Undo: c.Undo, Evict: c.Evict})
	if err != nil && a.ctx.Err() != nil {
		return c.unanswered(a, conn)
	}
	if err != nil {
		return err
	}
	switch {
	case c.Undo && before.Draining:
		return c.say(a, s, "node %s takes requests again; what it has handed over stays with the others as well\n", c.Node)
	case c.Undo:
		return c.say(a, s, "node %s did not drain\n", c.Node)
	case !c.Wait:
		return c.say(a, s, "node %s drains: routers send it nothing new, and it hands over what only it has; cairn drain %[1]s shows how far it is\n", c.Node)
	case before.Draining:
		fmt.Fprintf(a.err, "node %s drains already; it looks again for what only it has\n", c.Node)
	}
	if s, err = c.follow(a, conn); err != nil {
		return err
	}
	return c.verdict(a, s)
}

// say writes a sentence, or the status where JSON is wanted.
func (c *drainCmd) say(a *app, s node.HandoverStatus, format string, args ...any) error {
	if a.json {
		return a.printJSON(s)
	}
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// lookEvery is how often the node is asked how far it is.
const lookEvery = 200 * time.Millisecond

// follow shows how far the node is until it has nothing left to hand over, or nobody takes
// what is left.
func (c *drainCmd) follow(a *app, conn *cluster.Conn) (node.HandoverStatus, error) {
	bar := progress(a.err, -1, "block")
	defer func() { _ = bar.Exit() }() // for people only
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s, err := cluster.Drain(a.ctx, conn, c.Node, cluster.DrainRequest{Look: true})
		switch {
		case a.ctx.Err() != nil:
			return s, c.interrupted()
		case errors.Is(err, cluster.ErrNoService):
			return s, fmt.Errorf("node %s has stopped: %w", c.Node, err)
		case err != nil:
			return s, err
		case !s.Draining:
			return s, fmt.Errorf("node %s does not drain any more: somebody has undone it, or started it anew", c.Node)
		}
		show(bar, s)
		if s.Safe || s.Phase == node.HandoverWaiting && s.Left() {
			return s, nil
		}
		select {
		case <-tick.C:
		case <-a.ctx.Done():
			return s, c.interrupted()
		}
	}
}

func (c *drainCmd) interrupted() error {
	return fmt.Errorf("%w: node %s goes on draining; cairn drain %[2]s shows how far it is, and --undo ends it", context.Canceled, c.Node)
}

// unanswered looks what has become of a request that was interrupted before its answer.
func (c *drainCmd) unanswered(a *app, conn *cluster.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), lookWait)
	defer cancel()
	s, err := cluster.Drain(ctx, conn, c.Node, cluster.DrainRequest{Look: true})
	switch {
	case err != nil:
		return fmt.Errorf("%w: node %s has not answered; cairn drain %[2]s shows whether it drains, and --undo ends it", context.Canceled, c.Node)
	case s.Draining:
		return c.interrupted()
	}
	return fmt.Errorf("%w: asked again, node %s does not drain", context.Canceled, c.Node)
}

// lookWait is how long an interrupted command waits for the node.
const lookWait = 10 * time.Second

// show brings the bar up to date.
func show(bar *progressbar.ProgressBar, s node.HandoverStatus) {
	bar.ChangeMax64(max(s.Blocks+s.LeftBlocks, 1))
	text := fmt.Sprintf("%s handed over, %s left", bytesText(s.Bytes), bytesText(s.LeftBytes))
	if s.LeftNames > 0 {
		text += fmt.Sprintf(", %d names left", s.LeftNames)
	}
	if n := refusedBlocks(s); n > 0 {
		text += fmt.Sprintf(", %d blocks refused", n)
	}
	bar.Describe(text)
	_ = bar.Set64(s.Blocks) // for people only
}

func refusedBlocks(s node.HandoverStatus) (n int64) {
	for _, count := range s.Refused {
		n += count
	}
	return n
}

// verdict says whether the node may be stopped; if not, it is an error.
func (c *drainCmd) verdict(a *app, s node.HandoverStatus) error {
	if a.json {
		if err := a.printJSON(s); err != nil {
			return err
		}
	} else {
		fmt.Fprint(a.out, doneText(s))
	}
	if s.Safe {
		if a.json {
			return nil
		}
		_, err := fmt.Fprintf(a.out, "node %s may be stopped: it has nothing that no other node has\n", c.Node)
		return err
	}
	return fmt.Errorf("%w: node %s must not be stopped yet: %s", client.ErrUnavailable, c.Node, leftText(s, c.Node))
}

// doneText says what has been handed over.
func doneText(s node.HandoverStatus) (text string) {
	if s.Names > 0 {
		text = fmt.Sprintf("%d names have another home now\n", s.Names)
	}
	var to []string
	for _, r := range s.Receivers {
		if r.Blocks > 0 {
			to = append(to, fmt.Sprintf("%s %d", r.Node, r.Blocks))
		}
	}
	if len(to) > 0 {
		text += fmt.Sprintf("%d blocks (%s) handed over: %s\n", s.Blocks, bytesText(s.Bytes), strings.Join(to, ", "))
	}
	return text
}

// leftText says what is left, why, and what to do about it.
func leftText(s node.HandoverStatus, id string) string {
	var what []string
	if s.LeftBlocks > 0 {
		what = append(what, fmt.Sprintf("%d blocks (%s)", s.LeftBlocks, bytesText(s.LeftBytes)))
	}
	if s.LeftNames > 0 {
		what = append(what, fmt.Sprintf("%d names", s.LeftNames))
	}
	text := strings.Join(what, " and ") + " are nowhere else"
	if s.Trouble != "" {
		return text + ": " + s.Trouble + ", so nobody can take them"
	}
	var reasons []string
	for why, n := range s.Refused {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, refusalText(why)))
	}
	slices.Sort(reasons)
	if len(reasons) > 0 {
		text += ": " + strings.Join(reasons, ", ")
	}
	if s.Refused[node.TakeFull] > 0 {
		text += fmt.Sprintf("; give the others room, add a node, or let them evict: cairn drain %s --evict 0.1", id)
	}
	return text
}

// refusalText is why blocks were not taken, in words.
func refusalText(why node.TakeRefusal) string {
	switch why {
	case node.TakeFull:
		return "for which nobody has free room"
	case node.TakeCut:
		return "whose sequence's beginning nobody has"
	case node.TakeAbsent:
		return "that went away meanwhile"
	case node.TakePeer:
		return "that could not be sent"
	case node.TakeDraining:
		return "that others refuse because they drain"
	case node.TakeFailed:
		return "that the others' disks refuse"
	case node.TakeNobody:
		return "that nobody could take"
	}
	return "refused as " + string(why)
}
