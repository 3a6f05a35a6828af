package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cairn/block"
	"cairn/cluster"
	"cairn/internal/natstest"
	"cairn/router"
)

// routed is a router over two nodes: a holds ten blocks, b none.
func routed(t *testing.T, conn *cluster.Conn, cfg cluster.RouterServiceConfig) *cluster.RouterService {
	t.Helper()
	v := openView(t, conn, cluster.ViewConfig{})
	a := steadyHolder(t, conn, "a", cluster.PublisherConfig{}, keys(1, 10)...)
	b := steadyHolder(t, conn, "b", cluster.PublisherConfig{}, key(2, 1))
	await(t, v, a.token(), b.token())
	s, err := cluster.NewRouterService(v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// do sends a request to the handler and decodes the answer.
func do(t *testing.T, h http.Handler, method, path, body string, into any) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
	}
	return w.Code
}

func TestRouterService(t *testing.T) {
	conn := natstest.Run(t)
	s := routed(t, conn, cluster.RouterServiceConfig{
		Hash: func(ns json.RawMessage, tokens []uint32) (cluster.Hashed, error) {
			if string(ns) != `{"model":"m"}` {
				return cluster.Hashed{}, fmt.Errorf("namespace %s", ns)
			}
			return cluster.Hashed{Keys: keys(1, len(tokens)/16), Layout: router.Layout{BlockTokens: 16}}, nil
		},
	})
	q := cluster.RouteRequest{Request: router.Request{Keys: keys(1, 10), Tokens: 170, DryRun: true}, Explain: true}
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	check := func(how string, a cluster.RouteAnswer, err error) {
		t.Helper()
		if err != nil || a.Node != "a" || a.Addr != "a:1" || a.ClusterBlocks != 10 || a.Candidates[0].Prefix != 10 {
			t.Errorf("%s: %+v, %v", how, a, err)
		}
	}
	a, err := cluster.Call[cluster.RouteRequest, cluster.RouteAnswer](ctxFor(t, patience), conn, cluster.SubjectRoute, q)
	check("NATS", a, err)
	if !strings.Contains(a.Explanation, "holds blocks 0-9 itself") {
		t.Errorf("explanation: %s", a.Explanation)
	}
	var viaJSON cluster.RouteAnswer
	answer, err := s.RouteJSON(t.Context(), body)
	if err == nil {
		err = json.Unmarshal(answer, &viaJSON)
	}
	check("RouteJSON", viaJSON, err)
	var viaHTTP, viaTokens cluster.RouteAnswer
	if code := do(t, s.Handler(), "POST", "/v1/route", string(body), &viaHTTP); code != http.StatusOK {
		t.Errorf("HTTP code %d", code)
	}
	check("HTTP", viaHTTP, nil)
	ids, err := json.Marshal(make([]uint32, 170))
	if err != nil {
		t.Fatal(err)
	}
	do(t, s.Handler(), "POST", "/v1/route", `{"token_ids":`+string(ids)+`,"namespace":{"model":"m"},"dry_run":true}`, &viaTokens)
	check("token ids", viaTokens, nil)
	if viaTokens.Tokens != 170 || viaTokens.Blocks != 10 {
		t.Errorf("token ids: %d tokens, %d blocks", viaTokens.Tokens, viaTokens.Blocks)
	}
	_, err = cluster.Call[cluster.RouteRequest, cluster.RouteAnswer](ctxFor(t, patience), conn, cluster.SubjectRoute,
		cluster.RouteRequest{Request: router.Request{Only: []string{"nobody"}}})
	if !errors.Is(err, &cluster.RPCError{Code: cluster.CodeUnavailable}) {
		t.Errorf("nobody to route to: %v", err)
	}
	if st := s.Status(); st.Routed != 4 || st.Refused != 1 {
		t.Errorf("routed %d, refused %d; want 4 and 1", st.Routed, st.Refused)
	}
}

func TestRouterHTTPErrors(t *testing.T) {
	conn := natstest.Run(t)
	s := routed(t, conn, cluster.RouterServiceConfig{MaxBytes: 2000, MaxKeys: 20, MaxTokenIDs: 100})
	many, err := json.Marshal(map[string]any{"keys": keys(1, 21)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, body string
		code       int
		text       string
	}{
		{"/v1/route", ``, 400, "unexpected end"},
		{"/v1/route", `{"keys":["12"]}`, 400, "32 hexadecimal digits"},
		{"/v1/route", string(many), 400, "21 keys, at most 20"},
		{"/v1/route", `{"keys":["` + strings.Repeat("0", 2000) + `"]}`, 413, "larger than 2000 bytes"},
		{"/v1/route", `{"token_ids":[1],"namespace":{}}`, 400, "takes keys"},
		{"/v1/route", `{"tokens":-1}`, 400, "at least 0"},
		{"/v1/route", `{"only":["nobody"]}`, 503, "no node"},
		{"/v1/done", `{}`, 400, "id is empty"},
		{"/v1/load", `{"node":"nobody"}`, 400, "nobody"},
		{"/v1/load", `{"node":"a","queued_tokens":-1}`, 400, "-1"},
	} {
		var got struct{ Error string }
		if code := do(t, s.Handler(), "POST", c.path, c.body, &got); code != c.code || !strings.Contains(got.Error, c.text) {
			t.Errorf("%s %.60s: %d %q, want %d and %q", c.path, c.body, code, got.Error, c.code, c.text)
		}
	}
}

// What a gateway tells one router reaches all of them.
func TestLoadAndDone(t *testing.T) {
	conn := natstest.Run(t)
	s := routed(t, conn, cluster.RouterServiceConfig{})
	second, err := cluster.NewRouterService(openView(t, conn, cluster.ViewConfig{}), cluster.RouterServiceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := second.Stop(); err != nil {
			t.Error(err)
		}
	})
	route := func(s *cluster.RouterService, body string) cluster.RouteAnswer {
		var a cluster.RouteAnswer
		if code := do(t, s.Handler(), "POST", "/v1/route", body, &a); code != http.StatusOK {
			t.Fatalf("route: %d", code)
		}
		return a
	}
	if code := do(t, s.Handler(), "POST", "/v1/load", `{"node":"a","queued_tokens":100000000}`, nil); code != http.StatusOK {
		t.Fatalf("load: %d", code)
	}
	shuns := func(r *cluster.RouterService) bool { return route(r, `{"tokens":160,"dry_run":true}`).Node == "b" }
	if !shuns(s) {
		t.Error("the router sends to a, whose queue is long")
	}
	until(t, "the other router hears of the long queue", func() bool { return shuns(second) })
	first := route(s, `{"tokens":50000,"id":"r1","only":["b"]}`)
	if again := route(s, `{"tokens":160,"only":["b"],"dry_run":true}`); again.Candidates[0].QueueTokens != first.Candidates[0].PrefillTokens {
		t.Errorf("queue of b: %d tokens", again.Candidates[0].QueueTokens)
	}
	if code := do(t, s.Handler(), "POST", "/v1/done", `{"id":"r1"}`, nil); code != http.StatusOK {
		t.Fatalf("done: %d", code)
	}
	if again := route(s, `{"tokens":160,"only":["b"],"dry_run":true}`); again.Candidates[0].QueueTokens != 0 {
		t.Errorf("queue of b after done: %d tokens", again.Candidates[0].QueueTokens)
	}
}

func TestStatusPages(t *testing.T) {
	conn := natstest.Run(t)
	s := routed(t, conn, cluster.RouterServiceConfig{Version: "1.2.3"})
	var st cluster.RouterStatus
	if code := do(t, s.Handler(), "GET", "/v1/status", "", &st); code != http.StatusOK {
		t.Fatal(code)
	}
	if len(st.Nodes) != 2 || st.Nodes[0].ID != "a" || st.Nodes[0].Blocks[block.Disk] != 10 || st.Nodes[0].Position != 10 || !st.View.Ready || !st.Connected {
		t.Errorf("status: %+v", st)
	}
	var members []cluster.Member
	if do(t, s.Handler(), "GET", "/v1/members", "", &members); len(members) != 2 || members[1].Addr != "b:1" {
		t.Errorf("members: %+v", members)
	}
	if code := do(t, s.Handler(), "GET", "/healthz", "", nil); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	page := w.Body.String()
	if w.Code != http.StatusOK || !strings.Contains(page, "v1/status") || strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Errorf("the page: %d, %d bytes, or it names another server", w.Code, len(page))
	}
	if code := do(t, s.Handler(), "GET", "/nothing", "", nil); code != http.StatusNotFound {
		t.Errorf("unknown path: %d", code)
	}
	conn.NC.Close()
	if code := do(t, s.Handler(), "GET", "/healthz", "", nil); code != http.StatusServiceUnavailable {
		t.Errorf("healthz without NATS: %d", code)
	}
}

func TestMemberLabelsAreLoad(t *testing.T) {
	conn := natstest.Run(t)
	s := routed(t, conn, cluster.RouterServiceConfig{})
	l := mustJoin(t, conn, cluster.Member{ID: "c", Addr: "c:1"}, steady)
	l.Update(func(m *cluster.Member) {
		m.Labels = map[string]string{cluster.LabelQueuedTokens: "5000000", cluster.LabelPrefillRate: "1000"}
	})
	updated := watch(t, conn)
	for ev := range updated.ch {
		if ev.Member.ID == "c" && ev.Member.Labels[cluster.LabelQueuedTokens] != "" {
			break
		}
	}
	// The view hears of it when this watch does, or a moment later.
	ctx := ctxFor(t, patience)
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		answer, err := s.RouteJSON(ctx, []byte(`{"tokens":1000,"only":["c"],"dry_run":true}`))
		if err != nil && !errors.Is(err, router.ErrNoNodes) {
			t.Fatal(err)
		}
		var a cluster.RouteAnswer
		if err == nil {
			if err := json.Unmarshal(answer, &a); err != nil {
				t.Fatal(err)
			}
			if q := a.Candidates[0]; q.QueueTokens > 4_000_000 && q.Terms.Prefill == 1 {
				return
			}
		}
	}
}
