package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cairn/block"
	"cairn/coherency"
	"cairn/hostcache"
	"cairn/wire"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

func goRedis(t *testing.T, addr string, protocol int) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{
		Addr: addr, Protocol: protocol, ClientName: "test", MaxRetries: -1,
		DialTimeout: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// eachProtocol runs f with a client that many programs use, in both protocols.
func eachProtocol(t *testing.T, f func(t *testing.T, c *redis.Client)) {
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 32 << 20}.open(t), nil)
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", protocol), func(t *testing.T) {
			c := goRedis(t, addr, protocol)
			f(t, c)
			keys, err := c.Keys(t.Context(), "*").Result()
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) > 0 {
				if n, err := c.Del(t.Context(), keys...).Result(); err != nil || n != int64(len(keys)) {
					t.Errorf("deleted %d of %d keys: %v", n, len(keys), err)
				}
			}
			if n, err := c.DBSize(t.Context()).Result(); n != 0 || err != nil {
				t.Errorf("%d keys are left, %v", n, err)
			}
		})
	}
}

func TestValuesOfEverySize(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		// Around the thresholds of buffering, copying and size classes.
		for _, size := range []int{0, 1, 2047, 2048, 16<<10 - 1, 16 << 10, 64 << 10, 64<<10 + 1, 1 << 20, 1<<20 + 1, 5 << 20} {
			value := content(size, size)
			key := fmt.Sprintf("size\x00\r\n\xff%d", size)
			if err := c.Set(t.Context(), key, value, 0).Err(); err != nil {
				if size > 1<<20 && strings.HasPrefix(err.Error(), wire.CodeTooLarge+" ") {
					continue // this node's largest slot is 1 MiB
				}
				t.Fatalf("%d bytes: %v", size, err)
			}
			if got, err := c.Get(t.Context(), key).Bytes(); err != nil || !bytes.Equal(got, value) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
			if n, err := c.StrLen(t.Context(), key).Result(); n != int64(size) || err != nil {
				t.Errorf("length of %d bytes: %d, %v", size, n, err)
			}
			if size > 10 {
				if got, err := c.GetRange(t.Context(), key, -10, -1).Result(); got != string(value[size-10:]) || err != nil {
					t.Errorf("the last 10 of %d bytes: %q, %v", size, got, err)
				}
			}
		}
		if err := c.Set(t.Context(), "", "the empty key", 0).Err(); err != nil {
			t.Error(err)
		}
		if got, err := c.Get(t.Context(), "").Result(); got != "the empty key" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestValueOfSeveralMebibytes(t *testing.T) {
	host, err := hostcache.Open(hostcache.Config{Capacity: 64 << 20, Classes: []int{testBlock, 16 << 20}, SlabSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	_, addr := newMemCluster().join(t, "n1", Tiers{Host: host}, nil)
	c := goRedis(t, addr, 3)
	value := content(1, 12<<20)
	if err := c.MSet(t.Context(), "big", value, "small", "s").Err(); err != nil {
		t.Fatal(err)
	}
	got, err := c.MGet(t.Context(), "big", "none", "small").Result()
	if err != nil || got[0] != string(value) || got[1] != nil || got[2] != "s" {
		t.Errorf("%v", err)
	}
	if err := c.Set(t.Context(), "big", content(2, 17<<20), 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "TOOLARGE ") {
		t.Errorf("beyond the largest slot: %v", err)
	}
	if got, err := c.Get(t.Context(), "big").Bytes(); err != nil || !bytes.Equal(got, value) {
		t.Errorf("after the refusal: %d bytes, %v", len(got), err)
	}
}

func TestScanFindsEveryName(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		const names = 3000
		want := map[string]bool{}
		pipe := c.Pipeline()
		for i := range names {
			key := fmt.Sprintf("%s:%d", []string{"user", "model"}[i%2], i)
			want[key] = true
			pipe.Set(t.Context(), key, "v", 0)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.DBSize(t.Context()).Result(); n != names || err != nil {
			t.Errorf("size %d, %v", n, err)
		}
		for _, scan := range []struct {
			match string
			count int64
			want  int
		}{{"", 0, names}, {"*", 1, names}, {"*", 1000, names}, {"*", 1 << 40, names}, {"user:*", 100, names / 2}, {"*:17", 10, 1}, {"none*", 10, 0}} {
			seen := map[string]int{}
			for it := c.Scan(t.Context(), 0, scan.match, scan.count).Iterator(); it.Next(t.Context()); {
				seen[it.Val()]++
				if !want[it.Val()] {
					t.Fatalf("a key that nobody set: %q", it.Val())
				}
			}
			if len(seen) != scan.want {
				t.Errorf("MATCH %q COUNT %d: %d keys, want %d", scan.match, scan.count, len(seen), scan.want)
			}
			for key, n := range seen {
				if n != 1 {
					t.Errorf("MATCH %q COUNT %d: %q came %d times", scan.match, scan.count, key, n)
					break
				}
			}
		}
		keys, err := c.Keys(t.Context(), "*").Result()
		if err != nil || !slices.Equal(slices.Sorted(slices.Values(keys)), slices.Sorted(maps.Keys(want))) {
			t.Errorf("KEYS: %d of %d, %v", len(keys), names, err)
		}
		if err := c.Scan(t.Context(), 99999, "*", 10).Err(); err == nil || err.Error() != "ERR invalid cursor" {
			t.Errorf("a cursor out of nowhere: %v", err)
		}
	})
}

// Keys that are there from the start to the end of a scan are found although
// others come and go.
func TestScanAmidChanges(t *testing.T) {
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 32 << 20}.open(t), nil)
	c := goRedis(t, addr, 2)
	want := map[string]bool{}
	for i := range 500 {
		key := fmt.Sprint("stay", i)
		want[key] = true
		if err := c.Set(t.Context(), key, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var cursor uint64
	for page := 0; ; page++ {
		keys, next, err := c.Scan(t.Context(), cursor, "stay*", 20).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			delete(want, k)
		}
		if cursor = next; cursor == 0 {
			break
		}
		c.Set(t.Context(), fmt.Sprint("passing", page), "v", 0)
		c.Del(t.Context(), fmt.Sprint("passing", page-1))
	}
	if len(want) > 0 {
		t.Errorf("%d keys were not found", len(want))
	}
}

func TestPipelineAnswersInOrder(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		pipe := c.Pipeline()
		set := pipe.Set(t.Context(), "a", content(1, 40<<10), 0)
		get := pipe.Get(t.Context(), "a")
		missing := pipe.Get(t.Context(), "none")
		wrong := pipe.Do(t.Context(), "GETRANGE", "a", "x", "y")
		mget := pipe.MGet(t.Context(), "none", "a")
		exists := pipe.Exists(t.Context(), "a", "none", "a")
		del := pipe.Del(t.Context(), "a")
		ttl := pipe.TTL(t.Context(), "a")
		pipe.Exec(t.Context())
		if set.Err() != nil || get.Val() != string(content(1, 40<<10)) || !errors.Is(missing.Err(), redis.Nil) {
			t.Error(set.Err(), get.Err(), missing.Err())
		}
		if wrong.Err() == nil || mget.Val()[0] != nil || mget.Val()[1] != get.Val() {
			t.Error(wrong.Err(), mget.Err())
		}
		if exists.Val() != 2 || del.Val() != 1 || ttl.Val() != -2 {
			t.Error(exists, del, ttl)
		}
	})
}

func TestExpiringValues(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		if err := c.Set(t.Context(), "k", "v", 20*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for {
			err := c.Get(t.Context(), "k").Err()
			if errors.Is(err, redis.Nil) {
				break
			}
			if err != nil || time.Since(start) > time.Minute {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		if n, err := c.Exists(t.Context(), "k").Result(); n != 0 || err != nil {
			t.Errorf("exists: %d, %v", n, err)
		}
		if ttl, err := c.PTTL(t.Context(), "k").Result(); ttl != -2 || err != nil {
			t.Errorf("ttl: %v, %v", ttl, err)
		}
		if ok, err := c.SetNX(t.Context(), "k", "w", time.Minute).Result(); !ok || err != nil {
			t.Errorf("set if absent: %v, %v", ok, err)
		}
		if ok, err := c.Persist(t.Context(), "k").Result(); !ok || err != nil {
			t.Errorf("persist: %v, %v", ok, err)
		}
	})
}

func TestWhatClientsAskOfTheConnection(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		conn := c.Conn()
		defer conn.Close()
		if name, err := conn.ClientGetName(t.Context()).Result(); name != "test" || err != nil {
			t.Errorf("name %q, %v", name, err)
		}
		id, err := conn.ClientID(t.Context()).Result()
		if id <= 0 || err != nil {
			t.Errorf("id %d, %v", id, err)
		}
		info, err := c.ClientInfo(t.Context()).Result()
		if err != nil || info.Name != "test" || info.LibName == "" || info.Addr == "" {
			t.Errorf("info %+v, %v", info, err)
		}
		for section, field := range map[string]string{
			"server": "redis_version:", "clients": "connected_clients:", "memory": "used_memory:", "stats": "total_commands_processed:",
			"replication": "role:master", "keyspace": "db0:keys=", "cairn": "tier_host:", "everything": "uptime_in_seconds:",
		} {
			text, err := c.Info(t.Context(), section).Result()
			if err != nil || !strings.Contains(text, field) {
				t.Errorf("INFO %s: no %s in %q, %v", section, field, text, err)
			}
		}
		if text, err := c.Info(t.Context(), "bogus").Result(); text != "" || err != nil {
			t.Errorf("INFO bogus: %q, %v", text, err)
		}
		commands, err := c.Command(t.Context()).Result()
		if err != nil || commands["get"] == nil || commands["get"].Arity != 2 || commands["cairn.mget"] == nil {
			t.Errorf("COMMAND: %d commands, %v", len(commands), err)
		}
		if n, err := c.Do(t.Context(), "COMMAND", "COUNT").Int(); n != len(commands) || err != nil {
			t.Errorf("COMMAND COUNT: %d, %v", n, err)
		}
		for pattern, want := range map[string]map[string]string{
			"save": {"save": ""}, "APPEND*": {"appendonly": "no"}, "bogus": {}, "maxmemory": {"maxmemory": fmt.Sprint(32 << 20)},
		} {
			if settings, err := c.ConfigGet(t.Context(), pattern).Result(); !maps.Equal(settings, want) || err != nil {
				t.Errorf("CONFIG GET %s: %v, %v", pattern, settings, err)
			}
		}
		for _, refused := range [][]any{{"AUTH", "x"}, {"SELECT", 1}, {"CONFIG", "SET", "a", "b"}, {"HELLO", 4}, {"FLUSHALL"}, {"EVAL", "x", 0}} {
			if err := c.Do(t.Context(), refused...).Err(); err == nil || strings.Contains(err.Error(), "ERR ERR") {
				t.Errorf("%v: %v", refused, err)
			}
		}
		if err := conn.Select(t.Context(), 0).Err(); err != nil {
			t.Error(err)
		}
	})
}

func TestResetAndQuit(t *testing.T) {
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 4 << 20}.open(t), func(c *Config) {
		c.Namespaces = []Namespace{{Name: "default"}, {Name: "other"}}
	})
	c := dialRaw(t, addr)
	for _, step := range []struct{ send, want string }{
		{"HELLO 3 SETNAME me", "%7"},
		{"CAIRN.NAMESPACE other", "+OK"},
		{"SET k other", "+OK"},
		{"GET none", "_"},
		{"DBSIZE", ":1"},
		{"RESET", "+RESET"},
		{"GET none", "$-1"},
		{"GET k", "$-1"},
		{"DBSIZE", ":0"},
		{"CLIENT GETNAME", "$-1"},
		{"CAIRN.CLEAR bogus", "-NONAMESPACE unknown namespace \"bogus\": this node serves default, other"},
		{"CAIRN.NAMESPACE bogus", "-NONAMESPACE unknown namespace \"bogus\": this node serves default, other"},
		{"SET k lost", "-NONAMESPACE unknown namespace: the connection's last CAIRN.NAMESPACE was refused"},
		{"PING", "+PONG"},
		{"CAIRN.NAMESPACE default", "+OK"},
		{"GET k", "$-1"},
		{"CAIRN.NAMESPACE bogus", "-NONAMESPACE unknown namespace \"bogus\": this node serves default, other"},
		{"RESET", "+RESET"},
		{"GET k", "$-1"},
		{"QUIT", "+OK"},
	} {
		c.send(strings.Fields(step.send)...)
		if got := c.reply(t); got[0] != step.want {
			t.Errorf("%s: %q, want %q", step.send, got[0], step.want)
		}
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the connection is open after QUIT")
	}
}

func TestSealedBlocksAsRedisKeys(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c *redis.Client) {
		name := blockPrefix + key(1).String()
		value := content(1, 100<<10)
		if err := c.Set(t.Context(), name, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), name, value, 0).Err(); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if err := c.Set(t.Context(), name, content(2, 100<<10), 0).Err(); err == nil || !strings.HasPrefix(err.Error(), wire.CodeConflict+" ") {
			t.Errorf("other bytes: %v", err)
		}
		for _, refused := range [][]any{{"SET", name, value, "EX", 10}, {"SET", name, value, "NX"}, {"GETSET", name, value}, {"SETNX", name, value}} {
			if err := c.Do(t.Context(), refused...).Err(); err == nil || !strings.Contains(err.Error(), "takes no options") {
				t.Errorf("%v: %v", refused[0], err)
			}
		}
		if got, err := c.Get(t.Context(), name).Bytes(); err != nil || !bytes.Equal(got, value) {
			t.Errorf("get: %d bytes, %v", len(got), err)
		}
		if n := c.StrLen(t.Context(), name).Val(); n != int64(len(value)) {
			t.Errorf("length %d", n)
		}
		if ok := c.Expire(t.Context(), name, time.Minute).Val(); ok {
			t.Error("a sealed block took an end")
		}
		if ttl := c.TTL(t.Context(), name).Val(); ttl != -1 {
			t.Errorf("ttl %v", ttl)
		}
		if keys := c.Keys(t.Context(), "block:*").Val(); !slices.Equal(keys, []string{name}) {
			t.Errorf("keys %v", keys)
		}
		// What only looks like a block's key is a name.
		if err := c.Set(t.Context(), "block:xyz", "v", 0).Err(); err != nil {
			t.Error(err)
		}
		if got := c.GetDel(t.Context(), name).Val(); got != string(value) {
			t.Errorf("getdel: %d bytes", len(got))
		}
		if n := c.Exists(t.Context(), name, "block:xyz").Val(); n != 1 {
			t.Errorf("exists: %d", n)
		}
	})
}

func TestCairnCommands(t *testing.T) {
	c := newMemCluster()
	n1, addr := c.join(t, "n1", testTiers{host: 8 << 20, disk: 16 << 20}.open(t), func(c *Config) { c.MaxBatch = 4 })
	n2, _ := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), nil)
	put(t, n2, 7, coherency.WriteBack)
	conn := dialRaw(t, addr)
	ask := func(args ...string) []string {
		t.Helper()
		conn.send(args...)
		return conn.reply(t)
	}
	raw := func(i int) string { k := key(i); return string(k[:]) }
	payload := string(content(1, testBlock))

	got := ask("CAIRN.PUT", raw(1), "-", "write-through", payload)
	token, err := wire.ParseToken(got[2][1:])
	if !slices.Equal(got[:2], []string{"*2", ":1"}) || err != nil || token.Node != "n1" || token.Position == 0 {
		t.Errorf("put: %q, %v", got, err)
	}
	if got := ask("CAIRN.PUT", key(1).String(), raw(7), "-", payload); got[1] != ":0" {
		t.Errorf("put again, its key in hexadecimal: %q", got)
	}
	if got := ask("CAIRN.MATCH", "AFTER", token.String(), "KEYS", raw(1), raw(7), raw(9)); !slices.Equal(got, []string{"*2", ":2", ":1"}) {
		t.Errorf("match: %q", got)
	}
	header := wire.NewBatchHeader(3)
	header.Found(block.Describe(key(1), block.Key{}, []byte(payload)))
	header.Absent()
	header.Found(block.Describe(key(7), block.Key{}, content(7, testBlock)))
	want := []string{"*3", "$" + string(header), "$" + payload, "$" + string(content(7, testBlock))}
	if d := cmp.Diff(want, ask("CAIRN.MGET", "any", raw(1), raw(9), raw(7))); d != "" {
		t.Errorf("mget (-want +got):\n%.300s", d)
	}
	if got := ask("CAIRN.MGET", "LOCAL", raw(7)); got[0] != "*1" {
		t.Errorf("mget of a peer's block, local: %.100q", got)
	}
	if got := ask("CAIRN.FLUSH"); got[0] != "+OK" {
		t.Errorf("flush: %q", got)
	}
	for _, what := range []string{key(1).String(), blockPrefix + key(1).String()} {
		var status BlockStatus
		if got := ask("CAIRN.EXPLAIN", what); json.Unmarshal([]byte(got[0][1:]), &status) != nil || !status.Durable || status.Length != testBlock {
			t.Errorf("explain %s: %q", what, got)
		}
	}
	ask("SET", "name", "v")
	if got := ask("CAIRN.EXPLAIN", "name"); !strings.Contains(got[0], `"name":"name"`) {
		t.Errorf("explain a name: %q", got)
	}
	var status Status
	if got := ask("CAIRN.STAT"); json.Unmarshal([]byte(got[0][1:]), &status) != nil || status.Node != "n1" || status.Names != 1 {
		t.Errorf("stat: %q", got)
	}
	if got := ask("CAIRN.ROUTE", `{"keys":[]}`); got[0] != `${"asked":{"keys":[]}}` {
		t.Errorf("route: %q", got)
	}
	if got := ask("CAIRN.DROP", raw(1), raw(9)); got[0] != ":1" || n1.Holds(key(1)) {
		t.Errorf("drop: %q", got)
	}

	for _, command := range []string{"CAIRN.DONE r1 DECODING", "CAIRN.DONE r1", "CAIRN.DONE r2 decoding"} {
		if got := ask(strings.Fields(command)...); got[0] != "+OK" {
			t.Errorf("%s: %q", command, got)
		}
	}
	if want := []string{"prefilled r1", "done r1", "prefilled r2"}; !slices.Equal(c.told, want) {
		t.Errorf("the router was told %q, want %q", c.told, want)
	}

	for command, want := range map[string]string{
		"CAIRN.DONE r1 NOW":                            "ERR CAIRN.DONE: want the id",
		"CAIRN.DONE r1 DECODING 2":                     "ERR CAIRN.DONE: want the id",
		"CAIRN.DONE":                                   "ERR wrong number of arguments",
		"CAIRN.MGET x y":                               "ERR CAIRN.MGET: want LOCAL or ANY before the keys",
		"CAIRN.MGET ANY a b c d e":                     "ERR CAIRN.MGET: 5 keys, max-batch is 4",
		"CAIRN.MGET ANY a":                             "ERR ",
		"CAIRN.MGET ANY":                               "ERR wrong number of arguments for 'cairn.mget' command",
		"CAIRN.PUT a - - p":                            "ERR ",
		"CAIRN.PUT 0123456789abcdef x - p":             "ERR ",
		"CAIRN.PUT 0123456789abcdef - p p":             "ERR ",
		"CAIRN.PUT " + block.Key{}.String() + " - - p": "ERR not the key of a block in a sequence",
		"CAIRN.PUT " + block.NamedKey("a", []byte("b"), 1).String() + " - - p": "ERR not the key of a block in a sequence",
		"CAIRN.MATCH AFTER x KEYS k": "ERR not a token",
		"CAIRN.MATCH x y":            "ERR CAIRN.MATCH: want [AFTER token]… KEYS key…",
		"CAIRN.MATCH KEYS k":         "ERR ",
		"CAIRN.DROP k":               "ERR ",
		"CAIRN.STAGED k 1":           "ERR ",
		"CAIRN.EXPLAIN nobody":       "NOTFOUND no block is named \"nobody\" in namespace default",
		"CAIRN.ROUTE {":              "ERR ",
		"SET k v POLICY bogus":       "ERR ",
		"SET k v POLICY":             "ERR syntax error",
	} {
		if got := ask(strings.Fields(command)...); !strings.HasPrefix(got[0], "-"+want) || strings.Contains(got[0], "ERR ERR") {
			t.Errorf("%s: %q, want %q", command, got[0], want)
		}
	}
	if got := ask("SET", "k", "v", "POLICY", "write-all"); got[0] != "+OK" {
		t.Errorf("set with a policy: %q", got)
	}
}

func TestWriteErrorsHaveTheirCodes(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 1 << 20, disk: 32 << 20, noSpace: &full}.open(t), func(c *Config) {
		c.PutWait = time.Millisecond
		c.MaxName = 16
	})
	c := goRedis(t, addr, 2)
	if err := c.Do(t.Context(), "SET", "k", "v", "POLICY", "write-through").Err(); err == nil || !strings.HasPrefix(err.Error(), wire.CodeNoSpace+" ") {
		t.Errorf("a full disk: %v", err)
	}
	if err := c.Get(t.Context(), "k").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("a name whose bytes were refused: %v", err)
	}
	if err := c.Set(t.Context(), strings.Repeat("n", 17), "v", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), wire.CodeTooLarge+" ") {
		t.Errorf("a long name: %v", err)
	}
	var held []*Incoming
	for {
		in, err := n.Reserve(t.Context(), testBlock)
		if err != nil {
			break
		}
		held = append(held, in)
	}
	if err := c.Set(t.Context(), "k", content(1, testBlock), 0).Err(); err == nil || !strings.HasPrefix(err.Error(), wire.CodeFull+" ") {
		t.Errorf("a full host tier: %v", err)
	}
	for _, in := range held {
		in.Abort()
	}
	full.Store(false)
	if err := c.Set(t.Context(), "k", content(1, testBlock), 0).Err(); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Of a key that comes twice in one MSET the last value stays.
func TestMSetInParallel(t *testing.T) {
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 16 << 20}.open(t), nil)
	c := goRedis(t, addr, 3)
	var pairs []any
	for i := range 500 {
		pairs = append(pairs, fmt.Sprint("k", i%250), fmt.Sprint("v", i))
	}
	if err := c.MSet(t.Context(), pairs...).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		wantName(t, n, fmt.Sprint("k", i), fmt.Sprint("v", i+250))
	}
	await(t, n, func() bool { return namedObjects(n) == 250 }) // those that were overwritten go
	var keys []string
	for i := range 300 {
		keys = append(keys, fmt.Sprint("k", i))
	}
	if got, err := c.Del(t.Context(), append(keys, keys...)...).Result(); got != 250 || err != nil {
		t.Errorf("deleted %d, %v", got, err)
	}
}
