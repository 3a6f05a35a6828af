package diskstore

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"cairn/block"
)

// childEnv holds the directory and the first object number for the process that
// is going to be killed.
const childEnv = "CAIRN_DISKSTORE_CHILD"

func crashConfig() Config {
	return Config{Capacity: 4 << 20, SegmentSize: 256 << 10, Keep: func(k block.Key) bool { return crashKept(numberOf(k)) }}
}

// crashKept says which objects are kept; each life of the child deletes those older
// than crashKeeps numbers.
func crashKept(i int) bool { return i%5 == 1 }

const crashKeeps = 700

// numberOf is the inverse of keyOf.
func numberOf(k block.Key) int { return int(binary.BigEndian.Uint32(k[11:])) }

func crashLength(i int) int { return (i * 7919) % 20000 }

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		dir, first, _ := strings.Cut(spec, "|")
		n, err := strconv.Atoi(first)
		if err == nil {
			err = crashChild(dir, n)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crashChild writes objects from four goroutines until it is killed. Each line
// that it prints is a promise: "p 7" that object 7 was put, "d 7" that it was
// deleted, "x 7" that it is going to be, "e 7" that it was evicted, "s 3" that what was promised in the lines
// before the third "b" line is durable.
func crashChild(dir string, first int) error {
	s, err := Open(dir, crashConfig())
	if err != nil {
		return err
	}
	keys := map[block.Key]int{}
	var mu gosync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format, args...)
	}
	for batch := 0; ; batch++ {
		var old []int
		s.All(func(d block.Descriptor) bool {
			if i := numberOf(d.Key); crashKept(i) && i < first+batch*20-crashKeeps {
				old = append(old, i)
			}
			return true
		})
		for _, i := range old {
			say("x %d\n", i)
			s.Delete(keyOf(i))
		}
		var wg gosync.WaitGroup
		errs := make(chan error, 4)
		for w := range 4 {
			wg.Go(func() {
				for j := range 5 {
					i := first + batch*20 + w*5 + j
					p := content(i, 0, crashLength(i))
					mu.Lock()
					keys[keyOf(i)] = i
					mu.Unlock()
					evicted, err := s.Put(context.Background(), block.Describe(keyOf(i), keyOf(i-1), p), p)
					for _, k := range evicted {
						mu.Lock()
						n, ok := keys[k]
						mu.Unlock()
						if ok {
							say("e %d\n", n)
						}
					}
					if err != nil {
						errs <- err
						return
					}
					say("p %d\n", i)
					if i%7 == 0 && s.Delete(keyOf(i)) {
						say("d %d\n", i)
					}
				}
			})
		}
		wg.Wait()
		select {
		case err := <-errs:
			return err
		default:
		}
		say("b %d\n", batch)
		if err := s.Sync(context.Background()); err != nil {
			return err
		}
		say("s %d\n", batch)
	}
}

// TestKill kills a writing process at random moments, again and again on one
// directory, and wants everything that it promised.
func TestKill(t *testing.T) {
	rounds := 6
	if long() {
		rounds = 300
	}
	dir := t.TempDir()
	first := 0
	kept := map[int]bool{}
	for round := range rounds {
		after := time.Duration(1+rand.IntN(120)) * time.Millisecond
		lines := runAndKill(t, dir, first, after)
		first = verifyPromises(t, dir, first, lines, kept)
		if t.Failed() {
			t.Fatalf("round %d, killed after %v", round, after)
		}
	}
	if len(kept) == 0 {
		t.Error("nothing was kept")
	}
	t.Logf("%d kills, %d objects, %d kept", rounds, first, len(kept))
}

// runAndKill starts the child, and kills it some time after its first promise.
func runAndKill(t *testing.T, dir string, first int, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d", childEnv, dir, first))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break // a last line without an end is no promise
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("the child ended by itself: %v\n%s", err, stderr.String())
	}
	return lines
}

// verifyPromises compares the directory with what the child said, and returns
// the number of the next object. kept are the objects that must be there, of all
// lives.
func verifyPromises(t *testing.T, dir string, first int, lines []string, kept map[int]bool) (next int) {
	t.Helper()
	type state struct{ put, deleted, evicted, settled bool }
	objects := map[int]*state{}
	newest := first
	for _, line := range lines {
		what, number, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		switch what {
		case "x":
			delete(kept, n)
		case "p":
			newest = max(newest, n)
			if crashKept(n) && n%7 != 0 {
				kept[n] = true
			}
			fallthrough
		case "d", "e":
			o := objects[n]
			if o == nil {
				o = &state{}
				objects[n] = o
			}
			o.put = o.put || what == "p"
			o.deleted = o.deleted || what == "d"
			o.evicted = o.evicted || what == "e"
			if what == "e" && crashKept(n) {
				t.Errorf("object %d, which is kept, was evicted", n)
			}
		case "s":
			// All lines before the "b" line of this batch, and so all objects of it.
			for i, o := range objects {
				o.settled = o.settled || i < first+(n+1)*20
			}
		}
	}
	s := open(t, dir, crashConfig())
	defer s.Close()
	// The last promises of eviction may not have been heard: a segment or two.
	recent := newest - int(crashConfig().Capacity-4*crashConfig().SegmentSize)/10000
	for i := range kept {
		check(t, s, i, crashLength(i))
	}
	for i, o := range objects {
		_, there := s.Stat(keyOf(i))
		switch {
		case o.put && !o.deleted && !o.evicted && i > recent && !there:
			if i%7 != 0 { // its deletion may not have been heard
				t.Errorf("object %d was put, settled %v, and is gone", i, o.settled)
			}
		case o.deleted && o.settled && there:
			t.Errorf("object %d was deleted for good and is back", i)
		}
	}
	s.All(func(d block.Descriptor) bool {
		i := numberOf(d.Key)
		newest = max(newest, i)
		check(t, s, i, crashLength(i))
		return true
	})
	if st := s.Stats(); st.Corrupt > s.Recovered().Corrupt || st.Used > st.Capacity {
		t.Errorf("stats: %+v, recovery %+v", st, s.Recovered())
	}
	return newest + 20
}
