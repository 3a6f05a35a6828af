// Package resp speaks the Redis protocol (RESP2 and RESP3) for values that are
// large: a block of a cache is received straight into the memory where it will
// stay, and sent straight from there, without a copy inside the process. It
// knows the protocol and its connections; what a command means is the business
// of a [Handler].
//
// # Server
//
// A [Server] reads commands, as arrays of bulk strings or as inline lines, from
// TCP or unix connections, pipelined and split in any way. Each connection has a
// goroutine, a Handler, a [Writer] and a [Command] that is used again for the
// next command, so that a command costs no allocation. When an argument of at
// least [ServerConfig.PayloadThreshold] bytes is about to arrive, Handler.Payload
// supplies the memory to receive it into:
//
//	*3 $3 SET $16 <key> $524288 ──► Payload(args=[SET key], arg=2, n=524288) ──► slot
//	                     <bytes> ──► read(2) into slot
//	                             ──► Do(SET key slot)        or, if the stream broke, Dropped
//
// [Writer.BulkRef] queues such memory for writev(2) and tells its [Releaser]
// when the kernel has it. Replies are written when the next command would have
// to be waited for, or when ServerConfig.FlushBytes are queued.
//
// # Messages that nobody asked for
//
// A connection's [Pusher] lets others send it push messages, between replies and
// while it waits for a command. What may wait there is bounded by
// [ServerConfig.MaxPushBytes]; a publisher is never held up, a subscriber that
// does not keep up is disconnected. A connection without a Pusher pays nothing.
//
// # Client
//
// A [Conn] sends a chain of commands with one writev and reads the replies in
// order, bulk strings straight into the caller's memory ([Conn.ReadBulkInto]).
// A [Pool] keeps connections to one address.
//
// # What a peer can make it do
//
// Nothing is allocated because a peer declared a length: memory grows as bytes
// arrive, up to the limits of [ServerConfig] and [ClientConfig]. The protocol is
// described at https://redis.io/docs/latest/develop/reference/protocol-spec;
// where it is silent (limits, texts of errors, quoting of inline commands)
// this package does what redis-server 7 does.
package resp
