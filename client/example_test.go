package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"cairn/block"
	"cairn/client"
	"cairn/sequence"
)

// An engine keeps the attention state of a prompt, block by block, and finds it
// again for the next prompt that begins the same.
func Example() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()

	c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	salt, err := sequence.Namespace{Model: "llama-3.1-8b", BlockSize: 4}.Salt()
	if err != nil {
		log.Fatal(err)
	}
	first := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	keys, err := sequence.KeysOf(nil, salt, 4, first)
	if err != nil {
		log.Fatal(err)
	}
	var parent block.Key
	for i, key := range keys {
		if _, err := c.Put(ctx, key, parent, fmt.Appendf(nil, "state of block %d", i)); err != nil {
			log.Fatal(err)
		}
		parent = key
	}

	second := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 99, 98, 97, 96}
	if keys, err = sequence.KeysOf(nil, salt, 4, second); err != nil {
		log.Fatal(err)
	}
	m, err := c.Match(ctx, keys)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d blocks are cached\n", m.Prefix, len(keys))
	state := make([]byte, 0, 64) // used again for each block
	for _, key := range keys[:m.Prefix] {
		if state, err = c.Get(ctx, key, state); err != nil {
			log.Fatal(err) // or compute it again, if it is client.ErrNotFound
		}
		fmt.Printf("%s\n", state)
	}
	// Output:
	// 2 of 3 blocks are cached
	// state of block 0
	// state of block 1
}

func ExampleOpen() {
	_, err := client.Open(context.Background(), client.Config{Nodes: []string{"nohost"}, Router: "router:7080"})
	fmt.Println(err)
	// Output:
	// cairn: client configuration: node "nohost": want host:port or unix:/path
	// router "router:7080": want http://host:port
}

func ExampleClient_PutName() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if err := c.PutName(ctx, "session:17", []byte("state 1")); err != nil {
		log.Fatal(err)
	}
	if err := c.PutName(ctx, "session:17", []byte("state 2")); err != nil { // the newest version wins
		log.Fatal(err)
	}
	err = c.PutName(ctx, "session:17", []byte("state 3"), client.IfAbsent())
	fmt.Println("taken:", errors.Is(err, client.ErrExists))
	v, err := c.GetName(ctx, "session:17", nil)
	fmt.Printf("%s, %v\n", v.Value, err)
	// Output:
	// taken: true
	// state 2, <nil>
}

// Agents that share a list add to it without losing what another adds meanwhile.
func ExampleClient_Update() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for _, task := range []string{"plan", "search"} {
		err := c.Update(ctx, "", "tasks", func(old []byte) ([]byte, error) {
			return fmt.Appendf(old, "%s;", task), nil // may be called again: no effect but the result
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	v, err := c.GetName(ctx, "tasks", nil, client.Strict())
	fmt.Printf("%s %v\n", v.Value, err)

	err = c.PutName(ctx, "tasks", nil, client.ExpectVersion(v.Version-1))
	var conflict *client.ConflictError
	fmt.Println(errors.As(err, &conflict) && conflict.Version == v.Version)
	// Output:
	// plan;search; <nil>
	// true
}

func ExampleClient_Route() {
	node, stop := exampleNode()
	defer stop()
	ctx := context.Background()
	c, err := client.Open(ctx, client.Config{Nodes: []string{node}}) // or a Router
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	prompt := []block.Key{key(0), key(1)}
	r, err := c.Route(ctx, client.RouteRequest{Keys: prompt, ID: "request-1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("send it to %s: %d of %d blocks are in the cluster, first token in %.1f s\n",
		r.Node, r.ClusterBlocks, r.Blocks, r.Candidates[0].Cost)
	best, err := c.Node(r.Addr) // where to read and write the prompt's blocks
	if err != nil {
		log.Fatal(err)
	}
	if err := best.Ping(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.Done(ctx, "request-1"); err != nil { // the prefill is over
		log.Fatal(err)
	}
	// Output:
	// send it to n1: 1 of 2 blocks are in the cluster, first token in 0.5 s
}

// exampleNode is a node that ends with the example.
func exampleNode() (addr string, stop func()) {
	s := newServer("n1")
	if err := s.serve("tcp", ""); err != nil {
		log.Fatal(err)
	}
	return s.addr, s.stop
}
