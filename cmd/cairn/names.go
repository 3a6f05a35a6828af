package main

import (
	"fmt"
	"time"

	"cairn/client"
)

type casCmd struct {
	connection
	Name   string        `arg:"" help:"Name of the block."`
	Expect versionNumber `arg:"" help:"The version that it must have, as get --version says it; 0: it must not exist."`
	File   string        `arg:"" optional:"" help:"File with its new bytes; standard input by default, and for -." type:"path"`
	Policy string        `help:"Write policy, write-back, write-through or write-all; the namespace's by default." enum:",write-back,write-through,write-all" default:""`
	TTL    time.Duration `name:"ttl" help:"Let the name end after this time."`
}

// Run prints the new version, so that a script can go on from it.
func (c *casCmd) Run(a *app) error {
	if _, sealed := asKey(c.Name); sealed {
		return usage("%s is the key of a block, whose bytes never change: cas is for names", c.Name)
	}
	if c.TTL < 0 {
		return usage("--ttl %v: want more than 0", c.TTL)
	}
	p, err := readPayload(c.File)
	if err != nil {
		return err
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	opts := []client.PutOption{client.WithTTL(c.TTL), client.WithPolicy(c.Policy)}
	v, err := cl.CompareAndSet(a.ctx, c.Name, c.Expect.Version, p, opts...)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"name": c.Name, "version": v, "bytes": len(p), "session": cl.Session()})
	}
	_, err = fmt.Fprintln(a.out, v)
	return err
}

type barrierCmd struct {
	connection
}

// Run prints the number of the epoch that begins.
func (c *barrierCmd) Run(a *app) error {
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	epoch, err := cl.Barrier(a.ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"epoch": epoch})
	}
	_, err = fmt.Fprintln(a.out, epoch)
	return err
}

type clearCmd struct {
	connection
	What string `arg:"" name:"namespace" help:"Namespace whose names are deleted, all at once. Blocks with a key stay."`
}

func (c *clearCmd) Run(a *app) error {
	if c.Namespace != "" && c.Namespace != c.What {
		return usage("clear %s --namespace %s: name one namespace", c.What, c.Namespace)
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.Clear(a.ctx, c.What); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"cleared": c.What, "session": cl.Session()})
	}
	_, err = fmt.Fprintf(a.out, "cleared namespace %s\n", c.What)
	return err
}

type watchCmd struct {
	connection
	Name  string `arg:"" help:"Name of the block."`
	Count int    `help:"End after so many changes; 0 is never."`
}

// Run prints a line for the present state, and one for each change that it hears of.
func (c *watchCmd) Run(a *app) error {
	if _, sealed := asKey(c.Name); sealed {
		return usage("%s is the key of a block, whose bytes never change: watch is for names", c.Name)
	}
	if c.Count < 0 {
		return usage("--count %d: want 0 or more", c.Count)
	}
	cl, err := c.open(a.ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	seen := 0
	for ev, err := range cl.Watch(a.ctx, "", c.Name) {
		if err == nil {
			err = c.show(a, ev)
		}
		if seen++; err != nil || seen == c.Count {
			return err
		}
	}
	return nil // interrupted
}

func (c *watchCmd) show(a *app, ev client.Event) error {
	now := time.Now()
	if a.json {
		return a.printLine(map[string]any{"name": c.Name, "version": ev.Version, "exists": ev.Exists, "time": now})
	}
	what := "changed"
	if !ev.Exists {
		what = "absent"
	}
	_, err := fmt.Fprintf(a.out, "%s  %s  version %s\n", now.Format(timeFormat), what, ev.Version)
	return err
}

// timeFormat is how moments are shown to people.
const timeFormat = "2006-01-02 15:04:05.000"
