package node

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/block"
	"cairn/coherency/protocol"
	"cairn/resp"
)

// redisVersion is the version of the protocol's origin that clients are told, so
// that they use the commands that exist here.
const redisVersion = "7.4.0"

func (s *session) ping(_ context.Context, w *resp.Writer, args [][]byte) {
	subscribed := s.arraysOnly(w)
	if subscribed && len(args) <= 2 {
		w.Array(2)
		w.BulkString("pong")
	}
	switch {
	case len(args) > 2:
		wrongArity(w, args[0])
	case len(args) == 2:
		w.Bulk(args[1])
	case subscribed:
		w.BulkString("")
	default:
		w.Status("PONG")
	}
}

func (s *session) echo(_ context.Context, w *resp.Writer, args [][]byte) { w.Bulk(args[1]) }

// hello is HELLO [protover [AUTH user password] [SETNAME name]].
func (s *session) hello(_ context.Context, w *resp.Writer, args [][]byte) {
	resp3 := w.RESP3()
	if len(args) > 1 {
		version, err := strconv.Atoi(string(args[1]))
		switch {
		case err != nil:
			w.Error("ERR Protocol version is not an integer or out of range")
			return
		case version != 2 && version != 3:
			w.Error("NOPROTO unsupported protocol version")
			return
		}
		resp3 = version == 3
	}
	name := s.name
	for i := 2; i < len(args); {
		switch word := strings.ToUpper(string(args[i])); {
		case word == "SETNAME" && i+1 < len(args):
			if name = string(args[i+1]); !clientName(name) {
				fail(w, errClientName)
				return
			}
			i += 2
		case word == "AUTH" && i+2 < len(args):
			fail(w, errNoPassword)
			return
		default:
			w.Error(fmt.Sprintf("ERR Syntax error in HELLO option '%s'", printable(args[i])))
			return
		}
	}
	s.name = name
	w.SetRESP3(resp3)
	version := int64(2)
	if resp3 {
		version = 3
	}
	w.Map(7)
	w.BulkString("server")
	w.BulkString("cairn")
	w.BulkString("version")
	w.BulkString(redisVersion)
	w.BulkString("proto")
	w.Int(version)
	w.BulkString("id")
	w.Int(int64(s.id))
	w.BulkString("mode")
	w.BulkString("standalone")
	w.BulkString("role")
	w.BulkString("master")
	w.BulkString("modules")
	w.Array(0)
}

var errNoPassword = resp.ServerError("ERR AUTH called without any password configured: " +
	"this server takes none; restrict who can reach its port instead")

func (s *session) auth(_ context.Context, w *resp.Writer, _ [][]byte) { fail(w, errNoPassword) }

func (s *session) selectDB(_ context.Context, w *resp.Writer, args [][]byte) {
	db, err := strconv.Atoi(string(args[1]))
	switch {
	case err != nil:
		fail(w, errNotInteger)
	case db != 0:
		w.Error("ERR DB index is out of range: there is one database, 0; see CAIRN.NAMESPACE for more spaces")
	default:
		w.Status("OK")
	}
}

// clientArity is the arity of a subcommand of CLIENT, counted as in command.
func clientArity(sub string) (arity int, ok bool) {
	switch sub {
	case "GETNAME", "ID", "INFO":
		return 2, true
	case "SETNAME", "NO-EVICT", "NO-TOUCH":
		return 3, true
	case "SETINFO":
		return 4, true
	case "LIST":
		return -2, true
	}
	return 0, false
}

func (s *session) client(_ context.Context, w *resp.Writer, args [][]byte) {
	sub := strings.ToUpper(string(args[1]))
	switch arity, ok := clientArity(sub); {
	case !ok:
		unknownSubcommand(w, args)
		return
	case arity >= 0 && len(args) != arity:
		wrongArity(w, []byte("client|"+sub))
		return
	}
	switch sub {
	case "SETNAME":
		if !clientName(string(args[2])) {
			fail(w, errClientName)
			return
		}
		s.name = string(args[2])
		w.Status("OK")
	case "GETNAME":
		if s.name == "" {
			w.Null()
			return
		}
		w.BulkString(s.name)
	case "ID":
		w.Int(int64(s.id))
	case "SETINFO":
		s.setInfo(w, args)
	case "NO-EVICT", "NO-TOUCH": // the connection has no memory, and reads no recency, of its own
		if word := strings.ToUpper(string(args[2])); word != "ON" && word != "OFF" {
			fail(w, errSyntax)
			return
		}
		w.Status("OK")
	case "INFO", "LIST": // of this connection: others are the business of their owners
		w.Verbatim("txt", s.describe(w.RESP3()))
	}
}

var errClientName = resp.ServerError("ERR Client names cannot contain spaces, newlines or special characters.")

// clientName tells whether a connection may be called so.
func clientName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' })
}

// setInfo is CLIENT SETINFO LIB-NAME | LIB-VER value.
func (s *session) setInfo(w *resp.Writer, args [][]byte) {
	value := string(args[3])
	if !clientName(value) {
		w.Error(fmt.Sprintf("ERR %s cannot contain spaces, newlines or special characters.", strings.ToLower(printable(args[2]))))
		return
	}
	switch strings.ToUpper(string(args[2])) {
	case "LIB-NAME":
		s.library = value
	case "LIB-VER":
		s.libraryVersion = value
	default:
		w.Error(fmt.Sprintf("ERR Unrecognized option '%s'", printable(args[2])))
		return
	}
	w.Status("OK")
}

// describe is the line of CLIENT INFO, with the fields of Redis, because clients
// take it apart.
func (s *session) describe(resp3 bool) string {
	version, flags := 2, "N"
	if resp3 {
		version = 3
	}
	if s.subscriber.count() > 0 {
		flags = "P"
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=-1 name=%s age=%d idle=0 flags=%s db=0 sub=%d psub=%d ssub=0 multi=-1 "+
		"qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 tot-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 events=r cmd=client|info "+
		"user=default redir=-1 resp=%d lib-name=%s lib-ver=%s\n",
		s.id, s.remote, s.local, s.name, int64(time.Since(s.since).Seconds()), flags,
		len(s.subscriber.to[byChannel]), len(s.subscriber.to[byPattern]), version, s.library, s.libraryVersion)
}

// command is COMMAND, COMMAND COUNT, COMMAND LIST, COMMAND DOCS and COMMAND INFO.
func (s *session) command(_ context.Context, w *resp.Writer, args [][]byte) {
	sub := ""
	if len(args) > 1 {
		sub = strings.ToUpper(string(args[1]))
	}
	switch sub {
	case "COUNT":
		w.Int(int64(len(s.n.commands)))
	case "DOCS":
		w.Map(0)
	case "LIST":
		w.Array(len(s.n.commands))
		for _, name := range s.n.commands.names() {
			w.BulkString(strings.ToLower(name))
		}
	case "", "INFO":
		names := s.n.commands.names()
		if sub == "INFO" && len(args) > 2 {
			names = nil
			for _, a := range args[2:] {
				names = append(names, strings.ToUpper(string(a)))
			}
		}
		w.Array(len(names))
		for _, name := range names {
			s.n.commands.describe(w, name)
		}
	default:
		unknownSubcommand(w, args)
	}
}

func (t commandTable) names() []string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// describe writes one entry of COMMAND: name, arity, flags, first key, last key,
// step. Clients use the positions only in cluster mode.
func (t commandTable) describe(w *resp.Writer, name string) {
	c, ok := t[name]
	if !ok {
		w.NullArray()
		return
	}
	w.Array(6)
	w.BulkString(strings.ToLower(name))
	w.Int(int64(c.arity))
	w.Array(0)
	w.Int(0)
	w.Int(0)
	w.Int(0)
}

// config is CONFIG GET pattern…: the few settings of Redis that tools ask for.
func (s *session) config(_ context.Context, w *resp.Writer, args [][]byte) {
	switch get := strings.EqualFold(string(args[1]), "GET"); {
	case get && len(args) < 3:
		wrongArity(w, []byte("config|get"))
		return
	case !get:
		w.Error("ERR only CONFIG GET is served: a node is configured by flags, environment or file")
		return
	}
	var found []string
	for _, setting := range [][2]string{
		{"appendonly", "no"}, {"databases", "1"}, {"maxmemory", strconv.FormatInt(s.n.host.Stats().Capacity, 10)},
		{"maxmemory-policy", "allkeys-lru"}, {"notify-keyspace-events", "KEA"}, {"save", ""},
	} {
		if slices.ContainsFunc(args[2:], func(p []byte) bool { return globMatch(strings.ToLower(string(p)), setting[0]) }) {
			found = append(found, setting[:]...)
		}
	}
	w.Map(len(found) / 2)
	for _, v := range found {
		w.BulkString(v)
	}
}

func (s *session) dbSize(_ context.Context, w *resp.Writer, _ [][]byte) {
	w.Int(s.size())
}

// size is the number of Redis keys that a scan would find, about: names whose end
// has come count until they are swept.
func (s *session) size() int64 {
	return int64(s.n.coherence.live(s.namespace.Name)) + s.n.dir.sealed.Load()
}

// info is INFO [section…].
func (s *session) info(_ context.Context, w *resp.Writer, args [][]byte) {
	st := s.n.Status()
	sections := []struct {
		name string
		text func() string
	}{
		{"server", func() string {
			return lines("redis_version", redisVersion, "redis_mode", "standalone", "server_name", "cairn", "os", runtime.GOOS,
				"arch_bits", strconv.Itoa(strconv.IntSize), "run_id", fmt.Sprintf("%016x", st.Incarnation),
				"uptime_in_seconds", fmt.Sprint(int64(st.UptimeSeconds)), "cairn_node", st.Node)
		}},
		{"clients", func() string { return lines("connected_clients", fmt.Sprint(st.Connections)) }},
		{"memory", func() string {
			return lines("used_memory", fmt.Sprint(tierOf(st, block.Host).Used), "maxmemory", fmt.Sprint(tierOf(st, block.Host).Capacity))
		}},
		{"persistence", func() string { return lines("loading", "0", "rdb_changes_since_last_save", fmt.Sprint(st.Dirty)) }},
		{"stats", func() string {
			return lines("total_commands_processed", fmt.Sprint(st.Commands), "keyspace_hits", fmt.Sprint(st.Hits),
				"keyspace_misses", fmt.Sprint(st.Misses), "evicted_keys", fmt.Sprint(st.Forgotten))
		}},
		{"replication", func() string { return lines("role", "master", "connected_slaves", "0") }},
		{"cluster", func() string { return lines("cluster_enabled", "0") }},
		{"cairn", func() string { return cairnInfo(st) }},
		{"keyspace", func() string {
			return lines("db0", fmt.Sprintf("keys=%d,expires=0,avg_ttl=0", s.size()))
		}},
	}
	var b strings.Builder
	for _, sec := range sections {
		if len(args) > 1 && !wants(args[1:], sec.name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + strings.ToUpper(sec.name[:1]) + sec.name[1:] + "\r\n" + sec.text())
	}
	w.Verbatim("txt", b.String())
}

func wants(args [][]byte, section string) bool {
	return slices.ContainsFunc(args, func(a []byte) bool {
		word := strings.ToLower(string(a))
		return word == section || word == "all" || word == "everything" || word == "default"
	})
}

func cairnInfo(st Status) string {
	var b strings.Builder
	for _, t := range st.Tiers {
		fmt.Fprintf(&b, "tier_%s:objects=%d,bytes=%d,capacity=%d,hits=%d,evictions=%d,kept=%d,kept_limit=%d\r\n",
			t.Tier, t.Objects, t.Bytes, t.Capacity, t.Hits, t.Evictions, t.Kept, t.KeptLimit)
	}
	q := st.Sequences
	for _, p := range q.Pinned {
		fmt.Fprintf(&b, "sequences_%s:pinned_blocks=%d,pinned_bytes=%d,pinned_limit=%d\r\n", p.Tier, p.Blocks, p.Bytes, p.Limit)
	}
	o := q.Onboarded
	fmt.Fprintf(&b, "sequences:open=%d,onboards=%d,onboard_seconds=%.3f,vram=%d,host=%d,disk=%d,peer=%d\r\n",
		q.Open, q.Onboards, q.Seconds, o["vram"], o["host"], o["disk"], o["peer"])
	p := st.Prefetch
	fmt.Fprintf(&b, "prefetch:asked=%d,ended=%d,dropped=%d,gave_way=%d,held=%d,vram=%d,host=%d,disk=%d,peer=%d,used=%d\r\n",
		p.Asked, p.Ended, p.Dropped, p.GaveWay, p.Held, p.Blocks["vram"], p.Blocks["host"], p.Blocks["disk"], p.Blocks["peer"], p.Used)
	return b.String() + lines("dirty_blocks", fmt.Sprint(st.Dirty), "peer_hits", fmt.Sprint(st.PeerHits))
}

func tierOf(st Status, t block.Tier) TierStatus {
	for _, ts := range st.Tiers {
		if ts.Tier == t {
			return ts
		}
	}
	return TierStatus{Tier: t}
}

// lines writes pairs of field and value as INFO does.
func lines(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(pairs[i] + ":" + pairs[i+1] + "\r\n")
	}
	return b.String()
}

// scan is SCAN cursor [MATCH pattern] [COUNT n] [TYPE t]. The cursor is the next
// shard: first the shards of the names, then those of the sealed blocks that this
// node holds. A shard is answered whole, so a key that is there throughout a scan
// is returned, as in Redis.
func (s *session) scan(_ context.Context, w *resp.Writer, args [][]byte) {
	cursor, err := strconv.ParseUint(string(args[1]), 10, 64)
	if err != nil || cursor >= 2*shards {
		w.Error("ERR invalid cursor")
		return
	}
	pattern, count, strs := "*", 10, true
	for i := 2; i < len(args); i += 2 {
		if i+1 == len(args) {
			fail(w, errSyntax)
			return
		}
		value := string(args[i+1])
		switch strings.ToUpper(string(args[i])) {
		case "MATCH":
			pattern = value
		case "COUNT":
			if count, err = strconv.Atoi(value); err != nil {
				fail(w, errNotInteger)
				return
			}
			if count < 1 {
				fail(w, errSyntax)
				return
			}
		case "TYPE":
			strs = strings.EqualFold(value, "string")
		default:
			fail(w, errSyntax)
			return
		}
	}
	var found []string
	visited := 0
	for ; cursor < 2*shards && visited < count; cursor++ {
		for _, key := range s.shardKeys(int(cursor)) {
			visited++
			if strs && globMatch(pattern, key) {
				found = append(found, key)
			}
		}
	}
	if cursor == 2*shards {
		cursor = 0
	}
	w.Array(2)
	w.BulkString(strconv.FormatUint(cursor, 10))
	writeStrings(w, found)
}

func (s *session) keys(_ context.Context, w *resp.Writer, args [][]byte) {
	var found []string
	for i := range 2 * shards {
		for _, key := range s.shardKeys(i) {
			if globMatch(string(args[1]), key) {
				found = append(found, key)
			}
		}
	}
	writeStrings(w, found)
}

func writeStrings(w *resp.Writer, list []string) {
	w.Array(len(list))
	for _, v := range list {
		w.BulkString(v)
	}
}

// shardKeys are the Redis keys of one step of a scan.
func (s *session) shardKeys(cursor int) []string {
	var keys []string
	if cursor < shards {
		c := s.n.coherence
		for _, p := range c.table.scan(cursor, nil) {
			if p.Namespace != s.namespace.Name {
				continue
			}
			// Looked up again: between the scan and a look at what is not flushed, a flush
			// could take the name out of sight.
			var now NameState
			c.glanceKey(p.Key, protocol.Space{}, ReadOptions{Level: ReadLocal}, &now)
			if alive(now.Value) {
				keys = append(keys, string(p.Name))
			}
		}
		return keys
	}
	s.n.dir.scan(cursor-shards, func(k block.Key, _ entry) bool {
		if !k.Named() {
			keys = append(keys, blockPrefix+k.String())
		}
		return true
	})
	return keys
}
