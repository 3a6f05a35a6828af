package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cairn/client"
	"cairn/internal/replay"
	"cairn/internal/trace"
)

// demoCmd shows the whole of Cairn in under a minute: a cluster, a real trace
// through it, every byte checked, once with room for everything and once with a
// tenth of that.
type demoCmd struct {
	replayFlags
	Nodes int    `help:"Number of nodes." default:"3"`
	Data  string `help:"Directory of the data; a temporary one, removed at the end, by default." type:"path" placeholder:"DIR"`
	Tenth bool   `help:"Run again with a tenth of the capacity." default:"true" negatable:""`
}

func (c *demoCmd) Run(a *app) error {
	bound, err := trace.Measure(trace.Bundled())
	if err != nil {
		return err
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cairn-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	need := size(bound.Distinct) * c.Block
	fmt.Fprintf(a.err, "cairn demo: %s\n%d requests, %d block references, %d different blocks of %v: %v\n\n",
		trace.BundledName, bound.Requests, bound.References, bound.Distinct, c.Block, need)

	// Blocks are kept on disk, with copies of the newest in memory. A sixteenth
	// more is for headers and what is being reclaimed.
	share := need / size(c.Nodes)
	full, err := c.round(a, filepath.Join(dir, "full"), "room for everything", need+need/16+64<<20, share/2+64<<20, bound.Requests)
	if err != nil || !c.Tenth {
		return err
	}
	flags := c.replayFlags
	if flags.Report != "off" && flags.Report != "" {
		flags.Report = strings.TrimSuffix(flags.Report, ".html") + "-tenth.html"
	}
	tenthCmd := *c
	tenthCmd.replayFlags = flags
	tenth, err := tenthCmd.round(a, filepath.Join(dir, "tenth"), "a tenth of the room", share/10, max(share/40, 16*c.Block), bound.Requests)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "\nhit ratio: %.2f%% with room for everything, %.2f%% with a tenth; an infinite cache has %.2f%%\n",
		100*full.HitRatio, 100*tenth.HitRatio, 100*full.BoundRatio)
	return nil
}

// round replays the bundled trace through a fresh cluster whose nodes have so much
// disk and host memory.
func (c *demoCmd) round(a *app, dir, what string, disk, host size, total int) (s replay.Summary, err error) {
	fmt.Fprintf(a.err, "%s: %d nodes, each with %v of host memory and %v of disk\n", what, c.Nodes, host, disk)
	began := time.Now()
	up := upCmd{
		Nodes: c.Nodes, Data: dir, Port: 0, Router: "127.0.0.1:0", Lease: 5 * time.Second,
		Host: host, Disk: disk, VRAM: vramSize(max(host/4, 64*c.Block)), Class: []size{4 << 10, c.Block},
		natsServer: natsServer{NATSListen: "127.0.0.1:0", NATSName: "cairn-demo", NATSMaxStore: 4 << 30, NATSMaxMemory: 256 << 20},
	}
	u, err := up.start(a)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, u.stop()) }()
	fmt.Fprintf(a.err, "up in %v: %s; status page http://%s/\n", time.Since(began).Round(time.Millisecond), strings.Join(u.addrs(), ", "), u.router.addr)
	cl, err := client.Open(a.ctx, client.Config{Nodes: u.addrs(), Router: "http://" + u.router.addr})
	if err != nil {
		return s, err
	}
	defer cl.Close()
	s, err = c.run(a, cl, trace.Bundled(), trace.BundledName+", "+what, total)
	return s, c.finish(a, s, err)
}
