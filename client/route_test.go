package client_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"cairn/block"
	"cairn/client"
)

func TestRouteOverHTTP(t *testing.T) {
	var path, kind string
	var body map[string]any
	status, answer := http.StatusOK, ""
	router := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, kind = r.URL.Path, r.Header.Get("Content-Type")
		p, _ := io.ReadAll(r.Body)
		body = nil
		if err := json.Unmarshal(p, &body); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, p, err)
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer router.Close()
	s := newServer("n1").start(t, "tcp", "")
	c := open(t, client.Config{Router: router.URL + "/"}, s)

	answer = `{"node":"n2","addr":"10.0.0.2:7070","blocks":3,"cluster_blocks":2,"candidates":[{"node":"n2","addr":"10.0.0.2:7070","cost_seconds":0.25}],"plan":{}}`
	r, err := c.Route(t.Context(), client.RouteRequest{Keys: []block.Key{key(1), key(2)}, Tokens: 40, ID: "r1", Exclude: []string{"n9"}, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Node != "n2" || r.Addr != "10.0.0.2:7070" || r.Blocks != 3 || r.ClusterBlocks != 2 || r.Candidates[0].Cost != 0.25 || string(r.JSON) != answer {
		t.Errorf("got %+v", r)
	}
	if path != "/v1/route" || kind != "application/json" || body["tokens"] != 40.0 || body["id"] != "r1" || body["dry_run"] != true ||
		len(body["keys"].([]any)) != 2 || body["keys"].([]any)[0] != key(1).String() {
		t.Errorf("asked %s with %s, %v", path, kind, body)
	}
	if _, err := c.Route(t.Context(), client.RouteRequest{}); err != nil {
		t.Error(err)
	}
	if keys, ok := body["keys"].([]any); !ok || len(keys) != 0 {
		t.Errorf("no keys are sent as %v, want an empty list", body["keys"])
	}
	if err := c.Done(t.Context(), "r1"); err != nil || path != "/v1/done" || body["id"] != "r1" {
		t.Errorf("done: %v, %s, %v", err, path, body)
	}
	if err := c.Prefilled(t.Context(), "r2"); err != nil || path != "/v1/done" || body["id"] != "r2" || body["decoding"] != true {
		t.Errorf("prefilled: %v, %s, %v", err, path, body)
	}
	if s.count("CAIRN.ROUTE") != 0 {
		t.Error("a node was asked although there is a router")
	}

	for _, tc := range []struct {
		status      int
		answer      string
		unavailable bool
		text        string
	}{
		{http.StatusServiceUnavailable, `{"error":"no live node"}`, true, "no live node"},
		{http.StatusBadGateway, "<html>", true, "502"},
		{http.StatusBadRequest, `{"error":"block size 0"}`, false, "block size 0"},
		{http.StatusOK, "<html>", false, "answer"},
		{http.StatusOK, `{}`, true, "names no node"},
	} {
		status, answer = tc.status, tc.answer
		_, err := c.Route(t.Context(), client.RouteRequest{})
		if err == nil || errors.Is(err, client.ErrUnavailable) != tc.unavailable || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%d %s: %v", tc.status, tc.answer, err)
		}
	}
	router.Close()
	if _, err := c.Route(t.Context(), client.RouteRequest{}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("router gone: %v", err)
	}
}

func TestRouteThroughANode(t *testing.T) {
	a, b := newServer("a").start(t, "tcp", ""), newServer("b").start(t, "tcp", "")
	c := open(t, client.Config{}, a, b)
	r, err := c.Route(t.Context(), client.RouteRequest{Keys: []block.Key{key(1)}})
	if err != nil || r.Node != "a" {
		t.Errorf("%+v, %v", r, err)
	}
	if asked := a.last("CAIRN.ROUTE")[1]; asked != `{"keys":["`+key(1).String()+`"]}` {
		t.Errorf("asked %s", asked)
	}
	if err := c.Done(t.Context(), "r1"); err != nil {
		t.Error(err)
	}
	if n := a.count("CAIRN.DONE") + b.count("CAIRN.DONE"); n != 1 {
		t.Errorf("%d nodes were told: one tells the others", n)
	}
	if err := c.Prefilled(t.Context(), "r2"); err != nil {
		t.Error(err)
	}
	if told := slices.Concat(a.last("CAIRN.DONE"), b.last("CAIRN.DONE")); !slices.Contains(told, "DECODING") {
		t.Errorf("told %q of a request that is being decoded", told)
	}
	a.on("CAIRN.ROUTE", refuse)
	if _, err := c.Route(t.Context(), client.RouteRequest{}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("refused: %v", err)
	}
}
