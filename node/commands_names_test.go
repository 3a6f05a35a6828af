package node

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cairn/coherency"
	"cairn/wire"
)

func TestNameCommands(t *testing.T) {
	c := newMemCluster()
	two := func(c *Config) {
		c.Namespaces = []Namespace{{Name: "default"}, {Name: "through", Policy: coherency.WriteThrough}}
	}
	n1, addr1 := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), two)
	_, addr2 := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), two)
	conn, other := dialRaw(t, addr1), dialRaw(t, addr2)
	on := func(c *rawConn, command string) []string {
		c.send(strings.Fields(command)...)
		return c.reply(t)
	}
	ask := func(command string) []string { return on(conn, command) }
	number := func(s string) uint64 {
		v, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 63)
		if err != nil {
			t.Fatalf("%q is no number", s)
		}
		return v
	}

	if got := ask("CAIRN.VERSION k"); got[0] != ":0" {
		t.Errorf("the version of a name that was never written: %q", got)
	}
	if got := ask("CAIRN.GET k"); got[0] != "*-1" {
		t.Errorf("such a name: %q", got)
	}
	// What the other commands take for a sealed block is no name.
	for _, command := range []string{"CAIRN.GET %", "CAIRN.GET % STRICT", "CAIRN.VERSION %", "CAIRN.CAS % 0 one", "CAIRN.WATCH % 0 10"} {
		if got := ask(strings.Replace(command, "%", "block:"+key(1).String(), 1)); !strings.HasPrefix(got[0], "-ERR block:") {
			t.Errorf("%s: %q", command, got)
		}
	}
	if got := ask("KEYS *"); got[0] != "*0" {
		t.Errorf("and none was made: %q", got)
	}
	first := number(ask("CAIRN.CAS k 0 one")[0])
	if got := ask("CAIRN.CAS k 0 two")[0]; got != "-"+wire.Conflict(wire.Version(first), "the name has another version than expected") {
		t.Errorf("of a name that is there: %q", got)
	}
	set := time.Now()
	second := number(ask("CAIRN.CAS k " + strconv.FormatUint(first, 10) + " two EX 100")[0])
	if second <= first {
		t.Errorf("version %d after %d", second, first)
	}
	for _, level := range []string{"", " STRICT", " SESSION", " SESSION 1", " BOUNDED 1000", " LOCAL"} {
		got := ask("CAIRN.GET k" + level)
		if len(got) != 4 || number(got[1]) != second || number(got[2]) > 60_000 || got[3] != "$two" {
			t.Errorf("GET%s: %q", level, got)
		}
	}
	if got := ask("CAIRN.VERSION k"); number(got[0]) != second {
		t.Errorf("version %q", got)
	}
	if ttl := number(ask("TTL k")[0]); ttl > 100 || float64(ttl) < 99-time.Since(set).Seconds() {
		t.Errorf("ttl %d", ttl)
	}
	// The other node asks the owner.
	if got := on(other, "CAIRN.GET k STRICT"); len(got) != 4 || got[3] != "$two" {
		t.Errorf("at the other node: %q", got)
	}
	if got := on(other, "GET k"); got[0] != "$two" {
		t.Errorf("at the other node: %q", got)
	}

	session := number(ask("CAIRN.SESSION")[0])
	if session == 0 {
		t.Error("the session has seen nothing")
	}
	if got := on(other, "CAIRN.SESSION "+strconv.FormatUint(session+0, 10)); number(got[0]) < session {
		t.Errorf("the session on another connection: %q", got)
	}

	if got := ask("CAIRN.BARRIER"); got[0] != ":1" || n1.Coherence().Dirty != 0 {
		t.Errorf("barrier: %q, %+v", got, n1.Coherence())
	}
	if got := ask("CAIRN.SET through v POLICY write-through"); got[0] != "+OK" {
		t.Errorf("set with a policy: %q", got)
	}

	for command, want := range map[string]string{
		"CAIRN.GET k NOW":            "-ERR syntax error",
		"CAIRN.GET k BOUNDED":        "-ERR syntax error",
		"CAIRN.GET k STRICT 5":       "-ERR syntax error",
		"CAIRN.CAS k x v":            "-ERR value is not an integer",
		"CAIRN.CAS k 0 v NX":         "-ERR syntax error",
		"CAIRN.CAS k 0":              "-ERR wrong number",
		"CAIRN.SESSION x":            "-ERR value is not an integer",
		"CAIRN.WATCH k x 1":          "-ERR value is not an integer",
		"CAIRN.CLEAR nowhere":        "-NONAMESPACE ",
		"FLUSHDB NOW":                "-ERR syntax error",
		"CAIRN.OWNED k 1 k":          "-ERR ",
		"CAIRN.STAGE n 1 2 3":        "-ERR wrong number",
		"CAIRN.STAGE n 12345678 x y": "-",
	} {
		if got := ask(command); !strings.HasPrefix(got[0], want) {
			t.Errorf("%s: %q, want %q", command, got[0], want)
		}
	}

	if got := ask("FLUSHDB ASYNC"); got[0] != "+OK" {
		t.Errorf("flushdb: %q", got)
	}
	for _, conn := range []*rawConn{conn, other} {
		if got := on(conn, "CAIRN.GET k STRICT"); got[0] != "*-1" {
			t.Errorf("after FLUSHDB: %q", got)
		}
	}
	if got := ask("DBSIZE"); got[0] != ":0" {
		t.Errorf("dbsize: %q", got)
	}
	if got := ask("CAIRN.CLEAR through"); got[0] != "+OK" {
		t.Errorf("clear: %q", got)
	}
}

func TestWatch(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, testTiers{host: 8 << 20}, nil)
	conn := dialRaw(t, c.nodes["n1"].addr)
	if conn.send("CAIRN.WATCH", "k", "0", "1"); conn.reply(t)[0] != "*-1" {
		t.Error("a watch without news did not end with null")
	}
	conn.send("CAIRN.WATCH", "k", "0", "60000")
	watches := func() bool { return nodes[1].coherence.watches.count.Load() == 1 }
	await(t, nodes[1], watches)
	change, err := setName(t.Context(), nodes[0], "k", "v", NameOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := uint64(change.After.Version)
	version := strconv.FormatUint(first, 10)
	if got := conn.reply(t); !slices.Equal(got, []string{"*2", ":" + version, ":1"}) {
		t.Errorf("news: %q, want version %s", got, version)
	}
	if conn.send("CAIRN.WATCH", "k", "0", "60000"); conn.reply(t)[1] != ":"+version {
		t.Error("old news were not told at once")
	}
	conn.send("CAIRN.WATCH", "k", version, "60000")
	await(t, nodes[1], watches)
	if _, err := nodes[0].Clear(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	got := conn.reply(t)
	if len(got) != 3 || got[2] != ":0" {
		t.Errorf("news of the end: %q", got)
	} else if end, err := strconv.ParseUint(got[1][1:], 10, 64); err != nil || end <= first {
		t.Errorf("news of the end: %q, after version %s", got, version)
	}
	if got := nodes[1].coherence.watches.count.Load(); got != 0 {
		t.Errorf("%d watches are left", got)
	}
}

// Reads that miss their bytes, batches of names that another node owns, and names of
// every kind in one MGET.
func TestBatchesOfNames(t *testing.T) {
	c := newMemCluster()
	nodes := joinAll(t, c, 2, testTiers{host: 8 << 20}, func(c *Config) { c.FlushAfter = time.Minute })
	mustSet(t, nodes[0], "owned", "by n0")
	if _, err := setName(t.Context(), nodes[0], "free", "for all", NameOptions{Policy: coherency.WriteThrough}); err != nil {
		t.Fatal(err)
	}
	mustSet(t, nodes[1], "mine", "by n1")
	getName(t, nodes[1], "owned") // so that n1 has applied it all
	if _, err := nodes[1].Put(t.Context(), key(1), key(0), []byte("sealed"), coherency.WriteBack); err != nil {
		t.Fatal(err)
	}
	conn := dialRaw(t, c.nodes["n1"].addr)
	conn.send("MGET", "owned", "none", "free", blockPrefix+key(1).String(), "mine", blockPrefix+key(2).String(), "owned")
	want := []string{"*7", "$by n0", "$-1", "$for all", "$sealed", "$by n1", "$-1", "$by n0"}
	if got := conn.reply(t); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	conn.send("EXISTS", "owned", "none", "free", "mine", blockPrefix+key(1).String())
	if got := conn.reply(t); got[0] != ":4" {
		t.Errorf("exists: %q", got)
	}
	conn.send("DEL", "owned", "none", "free", "mine")
	if got := conn.reply(t); got[0] != ":3" {
		t.Errorf("del: %q", got)
	}
	for _, n := range nodes {
		for _, name := range []string{"owned", "free", "mine"} {
			wantName(t, n, name, "(none)")
		}
	}
	if nodes[1].Coherence().Forwards == 0 {
		t.Error("the owner was never asked")
	}
}
