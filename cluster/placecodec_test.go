package cluster_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"cairn/block"
	"cairn/cluster"
	"cairn/router"

	"github.com/google/go-cmp/cmp"
)

// key is the block number n of a test's own space of keys.
func key(space byte, n int) block.Key {
	k, err := block.NewKey(n, [block.HashSize]byte{space, byte(n >> 16), byte(n >> 8), byte(n)})
	if err != nil {
		panic(err)
	}
	return k
}

func TestPlacementRoundTrip(t *testing.T) {
	for name, e := range map[string]router.Event{
		"heartbeat": {Node: "n1", Incarnation: 7, First: 12},
		"one":       {Node: "n1", Incarnation: 7, First: 1, Changes: []router.Change{{Key: key(1, 1), Tier: block.Disk}}},
		"order kept": {Node: "n1", Incarnation: 1 << 50, First: 9, Changes: []router.Change{
			{Key: key(1, 1), Tier: block.Host, Stored: true}, {Key: key(1, 2), Tier: block.Host, Stored: true},
			{Key: key(1, 1), Tier: block.Host}, {Key: key(1, 1), Tier: block.Disk, Stored: true},
			{Key: key(1, 1), Tier: block.Host, Stored: true},
		}},
	} {
		data := cluster.AppendPlacement(nil, e)
		got, err := cluster.DecodePlacement(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("%s: %s came back differently (-want +got):\n%s", name, data, diff)
		}
	}
}

func TestPlacementForPeople(t *testing.T) {
	e := router.Event{Node: "n1", Incarnation: 5, First: 12, Changes: []router.Change{
		{Key: key(1, 2), Tier: block.Host, Stored: true}, {Key: key(1, 3), Tier: block.Host, Stored: true}, {Key: key(1, 4), Tier: block.Disk}}}
	const want = `{"node":"n1","incarnation":5,"first":12,"runs":[` +
		`{"tier":"host","stored":["00000201000002000000000000000000","00000301000003000000000000000000"]},` +
		`{"tier":"disk","removed":["00000401000004000000000000000000"]}]}`
	if got := string(cluster.AppendPlacement(nil, e)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecodePlacementRejects(t *testing.T) {
	const k = `"00000201000002000000000000000000"`
	for _, bad := range []string{
		``, `[]`, `{}`, `{"node":"n1","incarnation":1,"first":1}x`,
		`{"node":"n 1","incarnation":1,"first":1}`,
		`{"node":"n1","incarnation":0,"first":1}`,
		`{"node":"n1","incarnation":1,"first":0}`,
		`{"node":"n1","incarnation":1,"first":-1}`,
		`{"node":"n1","incarnation":1,"first":9007199254740992}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"stored":[` + k + `]}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"tape","stored":[` + k + `]}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"host","stored":[]}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"host","stored":[` + k + `],"removed":[` + k + `]}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"host","stored":["00"]}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"host","stored":[7]}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"host","stored":` + k + `}]}`,
		`{"node":"n1","incarnation":1,"first":1,"runs":[{"tier":"host","stored":["` + strings.Repeat("0", 32) + `"]}]}`,
		strings.Repeat(" ", cluster.MaxPlacementBytes+1),
	} {
		if _, err := cluster.DecodePlacement([]byte(bad)); !errors.Is(err, cluster.ErrPlacement) {
			t.Errorf("%.120s: %v, want ErrPlacement", bad, err)
		}
	}
	spaced := `{ "node":"n1", "new":[1], "incarnation":1, "first":1, "runs":[ {"tier":"Host", "stored":[ ` + k + " ,\n" + k + ` ]} ] }`
	if e, err := cluster.DecodePlacement([]byte(spaced)); err != nil || len(e.Changes) != 2 {
		t.Errorf("unknown members and white space: %v, %v", e, err)
	}
}

// snap is a snapshot as a test sees it.
type snap struct {
	Header  cluster.SnapshotHeader
	Entries []router.Entry
}

func snapshot(blocks int) *snap {
	s := &snap{Header: cluster.SnapshotHeader{Node: "n1", Incarnation: 5, Covered: 12, After: 3}}
	for i := range blocks {
		s.Entries = append(s.Entries, router.Entry{Key: key(9, i), Tiers: block.TierMask(1 + i%7)})
	}
	return s
}

func (s *snap) encode(t testing.TB) []byte {
	t.Helper()
	b := cluster.NewSnapshotBuilder(0)
	for _, e := range s.Entries {
		b.Add(e.Key, e.Tiers)
	}
	data, err := b.Encode(s.Header)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// decodeSnapshot decodes data in pieces of that size.
func decodeSnapshot(data []byte, piece int) (*snap, error) {
	s := &snap{}
	d := cluster.SnapshotDecoder{
		Header: func(h cluster.SnapshotHeader) error {
			s.Header = cluster.SnapshotHeader{Node: h.Node, Incarnation: h.Incarnation, Covered: h.Covered, After: h.After}
			return nil
		},
		Entries: func(entries []router.Entry) error { s.Entries = append(s.Entries, entries...); return nil },
	}
	for p := range slices.Chunk(data, piece) {
		if _, err := d.Write(p); err != nil {
			return nil, err
		}
	}
	return s, d.Close()
}

func TestSnapshotRoundTrip(t *testing.T) {
	for _, blocks := range []int{0, 1, 1000, 5000} {
		s := snapshot(blocks)
		data := s.encode(t)
		for _, piece := range []int{1, 7, 1000, 1 << 20} {
			got, err := decodeSnapshot(data, piece)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s, got); diff != "" {
				t.Errorf("%d blocks in pieces of %d came back differently (-want +got):\n%s", blocks, piece, diff)
			}
		}
	}
}

// What the receiver of a snapshot says of it ends the decoding.
func TestSnapshotDecoderStops(t *testing.T) {
	stop := errors.New("stop")
	data := snapshot(3000).encode(t)
	none := func([]router.Entry) error { t.Error("blocks of a snapshot that is not wanted"); return nil }
	for name, d := range map[string]*cluster.SnapshotDecoder{
		"header":  {Header: func(cluster.SnapshotHeader) error { return stop }, Entries: none},
		"entries": {Header: func(cluster.SnapshotHeader) error { return nil }, Entries: func([]router.Entry) error { return stop }},
	} {
		_, first := d.Write(data)
		_, second := d.Write(data)
		if !errors.Is(first, stop) || !errors.Is(second, stop) || !errors.Is(d.Close(), stop) {
			t.Errorf("%s: %v, %v", name, first, second)
		}
	}
}

func TestDecodeSnapshotRejects(t *testing.T) {
	good := snapshot(3).encode(t)
	for i := range good {
		// Spaces and the case of hexadecimal digits do not change what the header says.
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if got, err := decodeSnapshot(bad, 100); err != nil && !errors.Is(err, cluster.ErrPlacement) {
			t.Errorf("byte %d flipped: %v, want ErrPlacement", i, err)
		} else if err == nil && !cmp.Equal(got.Entries, snapshot(3).Entries) {
			t.Errorf("byte %d flipped: other blocks, and no error", i)
		}
	}
	for _, bad := range [][]byte{nil, good[:10], good[:len(good)-1], append(bytes.Clone(good), 0), bytes.Repeat([]byte{' '}, 1<<14)} {
		if _, err := decodeSnapshot(bad, 100); !errors.Is(err, cluster.ErrPlacement) {
			t.Errorf("%d bytes: %v, want ErrPlacement", len(bad), err)
		}
	}
}

func FuzzDecodePlacement(f *testing.F) {
	f.Add(cluster.AppendPlacement(nil, router.Event{Node: "n1", Incarnation: 7, First: 12}))
	f.Add(cluster.AppendPlacement(nil, router.Event{Node: "n1", Incarnation: 7, First: 1, Changes: []router.Change{
		{Key: key(1, 1), Tier: block.Host, Stored: true}, {Key: key(1, 1), Tier: block.VRAM}}}))
	f.Add([]byte(`{"node":"a","incarnation":1,"first":1,"runs":[{"tier":"host","stored":[ "00000201000002000000000000000000" , ]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := cluster.DecodePlacement(data)
		if err != nil {
			if !errors.Is(err, cluster.ErrPlacement) {
				t.Fatalf("error %v does not wrap ErrPlacement", err)
			}
			return
		}
		again, err := cluster.DecodePlacement(cluster.AppendPlacement(nil, e))
		if err != nil || !cmp.Equal(e, again) {
			t.Fatalf("%v came back as %v, %v", e, again, err)
		}
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	for _, blocks := range []int{0, 2} {
		f.Add(snapshot(blocks).encode(f), 10)
	}
	f.Add([]byte("{}\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		s, err := decodeSnapshot(data, max(piece, 1))
		if err != nil {
			if !errors.Is(err, cluster.ErrPlacement) {
				t.Fatalf("error %v does not wrap ErrPlacement", err)
			}
			return
		}
		if len(s.Header.Node) > 64 {
			return // what writes a snapshot has checked the id
		}
		again, err := decodeSnapshot(s.encode(t), 1<<20)
		if err != nil || !cmp.Equal(s, again) {
			t.Fatalf("%v came back as %v, %v", s, again, err)
		}
	})
}

func BenchmarkPlacementCodec(b *testing.B) {
	e := router.Event{Node: "n1", Incarnation: 7, First: 1}
	for i := range cluster.DefaultBatchChanges {
		e.Changes = append(e.Changes, router.Change{Key: key(1, i), Tier: block.Host, Stored: true})
	}
	data := cluster.AppendPlacement(nil, e)
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		buf := make([]byte, 0, len(data))
		for b.Loop() {
			cluster.AppendPlacement(buf, e)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cluster.DecodePlacement(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
