package cluster_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/node"
	"cairn/router"
)

// askJSON routes by a request in JSON.
func askJSON(t *testing.T, s *cluster.RouterService, body string) cluster.RouteAnswer {
	t.Helper()
	answer, err := s.RouteJSON(t.Context(), []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	var a cluster.RouteAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// until repeats check until it holds.
func until(t *testing.T, what string, check func() bool) {
	t.Helper()
	ctx := ctxFor(t, patience)
	for tick := time.Tick(5 * time.Millisecond); !check(); {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-tick:
		}
	}
}

// second is another router over the same nodes; serving says whether it answers on NATS.
func second(t *testing.T, conn *cluster.Conn, cfg cluster.RouterServiceConfig, serving bool) *cluster.RouterService {
	t.Helper()
	v := openView(t, conn, cluster.ViewConfig{})
	if err := v.Ready(ctxFor(t, patience)); err != nil {
		t.Fatal(err)
	}
	s, err := cluster.NewRouterService(v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	begin := s.Listen
	if serving {
		begin = s.Start
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestRoutersShareLoadAndSessions(t *testing.T) {
	for name, serving := range map[string]bool{"one that serves": true, "one that listens": false} {
		t.Run(name, func(t *testing.T) {
			conn := natstest.Run(t)
			first := routed(t, conn, cluster.RouterServiceConfig{})
			other := second(t, conn, cluster.RouterServiceConfig{}, serving)
			queue := func(s *cluster.RouterService, node string) (int, router.Active) {
				c := askJSON(t, s, `{"tokens":1,"dry_run":true,"only":["`+node+`"]}`).Candidates[0]
				return c.QueueTokens, c.Active
			}
			askJSON(t, first, `{"id":"r1","tokens":1600,"keys":["`+key(7, 0).String()+`"],"only":["b"],"session":"s"}`)
			until(t, "the other router counts the request", func() bool { q, _ := queue(other, "b"); return q == 1600 })
			if q, _ := queue(first, "b"); q != 1600 {
				t.Errorf("the router that decided counts %d tokens", q)
			}
			if a := askJSON(t, other, `{"tokens":16,"dry_run":true,"session":"s"}`); a.Sticky || a.Node != "a" {
				t.Errorf("the session is worth any queue: %+v", a.Decision)
			}
			if !serving {
				other.Prefilled("r1") // as a node does for CAIRN.DONE r1 DECODING
			} else if code := do(t, first.Handler(), "POST", "/v1/done", `{"id":"r1","decoding":true}`, nil); code != http.StatusOK {
				t.Fatalf("done: %d", code)
			}
			for _, s := range []*cluster.RouterService{first, other} {
				until(t, "the request is being decoded", func() bool { q, a := queue(s, "b"); return q == 0 && a == (router.Active{Requests: 1, Blocks: 1}) })
			}
			if a := askJSON(t, other, `{"tokens":1600,"dry_run":true,"session":"s"}`); !a.Sticky || a.Node != "b" {
				t.Errorf("the session's node is not known: %+v", a.Decision)
			}
			// As a node does for CAIRN.DONE.
			other.Done("r1")
			for _, s := range []*cluster.RouterService{first, other} {
				until(t, "the request is over", func() bool { _, a := queue(s, "b"); return a == (router.Active{}) })
			}
			if st := other.Status(); st.Observed != 1 {
				t.Errorf("%d decisions observed", st.Observed)
			}
			if st := first.Status(); st.Observed != 0 {
				t.Errorf("a router counts its own decisions: %d", st.Observed)
			}
			load := `{"node":"a","queued_tokens":70,"active":{"requests":3,"blocks":40}}`
			if code := do(t, first.Handler(), "POST", "/v1/load", load, nil); code != http.StatusOK {
				t.Fatalf("load: %d", code)
			}
			until(t, "the other hears of the node's load", func() bool { _, a := queue(other, "a"); return a == (router.Active{Requests: 3, Blocks: 40}) })
			if err := conn.NC.Publish(cluster.SubjectRouted, []byte(`{"router":"x","node":"a","tokens":-5}`)); err != nil {
				t.Fatal(err)
			}
			if err := conn.NC.Publish(cluster.SubjectRouted, []byte(`[]`)); err != nil {
				t.Fatal(err)
			}
			until(t, "nonsense is heard", func() bool { return other.Status().Observed == 2 })
		})
	}
}

// Members that announce nothing: each router learns from the decisions of all.
func TestRoutersShareWhatTheyLearn(t *testing.T) {
	conn := natstest.Run(t)
	for _, id := range []string{"e1", "e2"} {
		mustJoin(t, conn, cluster.Member{ID: id, Addr: id + ":1"}, steady)
	}
	cfg := cluster.RouterServiceConfig{Router: router.Config{LearnTTL: 600}}
	first, other := second(t, conn, cfg, true), second(t, conn, cfg, true)
	q, err := json.Marshal(router.Request{Keys: keys(9, 200), Only: []string{"e2"}})
	if err != nil {
		t.Fatal(err)
	}
	if a := askJSON(t, first, string(q)); !a.Learned || a.Candidates[0].Prefix != 0 {
		t.Fatalf("%+v", a.Decision)
	}
	dry, err := json.Marshal(router.Request{Keys: keys(9, 200), DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*cluster.RouterService{first, other} {
		until(t, "the router takes the node for the holder", func() bool {
			a := askJSON(t, s, string(dry))
			for _, c := range a.Candidates {
				if c.Node == "e2" {
					return c.Prefix == 200
				}
			}
			return false
		})
	}
}

func TestMembersSayWhoTheyAre(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{Index: router.IndexConfig{Layout: router.Layout{BlockTokens: 16}}})
	labels := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	join := func(id string, l map[string]string) *cluster.Lease {
		return mustJoin(t, conn, cluster.Member{ID: id, Addr: id + ":1", Labels: l}, steady)
	}
	a := join("a", labels("zone", "z1", cluster.LabelBlockTokens, "16"))
	join("b", labels("zone", "z2", cluster.LabelDrain, "true"))
	join("wrong", labels(cluster.LabelBlockTokens, "64"))
	join("odd", labels(cluster.LabelDrain, "perhaps", cluster.LabelPrefillRate, "fast"))
	s, err := cluster.NewRouterService(v, cluster.RouterServiceConfig{Router: router.Config{Layout: router.Layout{BlockTokens: 16}}})
	if err != nil {
		t.Fatal(err)
	}
	// Stats waits for the change that is being made; Members may be ahead of the index.
	until(t, "all members are known", func() bool { return v.Stats().Members == 4 })
	d := askJSON(t, s, `{"tokens":10,"dry_run":true,"explain":true}`)
	if len(d.Candidates) != 1 || d.Node != "a" || d.LeftOut.Draining != 2 || !strings.Contains(d.Explanation, "left out: 2 draining") {
		t.Errorf("%s", d.Explanation)
	}
	if st := v.Stats(); st.Refused != 1 {
		t.Errorf("%d members refused", st.Refused)
	}
	_, err = s.RouteJSON(t.Context(), []byte(`{"tokens":64,"block_tokens":64}`))
	var m *router.MismatchError
	if !errors.As(err, &m) || m.Got != "64" || m.Want != "16" {
		t.Errorf("a request of another layout: %v", err)
	}
	if code := do(t, s.Handler(), "POST", "/v1/route", `{"tokens":64,"block_tokens":64}`, nil); code != http.StatusBadRequest {
		t.Errorf("code %d", code)
	}
	if _, err := s.RouteJSON(t.Context(), []byte(`{"tokens":10,"zone":"z2"}`)); !errors.Is(err, router.ErrNoNodes) || !errors.Is(err, node.ErrUnavailable) {
		t.Errorf("only a draining node is in z2: %v", err)
	}
	// Draining is a matter of a label that changes.
	a.Update(func(m *cluster.Member) { m.Labels = labels(cluster.LabelDrain, "true") })
	until(t, "a drains", func() bool {
		_, err := s.RouteJSON(t.Context(), []byte(`{"tokens":10,"dry_run":true}`))
		return errors.Is(err, router.ErrNoNodes)
	})
}

// A node whose announcements break the rule of prefix-closed sets is asked for a
// snapshot, which says what it holds indeed.
func TestHolesAreRepairedBySnapshots(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{
		GapPatience: time.Millisecond,
		Index:       router.IndexConfig{Mode: router.Bisect, AuditEvery: 1},
	})
	h := steadyHolder(t, conn, "a", cluster.PublisherConfig{Heartbeat: 20 * time.Millisecond}, keys(1, 40)...)
	await(t, v, h.token())
	// It announces the removal of a block that it holds.
	lost := h.token()
	lost.Position = h.pub.Announce([]node.Change{{Key: key(1, 10), Tier: block.Disk}})
	await(t, v, lost)
	var m router.Match
	v.Index().Match(keys(1, 40), &m)
	if m.Blocks != 10 {
		t.Fatalf("%d blocks", m.Blocks)
	}
	if st := v.Stats(); st.Index.Violations != 1 || st.Index.Retracted != 29 {
		t.Errorf("%d violations, %d blocks retracted", st.Index.Violations, st.Index.Retracted)
	}
	until(t, "the snapshot is loaded", func() bool {
		v.Index().Match(keys(1, 40), &m)
		return m.Blocks == 40
	})
	if st := v.Stats(); st.Index.Violations != 1 || st.Index.Doubts != 1 {
		t.Errorf("%d violations, %d doubts", st.Index.Violations, st.Index.Doubts)
	}
}

func TestDrain(t *testing.T) {
	conn := natstest.Run(t)
	lease := mustJoin(t, conn, cluster.Member{ID: "a", Addr: "a:1"}, steady)
	pub, err := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: "a", Incarnation: 1})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func() any { return nil }
	svc, err := cluster.StartNodeService(conn, pub, cluster.NodeServiceConfig{Node: "a", Status: nothing, Drain: func(q cluster.DrainRequest) (node.HandoverStatus, error) {
		if q.Evict > 1 {
			return node.HandoverStatus{}, errors.New("too much")
		}
		lease.Update(func(m *cluster.Member) { m.Labels = map[string]string{cluster.LabelDrain: strconv.FormatBool(!q.Undo)} })
		return node.HandoverStatus{Draining: !q.Undo}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := svc.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := second(t, conn, cluster.RouterServiceConfig{}, false)
	takes := func() bool {
		_, err := s.RouteJSON(t.Context(), []byte(`{"tokens":10,"dry_run":true}`))
		return err == nil
	}
	until(t, "a takes requests", takes)
	for _, on := range []bool{true, false} {
		s, err := cluster.Drain(ctxFor(t, patience), conn, "a", cluster.DrainRequest{Undo: !on})
		if err != nil || s.Draining != on {
			t.Fatalf("%+v, %v", s, err)
		}
		until(t, "a drains, or does not", func() bool { return takes() != on })
	}
	var refused *cluster.RPCError
	if _, err := cluster.Drain(ctxFor(t, patience), conn, "a", cluster.DrainRequest{Evict: 2}); !errors.As(err, &refused) || refused.Code != cluster.CodeBadRequest {
		t.Errorf("a request that makes no sense: %v", err)
	}
	if _, err := cluster.Drain(ctxFor(t, patience), conn, "b", cluster.DrainRequest{}); !errors.Is(err, cluster.ErrNoService) {
		t.Errorf("a node that is not there: %v", err)
	}
}
