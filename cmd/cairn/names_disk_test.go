package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
)

// keptBlock is the size of the values and blocks of these tests.
const keptBlock = 60_000

// keptValue is the value of a name.
func keptValue(i int) []byte {
	p := make([]byte, keptBlock)
	replay.Fill(p, benchKey(9, i))
	return p
}

// inParallel calls f with 0…n-1 from several goroutines, until one call fails.
func inParallel(n int, f func(i int) error) (done int, err error) {
	var next, good atomic.Int64
	var once sync.Once
	var wg sync.WaitGroup
	stopped := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				select {
				case <-stopped:
					return
				default:
				}
				if e := f(i); e != nil {
					once.Do(func() { err = fmt.Errorf("%d: %w", i, e); close(stopped) })
					return
				}
				good.Add(1)
			}
		})
	}
	wg.Wait()
	return int(good.Load()), err
}

// TestNamesOnAFullDisk puts several times as many sealed blocks as two small disks can
// hold, whose segments have the size that fits them, while names live there. Every
// name is read strictly from both nodes, again after both were killed.
func TestNamesOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 2, flags: smallNode("--vram", "0", "--host", "4MiB", "--segment", "0", "--namespaces", "default:write-through")})
	ctx := t.Context()
	const names = 300 // 18 MB: more than both host tiers
	first := s.dial(s.nodes[0], client.Config{})
	if _, err := inParallel(names, func(i int) error { return first.PutName(ctx, fmt.Sprint("name", i), keptValue(i)) }); err != nil {
		t.Fatal(err)
	}
	readNames := func() {
		t.Helper()
		for _, n := range s.nodes {
			cn := s.dial(n, client.Config{})
			if _, err := inParallel(names, func(i int) error {
				v, err := cn.GetName(ctx, fmt.Sprint("name", i), nil, client.Strict())
				if err == nil && string(v.Value) != string(keptValue(i)) {
					err = fmt.Errorf("wrong value of %d bytes", len(v.Value))
				}
				return err
			}); err != nil {
				t.Errorf("name at %s: %v", n.id, err)
			}
		}
	}
	set := uint64(20)
	fill := func() {
		t.Helper()
		for _, n := range s.nodes {
			cn := s.dial(n, client.Config{})
			set++
			if _, err := inParallel(3200, func(i int) error { // three times the disk
				k, p := benchKey(set, i), make([]byte, keptBlock)
				replay.Fill(p, k)
				_, err := cn.Put(ctx, k, block.Key{}, p)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := cn.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			disk := tierStatus(s.status(n), block.Disk)
			if disk.Evictions == 0 || disk.Used > disk.Capacity || disk.Kept == 0 || disk.KeptLimit < disk.Capacity/2 {
				t.Errorf("%s: %+v", n.id, disk)
			}
			if st := s.status(n); st.Trouble != "" {
				t.Errorf("%s: %s", n.id, st.Trouble)
			}
		}
	}
	fill()
	readNames()
	for _, n := range s.nodes {
		n.kill()
	}
	for _, n := range s.nodes {
		n.start()
	}
	readNames()
	fill()
	readNames()
	s.stop()
}

// TestDiskFullOfNames writes names until a disk of 64 MiB has no room for more. The error
// says so, the status shows it, no name is lost, and deleting some makes room.
func TestDiskFullOfNames(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 1, flags: smallNode("--vram", "0", "--segment", "0", "--namespaces", "default:write-through")})
	n := s.nodes[0]
	ctx, cn := t.Context(), s.dial(n, client.Config{})
	name := func(i int) string { return fmt.Sprint("name", i) }
	count, err := 0, error(nil)
	for ; count < 2000 && err == nil; count++ {
		err = cn.PutName(ctx, name(count), keptValue(count))
	}
	count-- // the last was refused
	if !errors.Is(err, client.ErrNoSpace) || !strings.Contains(err.Error(), "delete some") {
		t.Fatalf("after %d names: %v", count, err)
	}
	if count < 500 {
		t.Errorf("%d names of %d bytes on a disk of 64 MiB", count, keptBlock)
	}
	st := s.status(n)
	if disk := tierStatus(st, block.Disk); disk.KeptLimit-disk.Kept > 2*keptBlock || !strings.Contains(st.Trouble, "space") {
		t.Errorf("status: %+v, trouble %q", disk, st.Trouble)
	}
	p := cairn(t, nil, "status", "--node", n.addr)
	if <-p.done; !strings.Contains(p.out.String(), "(names ") {
		t.Errorf("cairn status:\n%s", p.out.String())
	}
	n.kill()
	n.start()
	cn = s.dial(n, client.Config{})
	wantNames := func(from int) {
		t.Helper()
		if _, err := inParallel(count-from, func(i int) error {
			v, err := cn.GetName(ctx, name(from+i), nil, client.Strict())
			if err == nil && string(v.Value) != string(keptValue(from+i)) {
				err = fmt.Errorf("wrong value of %d bytes", len(v.Value))
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	wantNames(0)
	const fewer = 50
	for i := range fewer {
		if _, err := cn.DeleteName(ctx, name(i)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, patience, "names can be written again", func() error {
		_, err := inParallel(fewer/2, func(i int) error { return cn.PutName(context.WithoutCancel(ctx), name(10000+i), keptValue(i)) })
		return err
	})
	wantNames(fewer)
}
