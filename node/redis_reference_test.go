package node

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRepliesEqualRedis sends the same commands to a node and to a redis-server,
// and compares the replies byte for byte, errors included.
func TestRepliesEqualRedis(t *testing.T) {
	reference := startRedis(t)
	_, addr := newMemCluster().join(t, "n1", testTiers{host: 16 << 20}.open(t), nil)
	for _, protocol := range []string{"2", "3"} {
		t.Run("RESP"+protocol, func(t *testing.T) {
			ours, theirs := dialRaw(t, addr), dialRaw(t, reference)
			began := time.Now()
			for _, c := range []*rawConn{ours, theirs} {
				c.send("FLUSHALL") // the node has none: its answer is not compared
				c.reply(t)
				c.send("HELLO", protocol)
				c.reply(t)
			}
			for line := range strings.Lines(comparedCommands) {
				args := strings.Fields(line)
				if len(args) == 0 || args[0] == "#" {
					continue
				}
				for i, a := range args {
					// p is the prefix of the sub-test's keys; the node keeps those of the other.
					args[i] = expandArg(strings.ReplaceAll(a, "@", "p"+protocol+":"))
				}
				ours.send(args...)
				theirs.send(args...)
				got, want := ours.reply(t), theirs.reply(t)
				if unordered(args[0]) {
					slices.Sort(got)
					slices.Sort(want)
				}
				if args[0] == "TTL" && nearly(got, want, time.Since(began)) {
					continue
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s: reply differs from Redis's (-redis +node):\n%s", strings.TrimSpace(line), d)
				}
			}
		})
	}
}

// comparedCommands are one command a line. @ stands for a prefix of keys, "" for
// an empty argument, and \xNN for a byte.
const comparedCommands = `
PING
PING hello
PING a b
ECHO hello
ECHO
# strings
GET @none
SET @a 1
GET @a
GET
GET @a b
SET @a
SET @a 2 NX
SET @b 2 NX
SET @c 2 XX
SET @a 3 XX
GET @a
SET @a 4 GET
SET @none2 4 GET
SET @a 5 XX GET
SET @new 5 XX GET
SET @new 5 NX GET
SET @new 6 NX GET
SET @a 1 NX XX
SET @a 1 XX NX
SET @a 1 NX NX
SET @a 1 EX
SET @a 1 EX 0
SET @a 1 EX -1
SET @a 1 EX x
SET @a 1 PX 1.5
SET @a 1 EX 10 PX 10
SET @a 1 EX 10 KEEPTTL
SET @a 1 KEEPTTL EX 10
SET @a 1 EX 9223372036854775807
SET @a 1 PX 9223372036854775807
SET @a 1 BOGUS
SET @a 1 EXAT 1
GET @a
SET @a 1 EX 100
TTL @a
SET @a 2 KEEPTTL
TTL @a
SET @a 2
TTL @a
PTTL @a
TTL @missing
PTTL @missing
EXPIRE @a 100
TTL @a
PERSIST @a
PERSIST @a
PERSIST @missing
TTL @a
EXPIRE @a x
EXPIRE @a
EXPIRE @missing 10
EXPIRE @a 9223372036854775807
PEXPIRE @a 9223372036854775807
EXPIRE @a 100 NX
EXPIRE @a 200 NX
EXPIRE @a 200 XX
EXPIRE @a 100 GT
EXPIRE @a 300 GT
EXPIRE @a 400 LT
EXPIRE @a 100 LT
EXPIRE @a 100 BOGUS
EXPIRE @a 100 NX XX
EXPIRE @a 100 GT LT
TTL @a
PEXPIRE @a 100000
TTL @a
EXPIREAT @a 99999999999
TTL @missing
EXPIRETIME @a
PEXPIRETIME @a
EXPIRETIME @missing
PERSIST @a
EXPIRETIME @a
PEXPIREAT @a 99999999999000
PEXPIRETIME @a
EXPIRE @a 0
GET @a
SET @a 1
EXPIRE @a -5
EXISTS @a
SETNX @a x
SETNX @a y
GET @a
SETEX @a 10 v
SETEX @a 0 v
SETEX @a x v
PSETEX @a 0 v
PSETEX @a 100000 v
TTL @a
GETSET @a w
TTL @a
GETSET @fresh w
GETDEL @fresh
GETDEL @fresh
GETEX @a
GETEX @a EX 100
TTL @a
GETEX @a PERSIST
TTL @a
GETEX @a BOGUS
GETEX @a EX 0
GETEX @missing
GETEX @missing EX 10
# ranges
SET @s Hello,World
STRLEN @s
STRLEN @missing
GETRANGE @s 0 4
GETRANGE @s -5 -1
GETRANGE @s 0 -1
GETRANGE @s 5 2
GETRANGE @s -1 -5
GETRANGE @s -100 -50
GETRANGE @s 0 -100
GETRANGE @s 3 100
GETRANGE @s 11 20
GETRANGE @s x 1
GETRANGE @s 0 99999999999999999999
GETRANGE @missing 0 -1
SUBSTR @s 0 4
SET @e ""
GET @e
STRLEN @e
GETRANGE @e 0 -1
EXISTS @e
# bytes of all kinds
SET @\x00\x01\xff\r\n \x00\xfe\r\n
GET @\x00\x01\xff\r\n
DEL @\x00\x01\xff\r\n
# many keys
MSET @m1 1 @m2 2 @m3 3
MSET @m1
MSET @m1 1 @m2
MSET @m4 1 @m4 2
GET @m4
MGET @m1 @nope @m2 @m3 @m1
MGET
MGET @m1 @m9
EXISTS @m1 @m1 @nope @m2
EXISTS
TOUCH @m1 @nope
UNLINK @m1 @nope
DEL @m2 @m2 @m3
DEL
EXISTS @m1 @m2 @m3
TYPE @s
TYPE @nope
TYPE
# the connection
SELECT 0
SELECT x
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME a\x20b
CLIENT SETNAME ""
CLIENT GETNAME
CLIENT NO-EVICT on
CLIENT NO-EVICT maybe
CLIENT BOGUS
CLIENT
CLIENT ID x
COMMAND BOGUS
CONFIG GET
CONFIG
CONFIG GET maxmemory-nothing
HELLO 9
HELLO x
HELLO 3 BOGUS
NOSUCHCOMMAND
NOSUCHCOMMAND a b c
SCAN x
SCAN 0 COUNT 0
SCAN 0 COUNT x
SCAN 0 COUNT
SCAN 0 MATCH
SCAN 0 BOGUS 1
SCAN
KEYS
KEYS @m*
KEYS @[a-c]
KEYS @?
KEYS @[^a]
DBSIZE x
QUIT
`

func unordered(command string) bool { return command == "KEYS" || command == "MGET" }

func expandArg(a string) string {
	if a == `""` {
		return ""
	}
	s, err := strconv.Unquote(`"` + a + `"`)
	if err != nil {
		panic(fmt.Sprintf("argument %s: %v", a, err))
	}
	return s
}

// nearly tells whether two answers to TTL may be those of equal servers, of which one was
// slower than the other. It says no of a time in which a TTL stays as it is.
func nearly(got, want []string, since time.Duration) bool {
	var a, b int
	_, errA := fmt.Sscanf(got[0], ":%d", &a)
	_, errB := fmt.Sscanf(want[0], ":%d", &b)
	apart := max(a-b, b-a)
	return errA == nil && errB == nil && a > 0 && b > 0 && since >= time.Second/2 && apart <= 1+int(since.Seconds())
}

// startRedis runs a redis-server without persistence and returns its address: a socket in
// the file system, because a port may be taken before the server has it.
func startRedis(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server to compare with: ", err)
	}
	dir := t.TempDir()
	addr := filepath.Join(dir, "redis")
	cmd := exec.Command(path, "--port", "0", "--unixsocket", addr, "--save", "", "--appendonly", "no")
	cmd.Dir = dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "eady to accept connections") {
			go io.Copy(io.Discard, out)
			return addr
		}
	}
	t.Fatal("redis-server ended before it was ready")
	return ""
}

// rawConn is a connection whose replies are looked at as they are on the wire.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

func dialRaw(t *testing.T, addr string) *rawConn {
	t.Helper()
	network := "tcp"
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &rawConn{c, bufio.NewReader(c)}
}

func (c *rawConn) send(args ...string) {
	fmt.Fprintf(c, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(c, "$%d\r\n%s\r\n", len(a), a)
	}
}

// reply reads one reply: an item a frame.
func (c *rawConn) reply(t *testing.T) []string {
	t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '$', '=':
		if n < 0 {
			return []string{line}
		}
		p := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, p); err != nil {
			t.Fatal(err)
		}
		return []string{line[:1] + string(p[:n])}
	case '*', '~', '>', '%':
		if line[0] == '%' {
			n *= 2
		}
		frames := []string{line}
		for range n {
			frames = append(frames, c.reply(t)...)
		}
		return frames
	}
	return []string{line}
}
