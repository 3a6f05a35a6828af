package natstest

import (
	"fmt"
	"net"
	"testing"
)

// The port of a test can be listened on again and again, by one at a time, and means
// nothing while nobody does.
func TestPort(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", Port(t))
	for range 3 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Fatal("somebody answers who does not listen")
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := net.Listen("tcp", addr); err == nil {
			second.Close()
			t.Error("two listen at a time")
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
