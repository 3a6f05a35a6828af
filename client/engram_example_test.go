package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"cairn/client"
	"cairn/engram"
)

// Two agents share a memory of pairs. Each binds a key to a value and bundles that in;
// whoever asks unbinds the key, and looks which value it knows is nearest.
func ExampleClient_Engram() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	space := engram.Space{Blocks: 256, Length: 64} // what all agents agree on
	learn := func(e *client.Engram, key, value string) error {
		pair, err := space.Bind(space.Named(key), space.Named(value))
		if err != nil {
			return err
		}
		return e.Update(ctx, func(old engram.SparseVec) (engram.SparseVec, error) { return engram.Bundle(old, pair), nil })
	}
	if err := learn(c.Engram("", "memory"), "capital of Mexico", "Mexico City"); err != nil {
		log.Fatal(err)
	}
	if err := learn(c.Engram("", "memory"), "currency of Mexico", "peso"); err != nil {
		log.Fatal(err)
	}

	memory := c.Engram("", "memory")
	if err := memory.Load(ctx, client.Strict()); err != nil {
		log.Fatal(err)
	}
	v, err := memory.Vector()
	if err != nil {
		log.Fatal(err)
	}
	var known engram.Items
	for _, name := range []string{"Mexico City", "peso", "dollar"} {
		known.Add(name, space.Named(name))
	}
	for _, key := range []string{"currency of Mexico", "capital of Mexico"} {
		noisy, err := space.Unbind(v, space.Named(key))
		if err != nil {
			log.Fatal(err)
		}
		best := known.Nearest(noisy, 1)[0]
		fmt.Printf("%s: %s (%.2f)\n", key, best.Name, best.Similarity)
	}
	// Output:
	// currency of Mexico: peso (0.71)
	// capital of Mexico: Mexico City (0.71)
}

// A copy that is edited for a while finds out at its commit that somebody else was
// there, and what they have left.
func ExampleEngram_Commit() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	mine, theirs := c.Engram("", "plan"), c.Engram("", "plan")
	add := func(e *client.Engram, dim uint32) error {
		return e.Edit(ctx, func(v engram.SparseVec) (engram.SparseVec, error) {
			return engram.Bundle(v, engram.SparseVec{Pos: []uint32{dim}}), nil
		})
	}
	if err := errors.Join(add(mine, 7), add(theirs, 9)); err != nil {
		log.Fatal(err)
	}
	if _, err := theirs.Commit(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = mine.Commit(ctx)
	var conflict *client.EngramConflict
	if errors.As(err, &conflict) {
		fmt.Println("theirs:", conflict.Theirs.Pos)
		if err := mine.Merge(ctx, conflict); err != nil { // or Keep, or Reload
			log.Fatal(err)
		}
		_, err = mine.Commit(ctx)
	}
	v, _ := mine.Vector()
	fmt.Println("both:", v.Pos, err)
	// Output:
	// theirs: [9]
	// both: [7 9] <nil>
}
