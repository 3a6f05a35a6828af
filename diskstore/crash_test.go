package diskstore

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
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

const (
	crashWriters = 4
	crashEach    = 5 // objects that each writer puts in one batch
	crashBatch   = crashWriters * crashEach
	// crashKeeps is after how many younger numbers a kept object is deleted.
	crashKeeps = 1000
	// Objects from crashRegister on are kept, and written again and again.
	crashRegister  = 1 << 24
	crashRegisters = 24
)

func crashConfig() Config {
	return Config{Capacity: 4 << 20, SegmentSize: 256 << 10, Keep: func(k block.Key) bool { return crashKept(numberOf(k)) }}
}

// crashKept says which objects are kept.
func crashKept(i int) bool { return i >= crashRegister || i%5 == 1 }

// numberOf is the inverse of keyOf.
func numberOf(k block.Key) int { return int(binary.BigEndian.Uint32(k[11:])) }

func crashLength(i, version int) int { return (i*7919 + version*1237) % 20000 }

func crashContent(i, version int) []byte { return content(i, version, crashLength(i, version)) }

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

// tellingDir says of each segment file that is going to be removed which objects are
// lost with it.
type tellingDir struct {
	filesystem
	child *child
}

func (d tellingDir) Remove(name string) error {
	if id, ok := parseSegmentName(name); ok && d.child.s != nil {
		d.child.sayDoomed(id)
	}
	return d.filesystem.Remove(name)
}

// child is the process that is going to be killed. Each line that it prints was true
// when it was printed, and nothing is done before its line:
//
//	w 7 2  object 7 is going to be written in version 2, over what there was
//	p 7 2  that has been done
//	x 7    object 7 is going to be deleted
//	d 7    that has been done
//	u 7    object 7 is in a segment that is going to be removed
//	e 7    Put said that object 7 was evicted
//	s      all deletions that have been done are durable
type child struct {
	s  *Store
	mu gosync.Mutex // a line at a time
}

func (c *child) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf(format, args...)
}

func (c *child) sayDoomed(id uint32) {
	var lost []int
	c.s.mu.Lock()
	for k, e := range c.s.index {
		if e.segment == id {
			lost = append(lost, numberOf(k))
		}
	}
	c.s.mu.Unlock()
	for _, i := range lost {
		c.say("u %d\n", i)
	}
}

func crashChild(dir string, first int) error {
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	c := &child{}
	s, err := openFS(dir, crashConfig().withDefaults(), tellingDir{osDir(dir), c})
	if err != nil {
		return err
	}
	s.lock, c.s = lock, s
	for ; ; first += crashBatch {
		c.deleteOld(first - crashKeeps)
		var wg gosync.WaitGroup
		errs := make([]error, crashWriters)
		for w := range crashWriters {
			wg.Go(func() { errs[w] = c.writeSome(first + w*crashEach) })
		}
		wg.Wait()
		if err := errors.Join(append(errs, s.Sync(context.Background()))...); err != nil {
			return err
		}
		c.say("s\n")
	}
}

// deleteOld deletes the kept objects below a number.
func (c *child) deleteOld(below int) {
	var old []int
	c.s.All(func(d block.Descriptor) bool {
		if i := numberOf(d.Key); crashKept(i) && i < below {
			old = append(old, i)
		}
		return true
	})
	for _, i := range old {
		c.delete(i)
	}
}

// writeSome puts objects from a number on, of which it deletes a few at once, and
// one register.
func (c *child) writeSome(from int) error {
	for i := from; i < from+crashEach; i++ {
		if err := c.put(i, 0); err != nil {
			return err
		}
		if i%7 == 0 {
			c.delete(i)
		}
		c.read(i - 8*crashBatch - i%3) // so that it is rescued
	}
	r := crashRegister + from/crashEach%crashRegisters
	c.say("w %d %d\n", r, from)
	c.s.Delete(keyOf(r))
	return c.write(r, from)
}

func (c *child) put(i, version int) error {
	c.say("w %d %d\n", i, version)
	return c.write(i, version)
}

func (c *child) write(i, version int) error {
	p := crashContent(i, version)
	evicted, err := c.s.Put(context.Background(), block.Describe(keyOf(i), keyOf(i-1), p), p)
	for _, k := range evicted {
		c.say("e %d\n", numberOf(k))
	}
	if err == nil {
		c.say("p %d %d\n", i, version)
	}
	return err
}

// read reads an object if it is there.
func (c *child) read(i int) {
	_, _ = c.s.Get(context.Background(), keyOf(i), make([]byte, 20000))
}

func (c *child) delete(i int) {
	c.say("x %d\n", i)
	c.s.Delete(keyOf(i))
	c.say("d %d\n", i)
}

// TestKill kills a writing process at random moments, again and again on one
// directory, and wants everything that it promised.
func TestKill(t *testing.T) {
	rounds := 6
	if long() {
		rounds = 300
	}
	dir := t.TempDir()
	m := crashModel{}
	first := 0
	for round := range rounds {
		after := time.Duration(1+rand.IntN(120)) * time.Millisecond
		first = m.verify(t, dir, first, runAndKill(t, dir, first, after))
		if t.Failed() {
			t.Fatalf("round %d, killed after %v", round, after)
		}
	}
	var there, kept int
	for i := range m {
		there++
		if crashKept(i) {
			kept++
		}
	}
	if kept == 0 || kept == there {
		t.Errorf("%d objects are there, and %d are kept", there, kept)
	}
	t.Logf("%d kills, %d objects put, %d there, of these %d kept", rounds, first, there, kept)
}

// runAndKill starts the child, and kills it some time after its first line.
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
			break // a last line without an end was not said
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
