package resp

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// minRate is the slowest rate, in bytes a second, at which a payload may move:
// the time for a frame is its timeout plus its declared length at this rate.
const minRate = 1 << 20

// ServerConfig is what a Server can be told. The zero value of each limit
// means its default.
type ServerConfig struct {
	// NewHandler makes the handler of a new connection. Required. It runs in the
	// connection's goroutine.
	NewHandler func(ConnInfo) Handler

	// Logger gets connection errors (debug), overload (warn) and panics (error).
	// Default: nothing is logged.
	Logger *slog.Logger

	// PayloadThreshold: arguments of at least this many bytes are offered to
	// Handler.Payload; shorter ones are buffered. Default 16 KiB.
	PayloadThreshold int

	// MaxArguments bounds the arguments of one command, its name included.
	// Default 131,072.
	MaxArguments int

	// MaxInline bounds an inline command, in bytes. Default 64 KiB, as in Redis.
	MaxInline int

	// MaxArgument bounds, in bytes, an argument that the reader buffers itself.
	// Default 4 MiB.
	MaxArgument int

	// MaxCommand bounds, in bytes, everything that the reader buffers for one
	// command. Default 16 MiB.
	MaxCommand int

	// MaxPayload bounds, in bytes, an argument received into a handler's memory.
	// A longer one is thrown away and the command answered with an error.
	// Default 128 MiB.
	MaxPayload int

	// MaxDiscard bounds, in bytes, what is read and thrown away for one command
	// to keep the connection usable after an error; a command with more than
	// this is answered with the error and the connection is closed.
	// Default 256 MiB.
	MaxDiscard int64

	// MaxConnections bounds the connections open at once; one more is told so and
	// closed. Default 10,000.
	MaxConnections int

	// MaxInFlightBytes bounds, over all connections, the bytes of payloads being
	// received or queued for sending. A command that would exceed it waits up
	// to InFlightWait and is then answered with a BUSY error. It is checked at a
	// command's first payload: a command that has been let in is not stopped
	// half-way, because commands that wait for each other's share would all
	// time out. A single command may not hold more than this. Default 1 GiB.
	MaxInFlightBytes int64

	// InFlightWait is described at MaxInFlightBytes. Default 5 s.
	InFlightWait time.Duration

	// ReadTimeout is the time for a command to arrive once its first byte is
	// there, and one second more for each MiB that it declares. Default 30 s.
	ReadTimeout time.Duration

	// IdleTimeout closes a connection that has sent nothing between commands for
	// so long, unless it has a Pusher. Zero, the default, never does.
	IdleTimeout time.Duration

	// WriteTimeout is the time for replies to be accepted by the peer, and one
	// second more for each MiB of them. Default 30 s.
	WriteTimeout time.Duration

	// Linger is how long, after an error that ends the connection, what the peer
	// still sends is thrown away, so that it reads the error rather than a
	// reset of the connection. Default 1 s.
	Linger time.Duration

	// FlushBytes: replies are written when this many bytes are queued, even if
	// more commands have arrived. Default 1 MiB.
	FlushBytes int

	// MaxPushBytes bounds, in bytes, the messages of a Pusher that wait for their
	// connection. A subscriber that falls further behind is disconnected. It is
	// apart from MaxInFlightBytes. Default 8 MiB.
	MaxPushBytes int

	// ReadBuffer is the size of a connection's input buffer. Default 16 KiB.
	ReadBuffer int

	// SocketBuffer is what each connection asks of the kernel for sending and
	// receiving, in bytes. On TCP it is asked for only where the kernel grants
	// all of it (net.core.rmem_max, wmem_max), because a smaller fixed buffer is
	// worse than the kernel's own tuning. Negative: never asked. Default 1 MiB.
	SocketBuffer int
}

// withDefaults returns the configuration with defaults for what is zero.
func (c ServerConfig) withDefaults() ServerConfig {
	setDefault(&c.PayloadThreshold, 16<<10)
	setDefault(&c.MaxArguments, 128<<10)
	setDefault(&c.MaxInline, 64<<10)
	setDefault(&c.MaxArgument, 4<<20)
	setDefault(&c.MaxCommand, 16<<20)
	setDefault(&c.MaxPayload, 128<<20)
	setDefault(&c.MaxDiscard, 256<<20)
	setDefault(&c.MaxConnections, 10_000)
	setDefault(&c.MaxInFlightBytes, 1<<30)
	setDefault(&c.InFlightWait, 5*time.Second)
	setDefault(&c.ReadTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.Linger, time.Second)
	setDefault(&c.FlushBytes, 1<<20)
	setDefault(&c.MaxPushBytes, 8<<20)
	setDefault(&c.ReadBuffer, 16<<10)
	setDefault(&c.SocketBuffer, 1<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports everything that is wrong with the configuration, defaults
// applied.
func (c ServerConfig) Validate() error {
	c = c.withDefaults()
	var errs []error
	if c.NewHandler == nil {
		errs = append(errs, errors.New("NewHandler is not set"))
	}
	atLeast := func(name string, v, low int64) {
		if v < low {
			errs = append(errs, fmt.Errorf("%s is %d, must be at least %d", name, v, low))
		}
	}
	atLeast("PayloadThreshold", int64(c.PayloadThreshold), 1)
	atLeast("MaxArguments", int64(c.MaxArguments), 1)
	atLeast("MaxInline", int64(c.MaxInline), 16)
	atLeast("MaxArgument", int64(c.MaxArgument), int64(c.PayloadThreshold))
	atLeast("MaxCommand", int64(c.MaxCommand), int64(c.MaxArgument))
	atLeast("MaxPayload", int64(c.MaxPayload), int64(c.PayloadThreshold))
	atLeast("MaxDiscard", c.MaxDiscard, int64(c.MaxPayload))
	atLeast("MaxConnections", int64(c.MaxConnections), 1)
	atLeast("MaxInFlightBytes", c.MaxInFlightBytes, int64(c.MaxPayload))
	atLeast("InFlightWait", int64(c.InFlightWait), 1)
	atLeast("ReadTimeout", int64(c.ReadTimeout), 1)
	atLeast("IdleTimeout", int64(c.IdleTimeout), 0)
	atLeast("WriteTimeout", int64(c.WriteTimeout), 1)
	atLeast("Linger", int64(c.Linger), 1)
	atLeast("FlushBytes", int64(c.FlushBytes), 1)
	atLeast("MaxPushBytes", int64(c.MaxPushBytes), 1)
	atLeast("ReadBuffer", int64(c.ReadBuffer), 64)
	if len(errs) > 0 {
		return fmt.Errorf("resp: server configuration: %w", errors.Join(errs...))
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
