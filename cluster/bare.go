package cluster

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// PublishBare publishes data with an id and waits for NATS to confirm it: what the log
// would cost with nothing above it. Benchmarks compare with it.
func (c *Conn) PublishBare(ctx context.Context, subject, id string, data []byte) error {
	_, err := c.JS.Publish(ctx, subject, data, jetstream.WithMsgID(id))
	return err
}
