package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"cairn/cluster"
	"cairn/router"
	"cairn/sequence"
)

type routerCmd struct {
	Listen string    `help:"Address of the HTTP interface and the status page." default:"127.0.0.1:7080"`
	Data   string    `help:"Directory of an embedded NATS, if one is started." default:"cairn-data/router" type:"path"`
	Cost   costFlags `embed:"" group:"cost"`
	natsClient
	natsServer

	StopFD int `name:"stop-fd" help:"Stop when this file descriptor reaches its end." hidden:""`
}

func (c *routerCmd) Run(a *app) error {
	conn, server, err := c.connect(a.ctx, a, c.natsServer, c.Data, "router")
	if err != nil {
		return err
	}
	if server != nil {
		defer server.Close()
	}
	defer conn.Close()
	r, err := startRouter(a, conn, c.Listen, c.Cost)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "cairn: router at http://%s/, NATS at %s\n", r.addr, conn.NC.ConnectedUrlRedacted())
	select {
	case <-a.ctx.Done():
	case <-endOf(c.StopFD):
	}
	return r.stop()
}

// runningRouter is a router with its view and its HTTP interface.
type runningRouter struct {
	addr    string
	view    *cluster.View
	service *cluster.RouterService
	http    *http.Server
}

// startRouter serves as soon as it listens; /healthz tells when its view is
// complete.
func startRouter(a *app, conn *cluster.Conn, listen string, cost costFlags) (*runningRouter, error) {
	config, err := cost.config()
	if err != nil {
		return nil, usageError{err}
	}
	view, err := cluster.OpenView(a.ctx, conn, cluster.ViewConfig{Index: cost.index(), Logger: a.log})
	if err != nil {
		return nil, err
	}
	service, err := cluster.NewRouterService(view, cluster.RouterServiceConfig{
		Router: config, Hash: hashTokens, Version: version(), Logger: a.log,
	})
	if err == nil {
		err = service.Start()
	}
	if err != nil {
		view.Close()
		return nil, usageError{err}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		err = errors.Join(fmt.Errorf("router: --listen: %w (is another router running? give it another port)", err), service.Stop())
		view.Close()
		return nil, err
	}
	h := &http.Server{Handler: service.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("router's HTTP interface", "err", err)
		}
	}()
	return &runningRouter{addr: l.Addr().String(), view: view, service: service, http: h}, nil
}

func (r *runningRouter) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainWait)
	defer cancel()
	err := errors.Join(r.http.Shutdown(ctx), r.service.Stop())
	r.view.Close()
	return err
}

// hashTokens cuts a prompt into blocks as the namespace of the request says.
func hashTokens(namespace json.RawMessage, tokens []uint32) (cluster.Hashed, error) {
	k, err := sequence.ParseNamespace(namespace)
	if err != nil {
		return cluster.Hashed{}, err
	}
	keys, err := sequence.KeysOf(k.Hasher, k.Salt, k.BlockSize, tokens)
	return cluster.Hashed{Keys: keys, Layout: router.Layout{BlockTokens: k.BlockSize, Hash: k.Hash, Salt: k.Salt.String()}}, err
}
