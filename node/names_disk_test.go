package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/coherency"
	"cairn/diskstore"
	"cairn/tier"
	"cairn/wire"
)

// smallDisk has a disk that can hold about 18 MiB of names, and hardly any host memory.
func smallDisk(t *testing.T) testTiers {
	return testTiers{host: 4 << 20, disk: 32 << 20, dir: t.TempDir()}
}

// reopen ends a node as if its process had died, and starts it again on its disk.
func reopen(t *testing.T, c *memCluster, id string, old Tiers, tt testTiers, change func(*Config)) (*Node, Tiers) {
	t.Helper()
	c.crash(id)
	if err := errors.Join(old.Disk.Close(), old.Host.Close()); err != nil {
		t.Fatal(err)
	}
	tiers := tt.open(t)
	n, _ := c.join(t, id, tiers, change)
	return n, tiers
}

// keptOnDisk are the objects of names that a node's disk has, without its own notes.
func keptOnDisk(n *Node) (objects map[block.Key]bool) {
	objects = map[block.Key]bool{}
	n.stores[block.Disk].All(func(d block.Descriptor) bool {
		if d.Key.Named() && !isLabel(d) {
			objects[d.Key] = true
		}
		return true
	})
	return objects
}

func setThrough(t testing.TB, n *Node, name, value string) {
	t.Helper()
	if _, err := setName(t.Context(), n, name, value, NameOptions{Policy: coherency.WriteThrough}); err != nil {
		t.Fatalf("set %s at %s: %v", name, n.ID(), err)
	}
}

func diskStatus(n *Node) TierStatus { return tierOf(n.Status(), block.Disk) }

// Sealed blocks make room for each other, and never the bytes of a name, however many
// of them come; also after a restart.
func TestNamesOutliveSealedBlocks(t *testing.T) {
	c := newMemCluster()
	tts := []testTiers{smallDisk(t), smallDisk(t)}
	var nodes []*Node
	var tiers []Tiers
	for i, tt := range tts {
		tiers = append(tiers, tt.open(t))
		n, _ := c.join(t, fmt.Sprint("n", i), tiers[i], quick)
		nodes = append(nodes, n)
	}
	const names = 150 // of 64 KiB: more than both host tiers
	value := func(i int) string { return string(content(i, testBlock)) }
	for i := range names {
		setThrough(t, nodes[i%2], fmt.Sprint("k", i), value(i))
	}
	wantAll := func() {
		t.Helper()
		total := 0
		for _, n := range nodes {
			for i := range names {
				wantName(t, n, fmt.Sprint("k", i), value(i))
			}
			total += len(keptOnDisk(n))
		}
		if total != names {
			t.Errorf("the disks hold %d objects of %d names", total, names)
		}
	}
	next := 0
	fill := func() {
		t.Helper()
		for _, n := range nodes {
			before := diskStatus(n)
			for range 1500 { // three times the disk
				put(t, n, next, coherency.WriteBack)
				next++
			}
			if err := n.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			after := diskStatus(n)
			if after.Evictions == before.Evictions || after.Used > after.Capacity || after.Kept == 0 || after.Kept > after.KeptLimit {
				t.Errorf("%s: %+v", n.ID(), after)
			}
			if s := n.Status(); s.Trouble != "" {
				t.Errorf("%s: %s", n.ID(), s.Trouble)
			}
		}
	}
	fill()
	wantAll()
	for i := range nodes {
		nodes[i], tiers[i] = reopen(t, c, fmt.Sprint("n", i), tiers[i], tts[i], quick)
	}
	wantAll()
	fill()
	wantAll()
}

// A disk that is full of names refuses another one and says so; it goes on taking sealed
// blocks, and names again when some are deleted.
func TestDiskFullOfNames(t *testing.T) {
	c := newMemCluster()
	writer, _ := c.join(t, "writer", testTiers{host: 8 << 20}.open(t), patient) // no home: it has no disk
	home, addr := c.join(t, "home", smallDisk(t).open(t), patient)
	await(t, writer, func() bool { return writer.Coherence().Members == 2 })
	value := func(i int) string { return string(content(i, testBlock)) }
	names := 0
	var err error
	for ; names < 1000; names++ {
		if _, err = setName(t.Context(), writer, fmt.Sprint("k", names), value(names), NameOptions{Policy: coherency.WriteThrough}); err != nil {
			break
		}
	}
	if !errors.Is(err, tier.ErrNoSpace) || !strings.HasPrefix(wireError(err).Error(), wire.CodeNoSpace+" ") || !strings.Contains(err.Error(), "delete names") {
		t.Fatalf("after %d names: %v", names, err)
	}
	if names < 200 || names > 300 {
		t.Errorf("%d names of %d bytes on a disk of 32 MiB", names, testBlock)
	}
	// At the home itself, and as a client sees it.
	reply := goRedis(t, addr, 2).Do(t.Context(), "SET", "one more", value(0), "POLICY", "write-through").Err()
	if reply == nil || !strings.HasPrefix(reply.Error(), wire.CodeNoSpace+" ") || !strings.Contains(reply.Error(), "delete some") {
		t.Errorf("at the home: %v", reply)
	}
	mustSet(t, writer, "written back", value(1)) // its owner has it until there is room
	await(t, writer, func() bool { return writer.coherence.counters.stageFail.Load() > 1 })
	if s := writer.Coherence(); s.Dirty != 1 {
		t.Errorf("written back: %+v", s)
	}
	wantName(t, home, "written back", value(1))
	if s := home.Status(); s.Trouble == "" {
		t.Error("the home's status does not tell")
	}
	for i := range 1000 {
		put(t, home, i, coherency.WriteThrough)
	}
	if err := home.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range names {
		wantName(t, writer, fmt.Sprint("k", i), value(i))
	}
	if got := getName(t, writer, fmt.Sprint("k", names)); got != "(none)" {
		t.Errorf("a name that was refused has %d bytes", len(got))
	}
	if got := len(keptOnDisk(home)); got != names {
		t.Errorf("the disk holds %d objects of %d names", got, names)
	}
	for i := range 20 {
		if _, err := writer.DeleteName(t.Context(), space, fmt.Append(nil, "k", i), NameOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := writer.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, home, func() bool { return len(keptOnDisk(home)) == names-20+1 })
	wantName(t, home, "written back", value(1))
	for i := range 10 {
		setThrough(t, writer, fmt.Sprint("k", i), value(i))
		wantName(t, home, fmt.Sprint("k", i), value(i))
	}
}

// unsyncedDisk is a disk tier of which flushes fail while fail is true, and that has no
// room for lists of staged objects while full is.
type unsyncedDisk struct {
	*diskstore.Store
	fail, full *atomic.Bool
}

var errFlush = errors.New("flush failed")

func (d unsyncedDisk) Sync(ctx context.Context) error {
	if d.fail.Load() {
		return errFlush
	}
	return d.Store.Sync(ctx)
}

func (d unsyncedDisk) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	if d.full.Load() && isLabel(desc) {
		return nil, tier.ErrNoSpace
	}
	return d.Store.Put(ctx, desc, src)
}

// What is kept on the disk goes when no name has it any more: whether it was replaced,
// deleted, cleared, or could not be made durable, and whether the node was there.
func TestNothingIsKeptForNothing(t *testing.T) {
	c := newMemCluster()
	var fail, full atomic.Bool
	tt := smallDisk(t)
	open := func() Tiers {
		tiers := tt.open(t)
		tiers.Disk = unsyncedDisk{tiers.Disk.(*diskstore.Store), &fail, &full}
		return tiers
	}
	other, _ := c.join(t, "other", testTiers{host: 8 << 20}.open(t), quick)
	tiers := open()
	home, _ := c.join(t, "home", tiers, quick)
	await(t, other, func() bool { return other.Coherence().Members == 2 })
	through := NameOptions{Policy: coherency.WriteThrough}
	wantKept := func(names ...string) {
		t.Helper()
		want := map[block.Key]bool{}
		for _, name := range names {
			_, s := readAt(t, other, name, ReadOptions{Level: ReadStrict})
			p, _ := other.coherence.table.lookup(block.NamedKey(space, []byte(name), 0))
			if s.Version == 0 || p.Value.Object.IsZero() {
				t.Fatalf("%s: %+v", name, s)
			}
			want[p.Value.Object] = true
		}
		await(t, home, func() bool {
			got := keptOnDisk(home)
			for o := range want {
				if !got[o] {
					return false
				}
			}
			return len(got) == len(want)
		})
		await(t, home, func() bool { // nor lists of what was staged
			labels := 0
			home.stores[block.Disk].All(func(d block.Descriptor) bool {
				if isLabel(d) && d.Key != bornKey {
					labels++
				}
				return true
			})
			return labels == 0
		})
	}
	for i := range 50 {
		setThrough(t, other, "a", fmt.Sprint(i))
		setThrough(t, home, "b", fmt.Sprint(i))
		mustSet(t, other, "c", fmt.Sprint(i)) // written back
		setThrough(t, other, fmt.Sprint("gone", i), "v")
		if _, err := home.DeleteName(t.Context(), space, fmt.Append(nil, "gone", i), through); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKept("a", "b", "c")

	for _, broken := range []*atomic.Bool{&fail, &full} {
		for _, n := range []*Node{other, home} {
			for _, slots := range []bool{true, false} {
				var held []*Incoming
				in, err := n.Reserve(t.Context(), 10)
				if err != nil {
					t.Fatal(err)
				}
				for !slots && n != home { // else what is staged goes through the host tier
					r, err := home.tryReserve(t.Context(), 10)
					if err != nil {
						break
					}
					held = append(held, r)
				}
				broken.Store(true)
				if _, err := n.SetName(t.Context(), space, []byte("a"), in, through); err == nil {
					t.Error("a write is durable although the disk fails")
				}
				broken.Store(false)
				for _, r := range held {
					r.Abort()
				}
				wantKept("a", "b", "c")
			}
		}
	}

	for i := range 20 {
		setThrough(t, other, fmt.Sprint("d", i), "v")
	}
	c.crash("home")
	if err := errors.Join(tiers.Disk.Close(), tiers.Host.Close()); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := other.DeleteName(t.Context(), space, fmt.Append(nil, "d", i), through); err != nil {
			t.Fatal(err)
		}
	}
	c.bury(t, "home", other)
	setThrough(t, other, "a", "elsewhere") // the other one is the home now
	home, _ = c.join(t, "home", open(), quick)
	wantName(t, home, "a", "elsewhere")
	p, _ := other.coherence.table.lookup(block.NamedKey(space, []byte("a"), 0))
	if m, _ := other.coherence.member(p.Value.Homes[0]); m.ID != "other" {
		t.Fatalf("the home of a is %q", m.ID)
	}
	wantKept("b", "c")
	if _, err := other.Clear(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	wantKept()
	if k := diskStatus(home).Kept; k > 1000 {
		t.Errorf("%d bytes are kept for nothing", k)
	}
}

// refusing is a disk tier that calls back when it has had no room.
type refusing struct {
	*diskstore.Store
	after func()
}

func (d *refusing) Put(ctx context.Context, desc block.Descriptor, src []byte) ([]block.Key, error) {
	evicted, err := d.Store.Put(ctx, desc, src)
	if errors.Is(err, tier.ErrNoSpace) && d.after != nil {
		d.after()
	}
	return evicted, err
}

// What names have just left makes room for the next write at once, on a disk that is full
// of them, whoever takes it out.
func TestRetiredObjectsGiveWay(t *testing.T) {
	tiers := smallDisk(t).open(t)
	disk := &refusing{Store: tiers.Disk.(*diskstore.Store)}
	tiers.Disk = disk
	n, _ := newMemCluster().join(t, "n1", tiers, patient)
	through := NameOptions{Policy: coherency.WriteThrough}
	for i := 0; ; i++ {
		if _, err := setName(t.Context(), n, fmt.Sprint("k", i), string(content(i, testBlock)), through); err != nil {
			if !errors.Is(err, tier.ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
	}
	for i := range 2 {
		if _, err := n.DeleteName(t.Context(), n.cfg.Namespaces[0].Name, []byte(fmt.Sprint("k", i)), through); err != nil {
			t.Fatal(err)
		}
	}
	meanwhile := 0
	for i := range 100 { // far more than was deleted, in less time than it is retired for
		if disk.after = nil; i%2 == 1 {
			disk.after = func() { n.coherence.dropper.hurry(); meanwhile++ } // for another write, or because it is time
		}
		if _, err := setName(t.Context(), n, "hot", string(content(i, testBlock)), through); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	if meanwhile == 0 {
		t.Error("no write found the disk full: the test shows nothing")
	}
}
