package cluster

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"cairn/router"
)

//go:embed status.html
var statusPage []byte

// Handler is the router over HTTP. Errors are {"error":"…"} with a fitting code.
//
//	POST /v1/route    a RouteRequest, answered by a RouteAnswer
//	POST /v1/done     a DoneRequest, passed on to all routers
//	POST /v1/load     a LoadRequest, passed on to all routers
//	GET  /v1/members  the live members
//	GET  /v1/status   a RouterStatus
//	GET  /healthz     200 once the view is ready and while NATS is there, else 503
//	GET  /            a page for people that shows /v1/status
func (s *RouterService) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/route", s.postRoute)
	mux.HandleFunc("POST /v1/done", func(w http.ResponseWriter, r *http.Request) { tell(s, w, r, SubjectDone, s.over) })
	mux.HandleFunc("POST /v1/load", func(w http.ResponseWriter, r *http.Request) { tell(s, w, r, SubjectLoad, s.load) })
	mux.HandleFunc("GET /v1/members", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.view.Members()) })
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.Status()) })
	mux.HandleFunc("GET /healthz", s.getHealth)
	mux.HandleFunc("GET /{$}", getPage)
	return mux
}

func (s *RouterService) postRoute(w http.ResponseWriter, r *http.Request) {
	body, ok := s.body(w, r)
	if !ok {
		return
	}
	a, err := s.RouteJSON(r.Context(), body)
	if err != nil {
		answerError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(a) // a caller that has hung up is no problem of ours
}

// tell applies what a router is told, here and at all other routers.
func tell[T any](s *RouterService, w http.ResponseWriter, r *http.Request, subject string, apply func(T) error) {
	body, ok := s.body(w, r)
	if !ok {
		return
	}
	var q T
	if err := json.Unmarshal(body, &q); err != nil {
		answerError(w, fmt.Errorf("%w: %w", router.ErrRequest, err))
		return
	}
	err := apply(q)
	if err == nil {
		err = s.view.conn.NC.Publish(subject, body)
	}
	if err != nil {
		answerError(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

// body reads a request, or answers why it does not.
func (s *RouterService) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxBytes)))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		answer(w, http.StatusRequestEntityTooLarge, problem{fmt.Sprintf("the request is larger than %d bytes", large.Limit)})
	case err != nil:
		answer(w, http.StatusBadRequest, problem{"read the request: " + err.Error()})
	}
	return body, err == nil
}

func (s *RouterService) getHealth(w http.ResponseWriter, _ *http.Request) {
	ready := false
	select {
	case <-s.view.ready:
		ready = true
	default:
	}
	switch {
	case !ready:
		answer(w, http.StatusServiceUnavailable, problem{"not ready: the members' blocks are being loaded"})
	case !s.view.conn.Connected():
		answer(w, http.StatusServiceUnavailable, problem{"no connection to NATS"})
	default:
		answer(w, http.StatusOK, struct {
			Status string `json:"status"`
		}{"ok"})
	}
}

func getPage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(statusPage)
}

type problem struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

func answerError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, router.ErrRequest), errors.Is(err, router.ErrNode):
		code = http.StatusBadRequest
	case errors.Is(err, router.ErrNoNodes), Transient(err):
		code = http.StatusServiceUnavailable
	}
	answer(w, code, problem{err.Error()})
}
