package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cairn/cluster"
	"cairn/internal/natstest"
)

type ask struct{ N int }
type answer struct{ N int }

func service(t *testing.T, conn *cluster.Conn, cfg cluster.ServiceConfig) *cluster.Service {
	t.Helper()
	cfg.Name = cluster.ServiceNode
	s, err := cluster.NewService(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func serve[Q, A any](t *testing.T, s *cluster.Service, ep cluster.Endpoint, handle func(context.Context, Q) (A, error)) {
	t.Helper()
	if err := cluster.Serve(s, ep, handle); err != nil {
		t.Fatal(err)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	conn := natstest.Run(t)
	ctx := ctxFor(t, patience)
	subject := cluster.RPCSubject("n1", "double")
	_, err := cluster.Call[ask, answer](ctx, conn, subject, ask{1})
	wantError(t, err, cluster.ErrNoService, subject)

	s := service(t, conn, cluster.ServiceConfig{Version: "v1.2.3-rc1", Metadata: map[string]string{"node": "n1"}})
	serve(t, s, cluster.Endpoint{Name: "double", Subject: subject, Schema: "cairn.double.v1"},
		func(_ context.Context, q ask) (answer, error) {
			switch q.N {
			case 404:
				return answer{}, fmt.Errorf("look up: %w", &cluster.RPCError{Code: cluster.CodeNotFound, Message: "no such block"})
			case 500:
				return answer{}, errors.New("disk on fire")
			}
			return answer{2 * q.N}, nil
		})
	serve(t, s, cluster.Endpoint{Name: "large", Subject: cluster.RPCSubject("n1", "large")},
		func(context.Context, ask) (string, error) { return strings.Repeat("x", 2<<20), nil })

	if a, err := cluster.Call[ask, answer](ctx, conn, subject, ask{21}); err != nil || a.N != 42 {
		t.Errorf("answer %v, %v", a, err)
	}
	for n, want := range map[int]*cluster.RPCError{
		404: {Code: cluster.CodeNotFound, Message: "no such block"},
		500: {Code: cluster.CodeInternal, Message: "disk on fire"},
	} {
		_, err := cluster.Call[ask, answer](ctx, conn, subject, ask{n})
		wantError(t, err, want, want.Message)
	}
	_, err = cluster.Call[string, answer](ctx, conn, subject, "not an object")
	wantError(t, err, &cluster.RPCError{Code: cluster.CodeBadRequest}, subject)
	_, err = cluster.Call[ask, string](ctx, conn, cluster.RPCSubject("n1", "large"), ask{})
	wantError(t, err, &cluster.RPCError{Code: cluster.CodeTooLarge}, "ask for less")
}

// TestServiceLimits: a busy service refuses at once, a caller's deadline reaches
// the handler, and Stop ends what is in work.
func TestServiceLimits(t *testing.T) {
	t.Parallel()
	conn := natstest.Run(t)
	s := service(t, conn, cluster.ServiceConfig{Version: "devel", MaxInFlight: 1})
	subject := cluster.RPCSubject("n1", "wait")
	began := make(chan struct{}, 2)
	serve(t, s, cluster.Endpoint{Name: "wait", Subject: subject}, func(ctx context.Context, _ ask) (answer, error) {
		if _, ok := ctx.Deadline(); !ok {
			return answer{}, errors.New("no deadline")
		}
		began <- struct{}{}
		<-ctx.Done()
		return answer{}, ctx.Err()
	})
	ctx := ctxFor(t, patience)
	first := make(chan error, 1)
	go func() {
		_, err := cluster.Call[ask, answer](ctx, conn, subject, ask{})
		first <- err
	}()
	<-began
	_, err := cluster.Call[ask, answer](ctx, conn, subject, ask{})
	wantError(t, err, &cluster.RPCError{Code: cluster.CodeUnavailable}, "busy")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-first, &cluster.RPCError{Code: cluster.CodeUnavailable}, "canceled")
	_, err = cluster.Call[ask, answer](ctx, conn, subject, ask{})
	wantError(t, err, cluster.ErrNoService)
}

// TestQueueShares: of two routers one answers; of two nodes on one subject both
// hear.
func TestQueueShares(t *testing.T) {
	t.Parallel()
	conn := natstest.Run(t)
	ctx := ctxFor(t, patience)
	heard := make(chan string, 16)
	for range 2 {
		s := service(t, conn, cluster.ServiceConfig{})
		for name, queue := range map[string]string{"route": cluster.QueueRoute, "all": ""} {
			serve(t, s, cluster.Endpoint{Name: name, Subject: cluster.SubjectPrefix + "test." + name, Queue: queue},
				func(context.Context, ask) (answer, error) { heard <- name; return answer{}, nil })
		}
	}
	for _, name := range []string{"route", "all"} {
		if _, err := cluster.Call[ask, answer](ctx, conn, cluster.SubjectPrefix+"test."+name, ask{}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	for range 3 {
		select {
		case name := <-heard:
			got[name]++
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
	if got["route"] != 1 || got["all"] != 2 || len(heard) != 0 {
		t.Errorf("heard %v and %d more", got, len(heard))
	}
}

func BenchmarkCall(b *testing.B) {
	conn := natstest.Run(b)
	s, err := cluster.NewService(conn, cluster.ServiceConfig{Name: cluster.ServiceNode})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Stop()
	subject := cluster.RPCSubject("n1", "double")
	err = cluster.Serve(s, cluster.Endpoint{Name: "double", Subject: subject},
		func(_ context.Context, q ask) (answer, error) { return answer{2 * q.N}, nil })
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cluster.Call[ask, answer](b.Context(), conn, subject, ask{1}); err != nil {
			b.Fatal(err)
		}
	}
}
