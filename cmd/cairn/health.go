package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"cairn/cluster"
)

// healthy asks a server of any kind whether it can serve.
func healthy(ctx context.Context, addr string) error {
	switch {
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		return healthyHTTP(ctx, strings.TrimSuffix(addr, "/")+"/healthz")
	case strings.HasPrefix(addr, "nats://"), strings.HasPrefix(addr, "tls://"):
		conn, err := cluster.Connect(ctx, cluster.ConnConfig{URLs: []string{addr}, Name: "health check"})
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
