package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cairn/node"
)

// DefaultSummaryEvery is the default of [NodeServiceConfig.SummaryEvery].
const DefaultSummaryEvery = time.Second

// SnapshotRequest asks a node for its newest snapshot, on cairn.v1.rpc.<node>.snapshot.
type SnapshotRequest struct {
	// Incarnation that is meant; 0 is the present one.
	Incarnation uint64 `json:"incarnation"`
	// AtLeast is the position that it has to cover; the node writes a fresh one
	// if need be.
	AtLeast uint64 `json:"at_least"`
}

// NodeServiceConfig says what a node answers to whom.
type NodeServiceConfig struct {
	// Node is the node's id; required.
	Node string
	// Version of the program.
	Version string
	// Status is what `nats req cairn.v1.rpc.<node>.status ''` shows: anything that encodes
	// as JSON. Required; may run in parallel with itself.
	Status func() any
	// Summary is what is published on cairn.v1.summary.<node> for people to watch:
	// small, and JSON. Default: nothing is published.
	Summary func() any
	// SummaryEvery is how often. Default 1 s.
	SummaryEvery time.Duration
	// Drain is called when somebody asks that the node drains: that routers send it no new
	// requests and that it hands over what only it has; or that it takes requests again; or
	// how far it is. It does not wait for the blocks. Without it the node cannot be drained.
	Drain func(DrainRequest) (node.HandoverStatus, error)
	// Onboard is called when somebody, as a rule a router, asks that blocks be brought into
	// memory ahead of a request. It must not wait; an error says that they are not. Without it
	// the node fetches nothing ahead.
	Onboard func(OnboardMessage) error
}

// DrainRequest asks a node to drain, on cairn.v1.rpc.<node>.drain. The answer says how far
// it is, in the form of node.HandoverStatus.
type DrainRequest struct {
	// Undo: take requests again instead, and hand over no more.
	Undo bool `json:"undo,omitempty"`
	// Look: change nothing.
	Look bool `json:"look,omitempty"`
	// Evict is the share of its capacity, 0 to 1, for which each other node may evict blocks
	// of its own beyond giving free room.
	Evict float64 `json:"evict,omitempty"`
}

// Validate reports every problem of c at once.
func (c NodeServiceConfig) Validate() error {
	errs := []error{ValidID(c.Node)}
	if c.Status == nil {
		errs = append(errs, errors.New("cluster: node service without Status"))
	}
	if c.SummaryEvery < 0 {
		errs = append(errs, fmt.Errorf("cluster: SummaryEvery %v is negative", c.SummaryEvery))
	}
	return errors.Join(errs...)
}

// NodeService answers for one node as the micro service cairn-node, with the
// operations snapshot, status, drain and onboard, and publishes the node's summaries.
type NodeService struct {
	svc  *Service
	stop context.CancelFunc
	done chan struct{}
}

// StartNodeService serves until Stop.
func StartNodeService(conn *Conn, p *Publisher, cfg NodeServiceConfig) (*NodeService, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	svc, err := NewService(conn, ServiceConfig{Name: ServiceNode, Description: "Cairn: node " + cfg.Node,
		Version: cfg.Version, Metadata: map[string]string{"node": cfg.Node}})
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		Serve(svc, Endpoint{Name: opSnapshot, Subject: RPCSubject(cfg.Node, opSnapshot), Schema: "cairn.snapshot.v1"},
			func(ctx context.Context, r SnapshotRequest) (SnapshotInfo, error) { return answerSnapshot(ctx, p, r) }),
		Serve(svc, Endpoint{Name: opStatus, Subject: RPCSubject(cfg.Node, opStatus), Schema: "cairn.status.v1"},
			func(context.Context, struct{}) (any, error) { return cfg.Status(), nil }),
	)
	if cfg.Drain != nil {
		err = errors.Join(err, Serve(svc, Endpoint{Name: opDrain, Subject: RPCSubject(cfg.Node, opDrain), Schema: "cairn.drain.v1"},
			func(_ context.Context, q DrainRequest) (node.HandoverStatus, error) {
				s, err := cfg.Drain(q)
				if err != nil {
					err = &RPCError{CodeBadRequest, err.Error()}
				}
				return s, err
			}))
	}
	if cfg.Onboard != nil {
		err = errors.Join(err, Serve(svc, Endpoint{Name: opOnboard, Subject: OnboardSubject(cfg.Node), Schema: "cairn.onboard.v1"},
			func(_ context.Context, m OnboardMessage) (OnboardAnswer, error) { return serveOnboard(cfg, m) }))
	}
	if err != nil {
		return nil, errors.Join(err, svc.Stop())
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &NodeService{svc: svc, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		if cfg.Summary != nil {
			summarize(ctx, conn, cfg)
		}
	}()
	return n, nil
}

// Stop stops serving and waits for what is in work.
func (n *NodeService) Stop() error {
	n.stop()
	<-n.done
	return n.svc.Stop()
}

// Drain asks a node to drain, to take requests again, or how far it is. It does not wait
// until it is done. Routers hear of it when the node next renews its lease.
func Drain(ctx context.Context, conn *Conn, id string, q DrainRequest) (node.HandoverStatus, error) {
	return Call[DrainRequest, node.HandoverStatus](ctx, conn, RPCSubject(id, opDrain), q)
}

func answerSnapshot(ctx context.Context, p *Publisher, r SnapshotRequest) (SnapshotInfo, error) {
	incarnation, position := p.at()
	if r.Incarnation != 0 && r.Incarnation != incarnation {
		return SnapshotInfo{}, &RPCError{CodeNotFound, fmt.Sprintf("incarnation %d was asked for, this is %d", r.Incarnation, incarnation)}
	}
	if r.AtLeast > position {
		return SnapshotInfo{}, &RPCError{CodeBadRequest, fmt.Sprintf("position %d was asked for, the newest change is %d", r.AtLeast, position)}
	}
	return p.Snapshot(ctx, r.AtLeast)
}

// summarize publishes summaries until ctx ends. Without NATS they are not kept.
func summarize(ctx context.Context, conn *Conn, cfg NodeServiceConfig) {
	tick := time.NewTicker(or(cfg.SummaryEvery, DefaultSummaryEvery))
	defer tick.Stop()
	subject := SummarySubject(cfg.Node)
	for {
		data, err := json.Marshal(cfg.Summary())
		if err == nil {
			err = conn.NC.Publish(subject, data)
		}
		if err != nil {
			conn.Log.Debug("summary was not published", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
