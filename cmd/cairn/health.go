package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"cairn/cluster"
)

// healthy asks a server of any kind whether it can serve.
func healthy(ctx context.Context, addr string) error {
	switch {
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		return healthyHTTP(ctx, strings.TrimSuffix(addr, "/")+"/healthz")
	case strings.HasPrefix(addr, "nats://"), strings.HasPrefix(addr, "tls://"):
		cfg := cluster.ConnConfig{URLs: []string{addr}, Name: "health check"}
		if end, ok := ctx.Deadline(); ok {
			cfg.ConnectTimeout = max(time.Until(end), time.Millisecond)
		}
		conn, err := cluster.Connect(ctx, cfg)
		if err != nil {
			return err
		}
		return conn.Close()
	default:
		return pingNode(ctx, addr)
	}
}

func healthyHTTP(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	const most = 512
	text, _ := io.ReadAll(io.LimitReader(res.Body, most))
	return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(text)))
}
