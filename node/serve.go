package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/coherency/protocol"
	"cairn/resp"
	"cairn/tier"
	"cairn/wire"
)

// command is one command of the protocol.
type command struct {
	// arity counts the arguments with the name: exactly so many, or at least
	// -arity when it is negative. As in Redis.
	arity int
	// usage is the arguments after the name as people write them; "": Redis's own.
	usage string
	// payload tells whether argument arg may be bulk bytes that belong in a slot
	// of the host tier; nil: never.
	payload func(arg int) bool
	do      func(s *session, ctx context.Context, w *resp.Writer, args [][]byte)
	// staged: its payloads go to the home tier at once, so they must not wait for room
	// in the host tier.
	staged bool
}

func only(n int) func(int) bool { return func(arg int) bool { return arg == n } }

// commandTable finds commands by their names in capitals.
type commandTable map[string]command

// longestCommand is the longest name of a command.
const longestCommand = 24

func (t commandTable) lookup(name []byte) (command, bool) {
	if len(name) > longestCommand {
		return command{}, false
	}
	var upper [longestCommand]byte
	for i, c := range name {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	c, ok := t[string(upper[:len(name)])]
	return c, ok
}

// NewHandler makes the handler of a new connection; it is what a resp.Server
// needs.
func (n *Node) NewHandler(info resp.ConnInfo) resp.Handler {
	n.counters.connections.Add(1)
	s := &session{n: n, id: info.ID, conn: info, namespace: n.cfg.Namespaces[0], since: time.Now()}
	if info.Conn != nil {
		s.remote, s.local = info.Conn.RemoteAddr().String(), info.Conn.LocalAddr().String()
	}
	return s
}

// session is one connection. One goroutine uses it.
type session struct {
	n             *Node
	id            uint64
	conn          resp.ConnInfo
	remote, local string // addresses
	since         time.Time

	namespace               Namespace
	nowhere                 bool   // the choice of a namespace has failed
	name                    string // CLIENT SETNAME
	library, libraryVersion string // CLIENT SETINFO
	incoming                []argument
	subscriber              subscriber
	sequence                atomic.Uint64 // what the client has seen of the coherence log
	sequences               map[uint64]*Sequence
	deviceConn              *deviceConn // nil: nothing of GPU memory was asked for
}

// argument is a payload that has been, or is being, received.
type argument struct {
	arg int
	in  *Incoming
}

// Payload implements resp.Handler: bulk bytes are received straight into the
// host tier.
func (s *session) Payload(args [][]byte, arg, length int) ([]byte, error) {
	if arg == 0 {
		return nil, nil
	}
	c, ok := s.n.commands.lookup(args[0])
	if !ok || c.payload == nil || !c.payload(arg) {
		return nil, nil
	}
	reserve := s.n.Reserve
	if c.staged {
		reserve = s.n.reserveStaged
	}
	in, err := reserve(context.Background(), length)
	if err != nil {
		return nil, wireError(err)
	}
	s.incoming = append(s.incoming, argument{arg: arg, in: in})
	return in.Bytes(), nil
}

// Do implements resp.Handler.
func (s *session) Do(ctx context.Context, w *resp.Writer, cmd *resp.Command) {
	defer s.abort()
	s.n.counters.commands.Add(1)
	c, ok := s.n.commands.lookup(cmd.Args[0])
	switch {
	case !ok:
		unknownCommand(w, cmd.Args)
	case c.arity >= 0 && len(cmd.Args) != c.arity, c.arity < 0 && len(cmd.Args) < -c.arity:
		text := arityText(cmd.Args[0])
		if c.usage != "" {
			text += fmt.Sprintf(": want %s %s", strings.ToUpper(string(cmd.Args[0])), c.usage)
		}
		w.Error(text)
	case s.arraysOnly(w) && !whileSubscribed(cmd.Args[0]):
		refuseSubscribed(w, cmd.Args)
	case s.nowhere && !anywhere(cmd.Args[0]):
		fail(w, fmt.Errorf("%w: the connection's last CAIRN.NAMESPACE was refused", ErrNamespace))
	default:
		c.do(s, ctx, w, cmd.Args)
	}
}

// anywhere tells whether a command is executed although the choice of a namespace
// has failed. Others are not: a client that sent both at once must not write to a
// namespace that it did not mean.
func anywhere(name []byte) bool {
	switch strings.ToUpper(string(name)) {
	case "PING", "HELLO", "QUIT", "RESET", "CAIRN.NAMESPACE":
		return true
	}
	return false
}

// Dropped implements resp.Handler.
func (s *session) Dropped(*resp.Command) { s.abort() }

// Close implements resp.Handler.
func (s *session) Close() {
	s.abort()
	s.closeSequences()
	s.closeDevice()
	s.n.pubsub.removeAll(&s.subscriber)
	s.n.counters.connections.Add(-1)
}

func (s *session) abort() {
	for _, a := range s.incoming {
		if a.in != nil {
			a.in.Abort()
		}
	}
	s.incoming = s.incoming[:0]
}

// take returns argument arg as an incoming block: the slot it was received into,
// or a new slot for a small one.
func (s *session) take(ctx context.Context, args [][]byte, arg int) (*Incoming, error) {
	for i, a := range s.incoming {
		if a.arg == arg && a.in != nil {
			s.incoming[i].in = nil
			return a.in, nil
		}
	}
	in, err := s.n.Reserve(ctx, len(args[arg]))
	if err != nil {
		return nil, err
	}
	copy(in.Bytes(), args[arg])
	return in, nil
}

// target is what a key of the Redis protocol names: a sealed block by its own
// key, written "block:" and 32 hexadecimal digits, or a name of the
// connection's namespace.
type target struct {
	key    block.Key
	sealed bool
	name   []byte
}

// blockPrefix marks a sealed block's key among Redis keys.
const blockPrefix = "block:"

func parseTarget(arg []byte) target {
	if len(arg) == len(blockPrefix)+2*block.KeySize && string(arg[:len(blockPrefix)]) == blockPrefix {
		if k, err := block.ParseKey(string(arg[len(blockPrefix):])); err == nil {
			return target{key: k, sealed: true}
		}
	}
	return target{name: arg}
}

// checkName refuses what every Redis command takes for a sealed block: a name that is
// written so could be made, but not read, set or deleted by them.
func checkName(arg []byte) error {
	if parseTarget(arg).sealed {
		return fmt.Errorf("%s is the key of a sealed block, and no name: use GET, SET or DEL", arg)
	}
	return nil
}

// parseKey reads a block key given as 16 raw bytes or 32 hexadecimal digits.
func parseKey(arg []byte) (block.Key, error) {
	if len(arg) == block.KeySize {
		return block.Key(arg), nil
	}
	return block.ParseKey(string(arg))
}

func parseKeys(args [][]byte) ([]block.Key, error) {
	keys := make([]block.Key, len(args))
	for i, a := range args {
		k, err := parseKey(a)
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	return keys, nil
}

// wireError gives an error its code on the wire. A ServerError has one already.
func wireError(err error) error {
	if reply, ok := err.(resp.ServerError); ok {
		return reply
	}
	code := wire.CodeOther
	switch {
	case errors.Is(err, tier.ErrFull):
		code = wire.CodeFull
	case errors.Is(err, tier.ErrTooLarge):
		code = wire.CodeTooLarge
	case errors.Is(err, tier.ErrNoSpace):
		code = wire.CodeNoSpace
	case errors.Is(err, tier.ErrConflict), errors.Is(err, ErrCondition):
		code = wire.CodeConflict
	case errors.Is(err, ErrNamespace):
		code = wire.CodeNamespace
	case errors.Is(err, ErrSequence):
		code = wire.CodeSequence
	case errors.Is(err, ErrNoDevice):
		code = wire.CodeDevice
	case errors.Is(err, ErrSlot):
		code = wire.CodeSlot
	case errors.Is(err, tier.ErrHandle):
		code = wire.CodeHandle
	case errors.Is(err, ErrPins), errors.Is(err, ErrDevicePins):
		code = wire.CodePinned
	case errors.Is(err, ErrSequenceLimit), errors.Is(err, ErrDeviceLimit):
		code = wire.CodeLimit
	case errors.Is(err, protocol.ErrUnknown):
		code = wire.CodeUnknown
	case errors.Is(err, protocol.ErrNoHome):
		code = wire.CodeNoHome
	case errors.Is(err, ErrBytesUnreachable):
		code = wire.CodeUnreachable
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed), errors.Is(err, protocol.ErrContended), errors.Is(err, protocol.ErrStage),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code = wire.CodeUnavailable
	}
	return resp.ServerError(code + " " + err.Error())
}

func fail(w *resp.Writer, err error) { w.Fail(wireError(err)) }

// unknownCommand names the first arguments as Redis does: they tell a person which
// of his calls it was.
func unknownCommand(w *resp.Writer, args [][]byte) {
	const most = 128
	var b strings.Builder
	for _, a := range args[1:] {
		if b.Len() >= most {
			break
		}
		fmt.Fprintf(&b, "'%s' ", printable(a[:min(len(a), most-b.Len())]))
	}
	w.Error(fmt.Sprintf("ERR unknown command '%s', with args beginning with: %s", printable(args[0]), b.String()))
}

// unknownSubcommand answers for a container command such as CLIENT.
func unknownSubcommand(w *resp.Writer, args [][]byte) {
	w.Error(fmt.Sprintf("ERR unknown subcommand '%s'. Try %s HELP.", printable(args[1]), strings.ToUpper(string(args[0]))))
}

func wrongArity(w *resp.Writer, name []byte) { w.Error(arityText(name)) }

func arityText(name []byte) string {
	return fmt.Sprintf("ERR wrong number of arguments for '%s' command", strings.ToLower(printable(name)))
}

// printable is an argument as it may stand in an error message.
func printable(arg []byte) string {
	const most = 128
	if len(arg) > most {
		arg = arg[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, string(arg))
}

// reads are the options of a read that does not say how fresh it is to be.
func (s *session) reads() ReadOptions {
	return ReadOptions{Level: s.namespace.Consistency, Session: s.sequence.Load()}
}

// saw notes what an answer has shown of the log: the client's later reads are not
// older.
func (s *session) saw(sequence uint64) {
	for {
		old := s.sequence.Load()
		if sequence <= old || s.sequence.CompareAndSwap(old, sequence) {
			return
		}
	}
}

// policy reads a write policy; "-" and "" are the namespace's.
func (s *session) policy(arg []byte) (coherency.WritePolicy, error) {
	if len(arg) == 0 || string(arg) == "-" {
		return s.namespace.Policy, nil
	}
	return coherency.ParseWritePolicy(string(arg))
}
