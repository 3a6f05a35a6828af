// Command engram is an associative memory that three workers share, each at a node of
// its own of a running cluster, such as that of cairn up. Package atlas, beside it, is what
// to copy.
//
//	cairn up &
//	go run ./examples/engram
//	go run ./examples/engram "capital of Japan" "dollar of Mexico"
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"cairn/examples/engram/atlas"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	nodes := flag.String("nodes", "127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072", "data addresses of nodes, one for each worker")
	namespace := flag.String("namespace", "", "namespace of the memory; empty is the nodes' first")
	name := flag.String("name", "example/atlas", "name of the memory")
	flag.Parse()
	tour := atlas.Tour{Nodes: strings.FieldsFunc(*nodes, func(r rune) bool { return r == ',' || r == ' ' }),
		Namespace: *namespace, Name: *name, Questions: flag.Args(), Out: os.Stdout}
	if err := tour.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "engram:", err)
		os.Exit(1)
	}
}
