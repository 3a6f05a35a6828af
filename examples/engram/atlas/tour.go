package atlas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"cairn/client"
)

// Tour is what the example shows.
type Tour struct {
	// Nodes are the workers' nodes, one each.
	Nodes []string
	// Namespace and Name are the engram's; an empty namespace is the nodes' first.
	Namespace, Name string
	// Questions, if there are any, are asked of what was learned before; else
	// everything is learned anew, and questions of its own are asked.
	Questions []string
	Out       io.Writer
}

// Run learns and asks.
func (t Tour) Run(ctx context.Context) (err error) {
	workers := make([]*Atlas, len(t.Nodes))
	for i, node := range t.Nodes {
		c, err := client.Open(ctx, client.Config{Nodes: []string{node}})
		if errors.Is(err, client.ErrUnavailable) {
			return fmt.Errorf("%w: start a cluster with `cairn up`, or name its nodes with -nodes", err)
		}
		if err != nil {
			return err
		}
		defer c.Close()
		workers[i] = New(c, t.Namespace, t.Name)
	}
	if len(workers) == 0 {
		return errors.New("no node is named: -nodes takes at least one")
	}
	if len(t.Questions) > 0 {
		return t.ask(ctx, workers[:1], t.Questions)
	}
	if err := t.learn(ctx, workers); err != nil {
		return err
	}
	if err := t.ask(ctx, workers, []string{"capital of Japan", "currency of Kenya", "country of Oslo"}); err != nil {
		return err
	}
	t.printf("\nby analogy, which no worker was told:\n")
	if err := t.ask(ctx, workers, []string{"dollar of Mexico", "Paris of Thailand", "zloty of Switzerland"}); err != nil {
		return err
	}
	t.printf("\nwhat nobody has learned:\n")
	return t.ask(ctx, workers, []string{"capital of Atlantis", "country of shells", "dollar of Atlantis"})
}

func (t Tour) printf(format string, args ...any) { fmt.Fprintf(t.Out, format, args...) }

// learn shares the countries out to the workers, which learn them at the same time.
func (t Tour) learn(ctx context.Context, workers []*Atlas) error {
	if err := workers[0].Forget(ctx); err != nil {
		return err
	}
	who := fmt.Sprintf("%d workers, each at a node of its own, learn", len(workers))
	if len(workers) == 1 {
		who = "one worker learns"
	}
	t.printf("%s into one memory, %q:\n", who, t.Name)
	type report struct {
		names []string
		tries int
		err   error
	}
	reports := make([]report, len(workers))
	var wg sync.WaitGroup
	for w, a := range workers {
		wg.Go(func() {
			r := &reports[w]
			for i, n := range Countries() {
				if i%len(workers) != w {
					continue
				}
				tries, err := a.Learn(ctx, n)
				if err != nil {
					r.err = err
					return
				}
				r.tries += tries
				r.names = append(r.names, n.Name)
			}
		})
	}
	wg.Wait()
	for w, r := range reports {
		if r.err != nil {
			return r.err
		}
		t.printf("  %s  %-36s  %d tries, %d of them met another's write\n", t.Nodes[w], strings.Join(r.names, ", "), r.tries, r.tries-len(r.names))
	}
	if err := workers[0].Load(ctx); err != nil {
		return err
	}
	v, err := workers[0].memory.Vector()
	if err != nil {
		return err
	}
	t.printf("the memory is %d of %d dimensions, %d bytes, version %s\n", v.Len(), space.Dims(), v.EncodedSize(), workers[0].memory.Version())
	t.printf("\neach asks at its own node; the number is the similarity of the answer:\n")
	return nil
}

// ask gives each worker the next question.
func (t Tour) ask(ctx context.Context, workers []*Atlas, questions []string) error {
	for i, q := range questions {
		w := i % len(workers)
		if err := workers[w].Load(ctx); err != nil {
			return err
		}
		a, err := workers[w].Ask(ctx, q)
		if err != nil {
			return err
		}
		if a.Name == "" {
			t.printf("  %s  %-20s  -             %.2f  (%s)\n", t.Nodes[w], q, a.Similarity, a.How)
			continue
		}
		t.printf("  %s  %-20s  %-12s  %.2f, next is %s with %.2f  (%s)\n",
			t.Nodes[w], q, a.Name, a.Similarity, a.Next.Name, a.Next.Similarity, a.How)
	}
	return nil
}
