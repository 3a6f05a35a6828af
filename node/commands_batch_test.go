package node

import (
	"fmt"
	"strings"
	"testing"

	"cairn/coherency"
	"cairn/resp"
)

// MGET of names that this node has, names that it must ask for, sealed blocks and nothing,
// in windows of a few: each answer is in its place, and nothing stays lent.
func TestMGetOfAllKinds(t *testing.T) {
	for _, level := range []ReadLevel{ReadSession, ReadStrict} {
		t.Run(level.String(), func(t *testing.T) {
			c := newMemCluster()
			configure := func(c *Config) {
				c.MaxBatch, c.MaxBatchBytes = 8, 3000
				c.Namespaces = []Namespace{{Name: "default", Consistency: level}}
			}
			n1, addr1 := c.join(t, "n1", testTiers{host: 8 << 20}.open(t), configure)
			_, addr2 := c.join(t, "n2", testTiers{host: 8 << 20}.open(t), configure)
			here, there := dialNode(t, addr1), dialNode(t, addr2)
			command, want := []string{"MGET"}, ""
			for i := range 40 {
				name, value := fmt.Sprint("name", i), fmt.Sprintf("%01000d", i)
				switch i % 4 {
				case 0:
					ask(t, here, "SET", name, value, "POLICY", "write-through")
				case 1:
					ask(t, there, "SET", name, value) // which owns it then
				case 2:
					put(t, n1, i, coherency.WriteBack)
					name, value = blockPrefix+key(i).String(), string(content(i, testBlock))
				default:
					value = ""
				}
				command = append(command, name)
				want += value + " "
			}
			if _, err := n1.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			pinned := n1.host.Stats().Pinned
			for range 3 { // the first time, nobody knows where objects lie
				if got := ask(t, here, command...); got != strings.TrimSpace(want) {
					t.Errorf("%d bytes, want %d; or other ones", len(got), len(want))
				}
			}
			until(t, "nothing is lent any more", func() bool { return n1.host.Stats().Pinned <= pinned })
		})
	}
}

// A connection has seen what MGET has shown it, as with GET.
func TestMGetCountsForTheSession(t *testing.T) {
	n, addr := newMemCluster().join(t, "n1", testTiers{host: 8 << 20}.open(t), func(c *Config) {
		c.Namespaces = []Namespace{{Name: "default"}, {Name: "exact", Consistency: ReadStrict}}
	})
	for _, space := range n.cfg.Namespaces {
		writer, reader := dialNode(t, addr), dialNode(t, addr)
		for _, conn := range []*resp.Conn{writer, reader} {
			ask(t, conn, "CAIRN.NAMESPACE", space.Name)
		}
		ask(t, writer, "SET", "k", "v", "POLICY", "write-through")
		if before := ask(t, reader, "CAIRN.SESSION"); before != "0" {
			t.Fatalf("a new connection has seen %s", before)
		}
		if got := ask(t, reader, "MGET", "k"); got != "v" {
			t.Fatalf("read %q", got)
		}
		if wrote, saw := ask(t, writer, "CAIRN.SESSION"), ask(t, reader, "CAIRN.SESSION"); saw == "0" {
			t.Errorf("%s: the reader has seen %s of the log, the writer %s", space.Name, saw, wrote)
		}
	}
}
