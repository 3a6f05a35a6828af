package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cairn/resp"
	"cairn/wire"
)

// channelExtra is what a channel may be longer than the name of which it tells.
const channelExtra = 128

// subscriptionWords are the commands for a kind of subscription, and the first
// elements of their replies.
var subscriptionWords = [subscriptionKinds]struct{ on, off string }{
	byChannel: {"subscribe", "unsubscribe"},
	byPattern: {"psubscribe", "punsubscribe"},
}

// subscribe makes SUBSCRIBE channel… or PSUBSCRIBE pattern…: one push message for
// each, after which its messages may come.
func subscribe(kind subscriptionKind) func(*session, context.Context, *resp.Writer, [][]byte) {
	return func(s *session, _ context.Context, w *resp.Writer, args [][]byte) {
		if err := s.maySubscribe(kind, args[1:]); err != nil {
			fail(w, err)
			return
		}
		s.subscriber.push = w.Pusher()
		for _, channel := range args[1:] {
			s.n.pubsub.add(kind, string(channel), &s.subscriber)
			s.confirm(w, subscriptionWords[kind].on, channel)
		}
	}
}

// maySubscribe holds the limits of subscriptions.
func (s *session) maySubscribe(kind subscriptionKind, channels [][]byte) error {
	count, most, limit := s.subscriber.count(), s.n.cfg.MaxName+channelExtra, "max-name-bytes and 128"
	if kind == byPattern {
		most, limit = s.n.cfg.MaxPattern, "max-pattern-bytes"
	}
	for _, channel := range channels {
		if len(channel) > most {
			return resp.ServerError(fmt.Sprintf("%s %s of %d bytes, the most is %s, %d",
				wire.CodeTooLarge, subscriptionWords[kind].on, len(channel), limit, most))
		}
		if _, ok := s.subscriber.to[kind][string(channel)]; !ok {
			count++
		}
	}
	if count > s.n.cfg.MaxSubscriptions {
		return fmt.Errorf("%d subscriptions, max-subscriptions is %d", count, s.n.cfg.MaxSubscriptions)
	}
	return nil
}

// unsubscribe makes UNSUBSCRIBE [channel…] or PUNSUBSCRIBE [pattern…]; without
// arguments it ends all of the kind.
func unsubscribe(kind subscriptionKind) func(*session, context.Context, *resp.Writer, [][]byte) {
	return func(s *session, _ context.Context, w *resp.Writer, args [][]byte) {
		word, channels := subscriptionWords[kind].off, args[1:]
		if len(channels) == 0 {
			for _, channel := range slices.Sorted(maps.Keys(s.subscriber.to[kind])) {
				channels = append(channels, []byte(channel))
			}
		}
		for _, channel := range channels {
			s.n.pubsub.remove(kind, string(channel), &s.subscriber)
			w.TakePushed() // nothing of it comes after the confirmation
			s.confirm(w, word, channel)
		}
		if len(channels) == 0 {
			s.confirm(w, word, nil)
		}
	}
}

// confirm tells of a change of one subscription, and how many are left.
func (s *session) confirm(w *resp.Writer, word string, channel []byte) {
	w.Push(3)
	w.BulkString(word)
	if channel == nil {
		w.Null()
	} else {
		w.Bulk(channel)
	}
	w.Int(int64(s.subscriber.count()))
}

// publish is PUBLISH, which is refused: a message of a client's own would be heard
// on this node only, or would need an order and a place that it does not have.
func (s *session) publish(_ context.Context, w *resp.Writer, _ [][]byte) {
	w.Error("ERR PUBLISH is not offered: channels carry the keyspace events of this server, not messages of clients; " +
		"use a message broker such as NATS for those")
}

// pubsubInfo is PUBSUB CHANNELS [pattern] | NUMSUB [channel…] | NUMPAT: what the connections
// of this node listen to. Sharded channels there are none.
func (s *session) pubsubInfo(_ context.Context, w *resp.Writer, args [][]byte) {
	sub, rest := strings.ToUpper(string(args[1])), args[2:]
	switch sub {
	case "CHANNELS", "SHARDCHANNELS":
		if len(rest) > 1 {
			w.Error(fmt.Sprintf("ERR unknown subcommand or wrong number of arguments for '%s'. Try PUBSUB HELP.", printable(args[1])))
			return
		}
		pattern := "*"
		if len(rest) == 1 {
			pattern = string(rest[0])
		}
		var list []string
		if sub == "CHANNELS" {
			list = s.n.pubsub.channels(pattern)
		}
		writeStrings(w, list)
	case "NUMSUB", "SHARDNUMSUB":
		w.Array(2 * len(rest))
		for _, channel := range rest {
			count := 0
			if sub == "NUMSUB" {
				count = s.n.pubsub.subscribers(string(channel))
			}
			w.Bulk(channel)
			w.Int(int64(count))
		}
	case "NUMPAT":
		if len(rest) > 0 {
			wrongArity(w, []byte("pubsub|numpat"))
			return
		}
		w.Int(int64(s.n.pubsub.patterns()))
	default:
		unknownSubcommand(w, args)
	}
}

// arraysOnly tells whether the connection is in the mode of RESP2 in which it gets
// messages, and replies would be taken for them.
func (s *session) arraysOnly(w *resp.Writer) bool { return s.subscriber.count() > 0 && !w.RESP3() }

// whileSubscribed tells whether a command is allowed in that mode.
func whileSubscribed(name []byte) bool {
	switch strings.ToUpper(string(name)) {
	case "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "PING", "QUIT", "RESET":
		return true
	}
	return false
}

// refuseSubscribed answers any other command.
func refuseSubscribed(w *resp.Writer, args [][]byte) {
	name := strings.ToLower(string(args[0]))
	if len(args) > 1 && (name == "client" || name == "config" || name == "command" || name == "pubsub") {
		name += "|" + strings.ToLower(printable(args[1]))
	}
	w.Error(fmt.Sprintf("ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "+
		"are allowed in this context", name))
}
