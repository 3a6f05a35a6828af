// Command engine plays an inference engine against a running cluster, such as that of
// cairn up: conversations that share a system prompt and grow by turns. Package serving,
// beside it, is what to copy.
//
//	cairn up &
//	go run ./examples/engine -node 127.0.0.1:7070
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"cairn/block"
	"cairn/client"
	"cairn/examples/engine/serving"
	"cairn/sequence"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	node := flag.String("node", "127.0.0.1:7070", "data address of a node")
	conversations := flag.Int("conversations", 3, "conversations, one after another")
	turns := flag.Int("turns", 3, "turns of each")
	flag.Parse()
	if flag.NArg() > 0 || *conversations < 1 || *turns < 1 {
		return fmt.Errorf("%d conversations of %d turns, and arguments %q: want 1 or more of both, and only flags", *conversations, *turns, flag.Args())
	}
	cache, err := client.Open(ctx, client.Config{Nodes: []string{*node}})
	if errors.Is(err, client.ErrUnavailable) {
		return fmt.Errorf("%w: start a cluster with `cairn up`, or name a node with -node", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	e, err := serving.New(serving.Config{
		Cache: cache, Tier: block.VRAM, Draft: 4,
		Namespace: sequence.Namespace{Model: "example", BlockSize: 16},
		Model:     serving.Model{BlockBytes: 64 << 10, Vocabulary: 32_000},
	})
	if err != nil {
		return err
	}
	run := rand.Text()
	for c := range *conversations {
		prompt := serving.Words(0, 256) // the system prompt, which all share
		for turn := range *turns {
			prompt = append(prompt, serving.Words(1+c*1000+turn, 100)...)
			began := time.Now()
			a, err := e.Serve(ctx, serving.Request{ID: fmt.Sprintf("%s-%d-%d", run, c, turn), Prompt: prompt, Generate: 80})
			if err != nil {
				return err
			}
			fmt.Printf("conversation %d turn %d at %s: %d tokens, %d blocks cached, %d computed, %d of them new; %d guesses unwound; %v\n",
				c, turn, a.Node, len(prompt), a.Cached, a.Computed, a.Committed, a.Unwound, time.Since(began).Round(time.Millisecond))
			prompt = append(prompt, a.Tokens...)
		}
	}
	return nil
}
