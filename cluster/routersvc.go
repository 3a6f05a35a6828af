package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/node"
	"cairn/router"

	"github.com/nats-io/nats.go"
)

// Defaults of [RouterServiceConfig].
const (
	DefaultMaxRouteBytes = 8 << 20
	DefaultMaxRouteKeys  = 1 << 17
	DefaultMaxTokenIDs   = 1 << 21
)

// RouteRequest is the request of POST /v1/route, of cairn.v1.route and of
// CAIRN.ROUTE: a [router.Request], or token ids with their namespace in the place
// of keys.
type RouteRequest struct {
	router.Request
	// TokenIDs is the prompt; then Keys is empty, and Namespace says whose blocks
	// they are cut into.
	TokenIDs []uint32 `json:"token_ids,omitempty"`
	// Namespace has the members of sequence.Namespace.
	Namespace json.RawMessage `json:"namespace,omitempty"`
	// Explain asks for the decision as text, too.
	Explain bool `json:"explain,omitempty"`
}

// RouteAnswer is the answer.
type RouteAnswer struct {
	router.Decision
	Explanation string `json:"explanation,omitempty"`
}

// Hashed is a prompt cut into blocks.
type Hashed struct {
	Keys []block.Key
	// Layout says how; BlockTokens is set.
	Layout router.Layout
}

// RouterServiceConfig says how requests are routed and what is too large. The
// zero value of a field means its default.
type RouterServiceConfig struct {
	// Router says what things cost.
	Router router.Config
	// MaxBytes bounds a request in JSON. Default 8 MiB. NATS itself bounds a message
	// to 1 MiB unless it is configured otherwise.
	MaxBytes int
	// MaxKeys bounds the keys of a request. Default 131,072.
	MaxKeys int
	// MaxTokenIDs bounds the token ids of a request. Default 2,097,152.
	MaxTokenIDs int
	// Hash cuts token ids into blocks and names them, given the namespace of the
	// request. Without it requests must bring keys.
	Hash func(namespace json.RawMessage, tokens []uint32) (Hashed, error)
	// Version of the program.
	Version string
	// Logger gets what goes wrong. Default: that of the view's connection.
	Logger *slog.Logger
}

// Validate reports every problem of c at once.
func (c RouterServiceConfig) Validate() error {
	errs := []error{c.Router.Validate()}
	if c.MaxBytes < 0 || c.MaxKeys < 0 || c.MaxTokenIDs < 0 {
		errs = append(errs, fmt.Errorf("cluster: MaxBytes %d, MaxKeys %d, MaxTokenIDs %d: want none negative", c.MaxBytes, c.MaxKeys, c.MaxTokenIDs))
	}
	return errors.Join(errs...)
}

// RouterService ranks nodes for requests, from what a view knows. It implements
// node.Router; [RouterService.Start] makes it answer on NATS and
// [RouterService.Handler] over HTTP. All methods may run in parallel.
type RouterService struct {
	cfg     RouterServiceConfig
	view    *View
	router  *router.Router
	id      string // of this run, among routers
	started time.Time
	svc     atomic.Pointer[Service]

	routed, refused, observed, toldAhead atomic.Uint64

	mu   sync.Mutex // guards subs
	subs []*nats.Subscription
}

var _ node.Router = (*RouterService)(nil)

// NewRouterService makes a router on the view, which it does not own.
func NewRouterService(view *View, cfg RouterServiceConfig) (*RouterService, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.MaxBytes = or(cfg.MaxBytes, DefaultMaxRouteBytes)
	cfg.MaxKeys = or(cfg.MaxKeys, DefaultMaxRouteKeys)
	cfg.MaxTokenIDs = or(cfg.MaxTokenIDs, DefaultMaxTokenIDs)
	if cfg.Logger == nil {
		cfg.Logger = view.cfg.Logger
	}
	r, err := router.New(view.Index(), cfg.Router)
	if err != nil {
		return nil, err
	}
	s := &RouterService{cfg: cfg, view: view, router: r, id: newRouterID(), started: time.Now()}
	view.OnMember(s.member)
	return s, nil
}

// Start answers on NATS, as one of the micro services cairn-router, until Stop.
func (s *RouterService) Start() error {
	conn := s.view.conn
	svc, err := NewService(conn, ServiceConfig{Name: ServiceRouter, Description: "Cairn: where to send a request", Version: s.cfg.Version})
	if err != nil {
		return err
	}
	err = errors.Join(
		Serve(svc, Endpoint{Name: "route", Subject: SubjectRoute, Queue: QueueRoute, Schema: "cairn.route.v1"},
			func(_ context.Context, q RouteRequest) (RouteAnswer, error) {
				a, err := s.route(q)
				return a, routeError(err)
			}),
		Serve(svc, Endpoint{Name: "done", Subject: SubjectDone, Schema: "cairn.route.done.v1"},
			func(_ context.Context, q DoneRequest) (struct{}, error) { return struct{}{}, routeError(s.over(q)) }),
		Serve(svc, Endpoint{Name: "load", Subject: SubjectLoad, Schema: "cairn.route.load.v1"},
			func(_ context.Context, q LoadRequest) (struct{}, error) { return struct{}{}, routeError(s.load(q)) }),
		Serve(svc, Endpoint{Name: "routed", Subject: SubjectRouted, Schema: "cairn.route.routed.v1"},
			func(_ context.Context, m RoutedMessage) (struct{}, error) {
				return struct{}{}, routeError(s.observe(m))
			}),
	)
	if err != nil {
		return errors.Join(err, svc.Stop())
	}
	if !s.svc.CompareAndSwap(nil, svc) {
		return errors.Join(errors.New("cluster: the router service has been started before"), svc.Stop())
	}
	return nil
}

// Stop ends what Start and Listen began.
func (s *RouterService) Stop() error {
	err := s.unlisten()
	if svc := s.svc.Swap(nil); svc != nil {
		err = errors.Join(err, svc.Stop())
	}
	return err
}

// RouteJSON implements node.Router: a [RouteRequest] in, a [RouteAnswer] out. A request
// that is at fault gives an error that matches [router.ErrRequest], one for which there is no
// node at present one that matches [node.ErrUnavailable] as well as [router.ErrNoNodes].
func (s *RouterService) RouteJSON(ctx context.Context, request []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(request) > s.cfg.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", router.ErrRequest, len(request), s.cfg.MaxBytes)
	}
	var q RouteRequest
	if err := json.Unmarshal(request, &q); err != nil {
		s.refused.Add(1)
		return nil, fmt.Errorf("%w: %w", router.ErrRequest, err)
	}
	a, err := s.route(q)
	if errors.Is(err, router.ErrNoNodes) && !errors.Is(err, router.ErrRequest) {
		return nil, notNow{err}
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// notNow marks an error as one that another router may not have, nor this one later.
type notNow struct{ error }

// Unwrap is for errors.Is.
func (e notNow) Unwrap() error { return e.error }

// Is for errors.Is.
func (e notNow) Is(target error) bool { return target == node.ErrUnavailable }

func (s *RouterService) route(q RouteRequest) (RouteAnswer, error) {
	a, err := s.decide(q)
	if err != nil {
		s.refused.Add(1)
		return a, err
	}
	s.routed.Add(1)
	return a, nil
}

func (s *RouterService) decide(q RouteRequest) (RouteAnswer, error) {
	switch {
	case len(q.Keys) > s.cfg.MaxKeys:
		return RouteAnswer{}, fmt.Errorf("%w: %d keys, at most %d", router.ErrRequest, len(q.Keys), s.cfg.MaxKeys)
	case len(q.TokenIDs) > s.cfg.MaxTokenIDs:
		return RouteAnswer{}, fmt.Errorf("%w: %d token_ids, at most %d", router.ErrRequest, len(q.TokenIDs), s.cfg.MaxTokenIDs)
	case len(q.TokenIDs) > 0 && len(q.Keys) > 0:
		return RouteAnswer{}, fmt.Errorf("%w: both keys and token_ids: give one of them", router.ErrRequest)
	case len(q.TokenIDs) > 0 && s.cfg.Hash == nil:
		return RouteAnswer{}, fmt.Errorf("%w: this router takes keys, not token_ids", router.ErrRequest)
	case len(q.TokenIDs) > 0 && len(q.Namespace) == 0:
		return RouteAnswer{}, fmt.Errorf(`%w: token_ids without namespace: give "namespace":{"model":…,"block_size":…} as the engine does`, router.ErrRequest)
	case len(q.TokenIDs) > 0:
		h, err := s.cfg.Hash(q.Namespace, q.TokenIDs)
		if err != nil {
			return RouteAnswer{}, fmt.Errorf("%w: %w", router.ErrRequest, err)
		}
		q.Keys, q.BlockTokens, q.Hash, q.Salt, q.Tokens = h.Keys, h.Layout.BlockTokens, h.Layout.Hash, h.Layout.Salt, len(q.TokenIDs)
	}
	d, err := s.router.Route(q.Request, time.Now())
	if err != nil {
		return RouteAnswer{}, err
	}
	if !q.DryRun {
		s.share(d.Assignment(&q.Request))
		if d.Ahead != nil {
			d.Ahead.Told = s.tellAhead(d.Node, d.Ahead, q.Keys)
		}
	}
	a := RouteAnswer{Decision: d}
	if q.Explain {
		a.Explanation = d.Explain()
	}
	return a, nil
}

func (s *RouterService) load(q LoadRequest) error {
	if _, ok := s.view.Member(q.Node); !ok {
		return fmt.Errorf("%w: no live node is named %.80q", router.ErrRequest, q.Node)
	}
	return s.router.Report(q.Node, q.Load, time.Now())
}

// member takes the load out of what a member says of itself.
func (s *RouterService) member(e MemberEvent) {
	load, told, err := memberLoad(e.Member)
	if !told || e.Change == MemberLeft {
		return
	}
	if err == nil {
		err = s.router.Report(e.Member.ID, load, time.Now())
	}
	if err != nil {
		s.cfg.Logger.Warn("a member's load is not understood", "member", e.Member.ID, "error", err)
	}
}

// routeError gives an error of the router the code that its cause deserves.
func routeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, router.ErrRequest), errors.Is(err, router.ErrNode):
		return &RPCError{CodeBadRequest, err.Error()}
	case errors.Is(err, router.ErrNoNodes):
		return &RPCError{CodeUnavailable, err.Error()}
	}
	return err
}

// NodeStatus is a member and what the view knows that it holds.
type NodeStatus struct {
	Member
	// Position is the number of the member's last change that has arrived.
	Position uint64 `json:"position"`
	// Blocks counts its blocks by tier.
	Blocks router.TierBlocks `json:"blocks"`
}

// RouterStatus is the answer of GET /v1/status. Counters count since the start.
type RouterStatus struct {
	Version       string       `json:"version"`
	Now           time.Time    `json:"now"`
	UptimeSeconds float64      `json:"uptime_seconds"`
	Connected     bool         `json:"connected"` // to NATS
	Nodes         []NodeStatus `json:"nodes"`
	View          ViewStats    `json:"view"`
	Routed        uint64       `json:"routed"`
	Refused       uint64       `json:"refused"`
	Observed      uint64       `json:"observed"`   // decisions of other routers that this one counts
	ToldAhead     uint64       `json:"told_ahead"` // decisions of which the node was told to fetch ahead
}

// Status may be called at any time.
func (s *RouterService) Status() RouterStatus {
	out := RouterStatus{Version: s.cfg.Version, Now: time.Now().UTC(), UptimeSeconds: time.Since(s.started).Seconds(),
		Connected: s.view.conn.Connected(), View: s.view.Stats(), Routed: s.routed.Load(), Refused: s.refused.Load(), Observed: s.observed.Load(), ToldAhead: s.toldAhead.Load(),
		Nodes: []NodeStatus{}}
	known := map[string]router.NodeStats{}
	for _, n := range out.View.Index.Nodes {
		known[n.ID] = n
	}
	out.View.Index.Nodes = nil // they are in Nodes
	for _, m := range s.view.Members() {
		n := known[m.ID]
		out.Nodes = append(out.Nodes, NodeStatus{Member: m, Position: n.Position, Blocks: n.Blocks})
	}
	return out
}
