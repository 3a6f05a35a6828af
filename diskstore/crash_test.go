package diskstore

import (
	"bufio"
	"context"
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

func crashConfig() Config { return Config{Capacity: 4 << 20, SegmentSize: 256 << 10} }

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
// deleted, "e 7" that it was evicted, "s 3" that what was promised in the lines
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
	for round := range rounds {
		after := time.Duration(1+rand.IntN(120)) * time.Millisecond
		lines := runAndKill(t, dir, first, after)
		first = verifyPromises(t, dir, first, lines)
		if t.Failed() {
			t.Fatalf("round %d, killed after %v", round, after)
		}
	}
	t.Logf("%d kills, %d objects", rounds, first)
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
// the number of the next object.
func verifyPromises(t *testing.T, dir string, first int, lines []string) (next int) {
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
		case "p":
			newest = max(newest, n)
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
		i := int(uint32(d.Key[11])<<24 | uint32(d.Key[12])<<16 | uint32(d.Key[13])<<8 | uint32(d.Key[14]))
		newest = max(newest, i)
		check(t, s, i, crashLength(i))
		return true
	})
	if st := s.Stats(); st.Corrupt > s.Recovered().Corrupt || st.Used > st.Capacity {
		t.Errorf("stats: %+v, recovery %+v", st, s.Recovered())
	}
	return newest + 20
}
