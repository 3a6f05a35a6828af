package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/router"
)

// told starts the service of a node that passes on what it is told to fetch ahead.
func told(t *testing.T, conn *cluster.Conn, id string, err error) <-chan cluster.OnboardMessage {
	t.Helper()
	pub, pubErr := cluster.NewPublisher(conn, cluster.PublisherConfig{Node: id, Incarnation: 1})
	if pubErr != nil {
		t.Fatal(pubErr)
	}
	messages := make(chan cluster.OnboardMessage, 16)
	svc, svcErr := cluster.StartNodeService(conn, pub, cluster.NodeServiceConfig{Node: id, Status: func() any { return nil },
		Onboard: func(m cluster.OnboardMessage) error { messages <- m; return err }})
	if svcErr != nil {
		t.Fatal(svcErr)
	}
	t.Cleanup(func() {
		if err := svc.Stop(); err != nil {
			t.Error(err)
		}
	})
	return messages
}

// TestNodeIsToldToFetchAhead: a decision for a node that lacks blocks in memory reaches that
// node and no other; a dry run reaches nobody.
func TestNodeIsToldToFetchAhead(t *testing.T) {
	conn := natstest.Run(t)
	s := routed(t, conn, cluster.RouterServiceConfig{Router: router.Config{Prefetch: "host"}})
	toB := told(t, conn, "b", nil)
	ask := func(request string) cluster.RouteAnswer {
		t.Helper()
		answer, err := s.RouteJSON(t.Context(), []byte(request))
		if err != nil {
			t.Fatal(err)
		}
		var a cluster.RouteAnswer
		if err := json.Unmarshal(answer, &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	text, err := json.Marshal(keys(1, 10))
	if err != nil {
		t.Fatal(err)
	}
	request := func(node string, dry bool) string {
		return fmt.Sprintf(`{"keys":%s,"only":[%q],"dry_run":%t,"explain":true}`, text, node, dry)
	}
	if a := ask(request("b", true)); a.Ahead == nil || a.Ahead.Told || !strings.Contains(a.Explanation, "b would be told (this is a dry run)") {
		t.Errorf("dry run: %+v, %s", a.Ahead, a.Explanation)
	}
	if a := ask(request("a", false)); a.Ahead == nil || a.Ahead.Lacking != 10 { // it has them on disk
		t.Errorf("their holder: %+v", a.Ahead)
	}
	a := ask(request("b", false))
	if a.Ahead == nil || !a.Ahead.Told || !strings.Contains(a.Explanation, "b has been told to have blocks 0-9 in host memory") {
		t.Errorf("%+v, %s", a.Ahead, a.Explanation)
	}
	m := <-toB
	if m.Tier != block.Host || len(m.Keys) != 10 || m.Keys[9] != key(1, 9) {
		t.Errorf("b was told %+v", m)
	}
	if n := s.Status().ToldAhead; n != 2 || len(toB) != 0 {
		t.Errorf("%d were told, %d messages more", n, len(toB))
	}
}

// TestLongPromptIsFetchedInPart: a message stays within its bound, whatever the prompt.
func TestLongPromptIsFetchedInPart(t *testing.T) {
	conn := natstest.Run(t)
	v := openView(t, conn, cluster.ViewConfig{})
	const blocks = cluster.MaxOnboardKeys + 10
	a := steadyHolder(t, conn, "a", cluster.PublisherConfig{}, keys(1, blocks)...)
	await(t, v, a.token())
	s, err := cluster.NewRouterService(v, cluster.RouterServiceConfig{Router: router.Config{Prefetch: "host"}})
	if err != nil {
		t.Fatal(err)
	}
	mustJoin(t, conn, cluster.Member{ID: "b", Addr: "b:1"}, steady)
	toB := told(t, conn, "b", nil)
	text, err := json.Marshal(keys(1, blocks))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "b is a candidate", func() bool {
		_, err := s.RouteJSON(t.Context(), fmt.Appendf(nil, `{"keys":%s,"only":["b"]}`, text))
		return err == nil
	})
	m := <-toB
	if len(m.Keys) != cluster.MaxOnboardKeys || m.Keys[0] != key(1, 0) {
		t.Errorf("b was told of %d blocks", len(m.Keys))
	}
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
}

// TestOnboardMessagesThatMakeNoSense are answered with an error where somebody asks, and
// do nothing where nobody does.
func TestOnboardMessagesThatMakeNoSense(t *testing.T) {
	conn := natstest.Run(t)
	got := told(t, conn, "n", errors.New("too many wait"))
	long, err := json.Marshal(cluster.OnboardMessage{Tier: block.Host, Keys: make([]block.Key, cluster.MaxOnboardKeys+1)})
	if err != nil {
		t.Fatal(err)
	}
	one := `"` + key(1, 0).String() + `"`
	for body, want := range map[string]string{
		`garbage`:                              "is not the JSON",
		`{"keys":["x"]}`:                       "is not the JSON",
		`{"keys":[` + one + `],"tier":"moon"}`: "is not the JSON",
		`{"keys":[` + one + `],"tier":"disk"}`: "want host or vram",
		`{"keys":[],"tier":"host"}`:            "onboard of 0 keys",
		string(long):                           "want 1 to 8192",
		`{"keys":[` + one + `],"tier":"host","wait_ms":-1}`: "-1 ms",
	} {
		if err := conn.NC.Publish(cluster.OnboardSubject("n"), []byte(body)); err != nil {
			t.Fatal(err)
		}
		msg, err := conn.NC.Request(cluster.OnboardSubject("n"), []byte(body), patience)
		if err != nil {
			t.Fatal(err)
		}
		if text := msg.Header.Get("Nats-Service-Error"); !strings.Contains(text, want) {
			t.Errorf("%.60s: %q, want %q", body, text, want)
		}
	}
	if len(got) != 0 {
		t.Errorf("the node was told %+v", <-got)
	}
	_, err = cluster.Call[cluster.OnboardMessage, cluster.OnboardAnswer](ctxFor(t, patience), conn, cluster.OnboardSubject("n"),
		cluster.OnboardMessage{Tier: block.Host, Keys: keys(1, 2)})
	var refused *cluster.RPCError
	if !errors.As(err, &refused) || refused.Code != cluster.CodeUnavailable || !strings.Contains(refused.Message, "too many wait") {
		t.Errorf("a node that takes no more: %v", err)
	}
}
