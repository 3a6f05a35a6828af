package resp

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A client that many programs use gets along with the server.
func TestGoRedis(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, protocol := range []int{2, 3} {
			_, addr := serve(t, network, ServerConfig{}, newMemory())
			c := redis.NewClient(&redis.Options{
				Network: network, Addr: addr, Protocol: protocol,
				DialTimeout: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
				MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			})
			defer c.Close()
			big := pattern(1 << 20)
			if err := c.Set(t.Context(), "k", big, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Get(t.Context(), "k").Bytes(); err != nil || !bytes.Equal(got, big) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if err := c.Get(t.Context(), "none").Err(); !errors.Is(err, redis.Nil) {
				t.Fatal(err)
			}
			pipe := c.Pipeline()
			ping := pipe.Ping(t.Context())
			mget := pipe.MGet(t.Context(), "k", "none")
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ping.Val() != "PONG" || mget.Val()[0] != string(big) || mget.Val()[1] != nil {
				t.Error("wrong replies in a pipeline")
			}
		}
	}
}
