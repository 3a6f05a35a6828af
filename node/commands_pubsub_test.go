package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cairn/wire"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

// TestSubscribedRepliesEqualRedis compares, byte for byte, what a subscriber gets
// with what a redis-server sends.
func TestSubscribedRepliesEqualRedis(t *testing.T) {
	reference := startRedis(t)
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 16 << 20}.open(t), nil)
	config := dialRaw(t, reference)
	config.send("CONFIG", "SET", "notify-keyspace-events", "KEA")
	config.reply(t)
	for _, protocol := range []string{"2", "3"} {
		t.Run("RESP"+protocol, func(t *testing.T) {
			var got [2][]string
			for i, a := range []string{addr, reference} {
				got[i] = subscribedReplies(t, a, protocol)
			}
			if d := cmp.Diff(got[1], got[0]); d != "" {
				t.Errorf("differs from Redis (-redis +node):\n%s", d)
			}
			if len(got[0]) < 60 {
				t.Errorf("%d replies", len(got[0]))
			}
		})
	}
}

// subscribedReplies runs subscribedCommands and returns everything that arrives.
func subscribedReplies(t *testing.T, addr, protocol string) (all []string) {
	sub, other := dialRaw(t, addr), dialRaw(t, addr)
	hello := func() {
		sub.send("HELLO", protocol)
		sub.reply(t)
	}
	hello()
	for i, line := range slices.Collect(strings.Lines(subscribedCommands)) {
		args := strings.Fields(line)
		switch {
		case len(args) == 0:
			continue
		case args[0] == "HELLO":
			hello()
			continue
		case args[0] == "@": // by another connection, which is answered before we go on
			other.send(args[1:]...)
			other.reply(t)
		default:
			sub.send(args...)
		}
		// All that was to come has come before the answer to this.
		mark := fmt.Sprint("mark", i)
		sub.send("PING", mark)
		var replies []string
		for {
			frames := sub.reply(t)
			if frames[len(frames)-1] == "$"+mark {
				all = append(all, fmt.Sprint(strings.TrimSpace(line), " ends ", frames[0]))
				break
			}
			replies = append(replies, fmt.Sprint(strings.TrimSpace(line), ": ", frames))
		}
		all = append(all, replies...)
	}
	return all
}

// subscribedCommands are one a line; @ is said by another connection. Where all
// subscriptions end at once there is one, because Redis has no order for more.
const subscribedCommands = `
PUBSUB
PUBSUB CHANNELS
PUBSUB CHANNELS a b
PUBSUB NUMSUB
PUBSUB NUMSUB a b a
PUBSUB NUMPAT
PUBSUB NUMPAT x
PUBSUB nosuch
pubsub channels *
PUBSUB SHARDCHANNELS
PUBSUB SHARDCHANNELS a b
PUBSUB SHARDNUMSUB
PUBSUB SHARDNUMSUB a
UNSUBSCRIBE
PUNSUBSCRIBE
UNSUBSCRIBE none
PUNSUBSCRIBE none none
SUBSCRIBE
PSUBSCRIBE
SUBSCRIBE a
PING
PING hello
PING a b
SUBSCRIBE a b a
PSUBSCRIBE p* q* p*
UNSUBSCRIBE b none
PUNSUBSCRIBE p*
GET k
GET
SET k v
CLIENT NO-EVICT on
CONFIG GET save
PUBSUB NUMPAT
@ PUBSUB CHANNELS
NOSUCHCOMMAND
ECHO x
HELLO
unsubscribe
punsubscribe
ECHO x
PSUBSCRIBE __keyspace@0__:*
@ SET k v
@ SET k w EX 100
@ SET k w KEEPTTL
@ SET k w NX
@ EXPIRE k 200
@ PERSIST k
@ PERSIST k
@ SETEX k 100 v
@ DEL k none
@ DEL k
@ MSET k 1
@ UNLINK k none
@ GETSET k v
@ GETDEL k
@ SETNX k v
@ SETNX k v
@ EXPIRE k -1
PUNSUBSCRIBE
PSUBSCRIBE __keyevent@0__:[sd]* __keyevent@0__:expir?
@ SET k v
@ EXPIRE k 100
@ GET k
@ GETEX k PERSIST
@ DEL k
PUNSUBSCRIBE __keyevent@0__:[sd]* __keyevent@0__:expir?
SUBSCRIBE __keyspace@0__:k __keyevent@0__:set
@ SET k v
@ SET l v
@ DEL k l
UNSUBSCRIBE __keyspace@0__:k
@ SET k v
@ DEL k
SUBSCRIBE x
RESET
@ SET k v
@ DEL k
GET k
SUBSCRIBE x
`

// TestPubsubRepliesEqualRedis compares what a node says of two subscribers with what a
// redis-server does.
func TestPubsubRepliesEqualRedis(t *testing.T) {
	reference := startRedis(t)
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 16 << 20}.open(t), nil)
	for _, protocol := range []string{"2", "3"} {
		var got [2][][]string
		for i, a := range []string{addr, reference} {
			got[i] = pubsubReplies(t, a, protocol)
		}
		if d := cmp.Diff(got[1], got[0]); d != "" {
			t.Errorf("RESP%s differs from Redis (-redis +node):\n%s", protocol, d)
		}
	}
}

// pubsubReplies are the answers while there are subscribers, and when they have gone. Redis
// has no order for channels: where one asks for all that match, one does.
func pubsubReplies(t *testing.T, addr, protocol string) (all [][]string) {
	first, second, other := dialRaw(t, addr), dialRaw(t, addr), dialRaw(t, addr)
	say := func(c *rawConn, replies int, line string) {
		c.send(strings.Fields(line)...)
		for range replies {
			all = append(all, append([]string{line}, c.reply(t)...))
		}
	}
	ask := func() {
		for _, line := range []string{"PUBSUB CHANNELS x*", "PUBSUB CHANNELS none", "PUBSUB CHANNELS [y]?", "PUBSUB NUMSUB x1 y1 none x1", "PUBSUB NUMPAT"} {
			say(other, 1, line)
		}
	}
	say(other, 1, "HELLO "+protocol)
	all = nil // it tells the version
	ask()
	say(first, 3, "SUBSCRIBE x1 y1 z")
	say(second, 1, "SUBSCRIBE y1")
	say(first, 2, "PSUBSCRIBE p* q*")
	say(second, 2, "PSUBSCRIBE q* q*")
	ask()
	say(first, 1, "UNSUBSCRIBE x1")
	say(first, 1, "PUNSUBSCRIBE p*")
	ask()
	say(second, 1, "RESET")
	say(first, 1, "PUNSUBSCRIBE q*")
	ask()
	return all
}

func TestPublishIsRefused(t *testing.T) {
	_, addr := joinSpaces(t, "first")
	c := dialRaw(t, addr)
	c.send("PUBLISH", "a", "b")
	if got := c.reply(t)[0]; !strings.HasPrefix(got, "-ERR PUBLISH is not offered: ") {
		t.Error(got)
	}
	c.send("CONFIG", "GET", "notify-keyspace-events")
	c.expect(t, "[*2 $notify-keyspace-events $KEA]")
}

func TestSubscriptionLimits(t *testing.T) {
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 16 << 20}.open(t), func(c *Config) {
		c.MaxSubscriptions, c.MaxPattern, c.MaxName = 3, 10, 20
	})
	c := dialRaw(t, addr)
	for _, args := range [][]string{
		{"PSUBSCRIBE", "a", strings.Repeat("p", 11)},
		{"SUBSCRIBE", "a", strings.Repeat("p", 20+channelExtra+1)},
	} {
		c.send(args...)
		if got := c.reply(t)[0]; !strings.HasPrefix(got, "-"+wire.CodeTooLarge+" ") {
			t.Error(got)
		}
	}
	c.send("SUBSCRIBE", "a", "b")
	c.expect(t, "[*3 $subscribe $a :1]", "[*3 $subscribe $b :2]")
	c.send("PSUBSCRIBE", "a", "b")
	c.expect(t, "[-ERR 4 subscriptions, max-subscriptions is 3]")
	c.send("SUBSCRIBE", "a", "b", "c")
	c.expect(t, "[*3 $subscribe $a :2]", "[*3 $subscribe $b :2]", "[*3 $subscribe $c :3]")
}

// A subscriber that also writes gets its own events after the replies, in RESP3.
func TestOwnEvents(t *testing.T) {
	n, addr := joinSpaces(t, "first")
	c := dialRaw(t, addr)
	c.send("HELLO", "3")
	c.reply(t)
	c.send("SUBSCRIBE", "__keyspace@first__:k")
	c.reply(t)
	c.send("SET", "k", "v")
	c.send("GET", "k")
	c.send("CLIENT", "INFO")
	c.send("UNSUBSCRIBE")
	c.send("SET", "k", "v")
	c.expect(t, "[+OK]", "[>3 $message $__keyspace@first__:k $set]", "[$v]")
	if info := c.reply(t)[0]; !strings.Contains(info, " flags=P db=0 sub=1 psub=0 ") {
		t.Error(info)
	}
	c.expect(t, "[>3 $unsubscribe $__keyspace@first__:k :0]", "[+OK]")
	if count := n.pubsub.count.Load(); count != 0 {
		t.Errorf("%d subscriptions", count)
	}
}

// A client that many programs use hears of changes.
func TestGoRedisSubscribes(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		sub := c.PSubscribe(t.Context(), "__keyevent@*__:*")
		defer sub.Close()
		if _, err := sub.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Del(t.Context(), "k").Err(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"set", "del"} {
			m, err := sub.ReceiveMessage(t.Context())
			if err != nil || m.Channel != "__keyevent@default__:"+want || m.Payload != "k" {
				t.Errorf("%v, %v", m, err)
			}
		}
		if err := sub.Ping(t.Context(), "still there"); err != nil {
			t.Error(err)
		}
		if m, err := sub.Receive(t.Context()); err != nil || fmt.Sprint(m) != "Pong<still there>" {
			t.Errorf("%v, %v", m, err)
		}
	})
}
