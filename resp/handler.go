package resp

import (
	"context"
	"errors"
	"net"
)

// ErrClose in an error from Handler.Payload, joined to what is to be said, ends
// the connection after the reply.
var ErrClose = errors.New("closing the connection")

// Command is one command under way. It and what it holds are valid only until
// the call that got it returns, except memory from Handler.Payload, which is
// the handler's.
type Command struct {
	// Args are the arguments, the command's name first, at least one in Do. An
	// argument for which Payload supplied memory is that memory.
	Args [][]byte
}

// Handler executes the commands of one connection. Its methods are called by
// one goroutine, never two at a time.
type Handler interface {
	// Payload is asked when argument number arg (0 is the command's name) of n
	// bytes is about to be received and n is at least PayloadThreshold; args are
	// the arguments before it. It returns the memory to receive into (n bytes,
	// which the reader writes to until Do or Dropped), or nil to have the
	// argument buffered by the reader (at most MaxArgument bytes), or an
	// error: then the argument is thrown away and the command answered with
	// the error. The text of a ServerError is sent as it is; any other error
	// is sent behind "ERR ".
	Payload(args [][]byte, arg, n int) ([]byte, error)

	// Do executes a command and writes exactly one reply to w, or where the
	// protocol has it so, as for SUBSCRIBE, one push message for each argument.
	// ctx ends when the server closes the connection.
	Do(ctx context.Context, w *Writer, cmd *Command)

	// Dropped is called instead of Do, once, when Payload has been called for a
	// command that will not be executed: the connection broke, an argument was
	// refused, or Payload panicked. cmd.Args are the arguments that arrived
	// complete. Memory that Payload supplied is no longer written to.
	Dropped(cmd *Command)

	// Close is called once, last, also when no command has arrived.
	Close()
}

// ConnInfo says who a connection is from.
type ConnInfo struct {
	// ID numbers the server's connections from 1.
	ID uint64
	// Conn is for asking about the connection, such as the credentials of the
	// process behind a unix socket. It must not be read from, written to, or
	// given deadlines.
	Conn net.Conn
}

// Releaser is told that memory which was handed over is no longer used.
type Releaser interface {
	// Release is called once, from the connection's goroutine. It must not block.
	Release()
}
