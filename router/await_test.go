package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"cairn/block"
)

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := chain(rand.New(rand.NewPCG(1, 1)), 10)
		ctx := t.Context()
		start := func(ix *Index, incarnation, position uint64) <-chan error {
			done := make(chan error, 1)
			go func() { done <- ix.Await(ctx, "node-0", incarnation, position) }()
			synctest.Wait()
			return done
		}
		over := func(c <-chan error) bool {
			synctest.Wait()
			select {
			case err := <-c:
				if err != nil {
					t.Error(err)
				}
				return true
			default:
				return false
			}
		}
		ix := newIndex(t, Exact, 1)
		if err := ix.Await(ctx, "stranger", 1, 5); err != nil {
			t.Error(err)
		}
		five, ten, next := start(ix, 1, 5), start(ix, 1, 10), start(ix, 2, 1)
		mustApply(t, ix, stored("node-0", 1, block.Host, keys[:4]))
		if over(five) {
			t.Error("5 was reached at 4")
		}
		mustApply(t, ix, stored("node-0", 5, block.Host, keys[4:6]))
		if !over(five) || over(ten) || over(next) {
			t.Error("at 6, only 5 is over")
		}
		if err := ix.Load("node-0", 1, 10, nil); err != nil {
			t.Fatal(err)
		}
		if !over(ten) || over(next) {
			t.Error("a snapshot up to 10 ends the wait for 10")
		}
		ix.RemoveNode("node-0", 1)
		if !over(next) {
			t.Error("removal ends every wait")
		}

		ix = newIndex(t, Exact, 1)
		old := start(ix, 1, 5)
		if err := ix.SetNode(NodeInfo{ID: "node-0", Incarnation: 2}); err != nil {
			t.Fatal(err)
		}
		if !over(old) {
			t.Error("a newer incarnation ends the wait for the older")
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if err := ix.Await(canceled, "node-0", 2, 5); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
}
