package main

import (
	"fmt"
	"strings"
	"testing"

	"cairn/block"
	"cairn/cluster"
	"cairn/node"
)

// Nodes with GPU memory have a line of what goes on there, and a lost device is trouble.
func TestStatusShowsGPUMemory(t *testing.T) {
	with := node.Status{Node: "n1", Promoted: 7, Demoted: node.DemotionStatus{Blocks: 5, LetGo: 3}, Tiers: []node.TierStatus{
		{Tier: block.VRAM, Device: "emulated", Used: 1 << 20, Capacity: 4 << 20, Objects: 2, Pinned: 1, Hits: 9, InFlight: 64 << 10, Waits: 4},
	}}
	lost := node.Status{Node: "n2", Lost: 11, Tiers: []node.TierStatus{{Tier: block.VRAM, Device: "a GPU", Capacity: 4 << 20, Lost: true, Errors: 1}}}
	without := node.Status{Node: "n3", Tiers: []node.TierStatus{{Tier: block.Host, Capacity: 1}}}
	var out strings.Builder
	if err := printGPUs(&out, []nodeReport{{Status: &with}, {Addr: "down"}, {Status: &lost}, {Status: &without}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("want a head and two nodes:\n%s", out.String())
	}
	for i, want := range []string{
		"GPU MEMORY DEVICE USED OBJECTS PINNED HITS PROMOTED DEMOTED LET GO IN FLIGHT WAITS ERRORS",
		"n1 emulated 1.0 MiB of 4.0 MiB 2 1 9 7 5 3 64 KiB 4 0",
		"n2 a GPU lost 0 0 0 0 0 0 0 B 0 1",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d: %q, want %q", i, got, want)
		}
	}
	if got := troubleText(lost); !strings.Contains(got, "vram lost") || !strings.Contains(got, "11 blocks") {
		t.Errorf("trouble of a lost device: %q", got)
	}
	if got := troubleText(with); got != "" {
		t.Errorf("trouble of a sound one: %q", got)
	}
	out.Reset()
	if err := printGPUs(&out, []nodeReport{{Status: &without}}); err != nil || out.Len() != 0 {
		t.Errorf("without GPU memory: %q, %v", out.String(), err)
	}
}

func TestPressureFlags(t *testing.T) {
	good := pressureFlags{VRAMHigh: 0.9, VRAMLow: 0.8, VRAMBatch: 16, VRAMInFlight: 1}
	if err := good.validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*pressureFlags){
		"high": func(f *pressureFlags) { f.VRAMHigh = 1.1 }, "low": func(f *pressureFlags) { f.VRAMLow = 0 },
		"order": func(f *pressureFlags) { f.VRAMLow = 0.95 }, "batch": func(f *pressureFlags) { f.VRAMBatch = 0 },
		"in flight": func(f *pressureFlags) { f.VRAMInFlight = 0 },
	} {
		f := good
		change(&f)
		if f.validate() == nil {
			t.Errorf("%s: %+v is valid", name, f)
		}
	}
}

// A router, and so its status page, tells what engines hold of a node's GPU memory, and
// how many objects a tier has beside sealed blocks.
func TestRouterTellsOfEngines(t *testing.T) {
	s := startSystem(t, systemConfig{nodes: 1, flags: smallNode()})
	r := s.router()
	r.ready(patience)
	e := s.engineAt(s.nodes[0])
	slots, err := e.memory.Reserve(t.Context(), 60_000, 60_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slots[0].CommitName(t.Context(), "weights"); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "a slot and an object", func() error {
		var st cluster.RouterStatus
		if err := getJSON(t.Context(), "http://"+r.addr+"/v1/status", &st); err != nil {
			return err
		}
		for _, n := range st.Nodes {
			for _, tier := range n.Tiers {
				if tier.Tier == block.VRAM && tier.Engines == 64<<10 && tier.Objects == 1 && n.Blocks[block.VRAM] == 0 {
					return nil
				}
			}
		}
		return fmt.Errorf("%+v", st.Nodes)
	})
}
