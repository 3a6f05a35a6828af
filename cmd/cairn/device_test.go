package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/internal/replay"
	"cairn/node"
	"cairn/resp"
	"cairn/sequence"
	"cairn/vram"
	"cairn/vram/emulated"
)

const (
	// engineEnv makes the test binary an inference engine at the unix socket that it names;
	// see engineMain.
	engineEnv = "TEST_AS_ENGINE"
	// engineDriverEnv is the library by which the engine reaches its GPU; unset, its device
	// is emulated.
	engineDriverEnv = "TEST_ENGINE_DRIVER"
)

// placed is an engine with its own device, at the GPU memory of a node.
type placed struct {
	node   *client.Node
	memory *client.Device
	stream vram.Stream
	close  []func() error
}

// openEngine takes dev over.
func openEngine(ctx context.Context, socket string, dev vram.Device) (e *placed, err error) {
	e = &placed{close: []func() error{dev.Close}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.end())
		}
	}()
	cl, err := client.Open(ctx, client.Config{Nodes: []string{"unix:" + socket}})
	if err != nil {
		return e, err
	}
	e.close = append(e.close, cl.Close)
	if e.node, err = cl.Node("unix:" + socket); err != nil {
		return e, err
	}
	if e.stream, err = dev.NewStream(); err != nil {
		return e, err
	}
	if e.memory, err = e.node.OpenDevice(ctx, dev); err != nil {
		return e, err
	}
	e.close = append(e.close, e.memory.Close)
	return e, nil
}

func (e *placed) end() error {
	var errs []error
	for i := len(e.close) - 1; i >= 0; i-- {
		errs = append(errs, e.close[i]())
	}
	return errors.Join(errs...)
}

// engineAt is an engine in this process.
func (s *system) engineAt(n *server) *placed {
	s.t.Helper()
	dev, err := emulated.New(emulated.Config{Memory: 1 << 20})
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := openEngine(s.t.Context(), s.socket(n), dev)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { e.end() })
	return e
}

func (s *system) socket(n *server) string { return filepath.Join(s.dir, n.id, "node.sock") }

func (e *placed) write(at vram.Addr, p []byte) error {
	return errors.Join(e.stream.CopyIn(at, p), e.stream.Synchronize())
}

func (e *placed) read(at vram.Addr, n int) ([]byte, error) {
	p := make([]byte, n)
	return p, errors.Join(e.stream.CopyOut(p, at), e.stream.Synchronize())
}

// putName writes a version in place.
func (e *placed) putName(ctx context.Context, name string, p []byte, opts ...client.PutOption) (client.Version, error) {
	slots, err := e.memory.Reserve(ctx, len(p))
	if err != nil {
		return 0, err
	}
	if err := e.write(slots[0].Addr(), p); err != nil {
		return 0, err
	}
	return slots[0].CommitName(ctx, name, opts...)
}

// readName reads a name in place.
func (e *placed) readName(ctx context.Context, name string, opts ...client.GetOption) ([]byte, client.Version, error) {
	view, v, err := e.memory.ViewName(ctx, name, opts...)
	if err != nil {
		return nil, 0, err
	}
	p, err := e.read(view.Addr(), view.Len())
	return p, v, errors.Join(err, view.Release(ctx))
}

// deviceNode are tiers with room for a few slots of GPU memory; every name is on both
// nodes' disks.
func deviceNode(more ...string) []string {
	return smallNode(append([]string{"--namespaces", "default:write-back:homes=2", "--promote-after", "1"}, more...)...)
}

// TestEngineWritesInPlace: node A has version after version of a name in host memory, on
// disk and in GPU memory when an engine writes the next one in A's GPU memory, with
// write-back. A strict read at B gives what the engine wrote, and nobody gets anything older
// again: not while A's copies are there, not after they were evicted, not after both nodes
// were killed.
func TestEngineWritesInPlace(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 2, flags: deviceNode()})
	ctx := t.Context()
	a, b := s.dial(s.nodes[0], client.Config{}), s.dial(s.nodes[1], client.Config{})
	e := s.engineAt(s.nodes[0])
	const name = "state"
	value := func(i int) []byte { return keptValue(i) }
	// wantBoth reads the name at both nodes.
	wantBoth := func(i int, v client.Version) {
		t.Helper()
		for who, n := range map[string]*client.Node{"A": a, "B": b} {
			levels := map[string]client.GetOption{"strict": client.Strict()}
			if who == "A" { // where it was written, the weaker levels promise it too
				levels["session"], levels["local"], levels["bounded"] = client.Session(), client.Local(), client.Bounded(0)
			}
			for level, o := range levels {
				got, err := n.GetName(ctx, name, nil, o)
				if err != nil || v != 0 && got.Version != v || !bytes.Equal(got.Value, value(i)) {
					t.Fatalf("version %d at %s, %s: %v, want %v: %v", i, who, level, got.Version, v, err)
				}
			}
		}
	}
	var set uint64 = 30
	evict := func() { // puts several times what A's memory holds
		t.Helper()
		set++
		if _, err := inParallel(400, func(i int) error {
			k, p := benchKey(set, i), make([]byte, keptBlock)
			replay.Fill(p, k)
			_, err := a.Put(ctx, k, block.Key{}, p, client.WithPolicy(client.WriteAll))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	const rounds = 6
	version := 0
	for round := range rounds {
		version++
		if err := a.PutName(ctx, name, value(version)); err != nil { // by way of host memory
			t.Fatal(err)
		}
		if _, err := a.Barrier(ctx); err != nil { // to both disks
			t.Fatal(err)
		}
		old, _, err := e.readName(ctx, name, client.Strict()) // to GPU memory
		if err != nil || !bytes.Equal(old, value(version)) {
			t.Fatalf("version %d in GPU memory: %v", version, err)
		}
		if where := s.tiersOf(a, name); round == 0 && len(where) != 3 {
			t.Fatalf("version %d is in %v of A, want every tier", version, where)
		}
		version++
		v, err := e.putName(ctx, name, value(version), client.WithPolicy(client.WriteBack))
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.GetName(ctx, name, nil, client.Strict())
		if err != nil || got.Version != v || !bytes.Equal(got.Value, value(version)) {
			t.Fatalf("B reads version %v after the engine was told %v: %v", got.Version, v, err)
		}
		wantBoth(version, v)
		inPlace, seen, err := e.readName(ctx, name, client.Strict())
		if err != nil || seen != v || !bytes.Equal(inPlace, value(version)) {
			t.Fatalf("in place: version %v, want %v: %v", seen, v, err)
		}
		if round == rounds/2 {
			evict()
			wantBoth(version, v)
			if err := b.PutName(ctx, name, value(version+1)); err != nil { // another owner
				t.Fatal(err)
			}
			version++
			if inPlace, _, err = e.readName(ctx, name, client.Strict()); err != nil || !bytes.Equal(inPlace, value(version)) {
				t.Fatalf("in place, of B's version: %v", err)
			}
		}
	}
	if _, err := a.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.end(); err != nil {
		t.Fatal(err)
	}
	for _, n := range s.nodes {
		n.kill()
	}
	for _, n := range s.nodes {
		n.start()
	}
	a, b = s.dial(s.nodes[0], client.Config{}), s.dial(s.nodes[1], client.Config{})
	for _, n := range []*client.Node{a, b} { // once nobody owns it any more who is gone
		await(t, patience, "the name after the restart", func() error {
			got, err := n.GetName(ctx, name, nil, client.Strict())
			if err == nil && !bytes.Equal(got.Value, value(version)) || err != nil && !errors.Is(err, client.ErrUnavailable) {
				t.Fatalf("after the restart: %v of %d bytes: %v", got.Version, len(got.Value), err)
			}
			return err
		})
	}
	wantBoth(version, 0)
	s.stop()
}

// tiersOf is where a node has the bytes of a name.
func (s *system) tiersOf(n *client.Node, name string) []block.Tier {
	s.t.Helper()
	text, err := n.Explain(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	var st node.NameStatus
	if err := json.Unmarshal(text, &st); err != nil {
		s.t.Fatal(err)
	}
	return st.Here
}

// An engine's request: what a peer has is onboarded into GPU memory and read in place, the
// next block is computed into a slot and committed, and the peer has it.
func TestEngineOnboardsAndCommits(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 2, flags: deviceNode()})
	ctx := t.Context()
	b := s.dial(s.nodes[1], client.Config{})
	e := s.engineAt(s.nodes[0])
	const blocks = 8
	keys := make([]block.Key, blocks+1)
	content := make([][]byte, len(keys))
	for i := range keys {
		keys[i] = chainKey(t, i)
		content[i] = keptValue(100 + i)
	}
	var parent block.Key
	for i, k := range keys[:blocks] {
		if _, err := b.Put(ctx, k, parent, content[i]); err != nil {
			t.Fatal(err)
		}
		parent = k
	}
	await(t, patience, "A knows what B has", func() error {
		m, err := e.node.Match(ctx, keys)
		if err == nil && m.Prefix != blocks {
			err = fmt.Errorf("%d blocks", m.Prefix)
		}
		return err
	})
	seq, _, err := e.node.OpenSequenceKeys(ctx, keys[:blocks])
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	got, err := seq.Onboard(ctx, block.VRAM, sequence.Range{})
	if err != nil || got.Range.End != blocks {
		t.Fatalf("%+v, %v", got, err)
	}
	views, err := e.memory.View(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range views[:blocks] {
		p, err := e.read(v.Addr(), v.Len())
		if err != nil || !bytes.Equal(p, content[i]) {
			t.Errorf("block %d in place: %v", i, err)
		}
	}
	if views[blocks] != nil {
		t.Error("a block that nobody has computed")
	}
	slots, err := e.memory.Reserve(ctx, len(content[blocks]))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.write(slots[0].Addr(), content[blocks]); err != nil {
		t.Fatal(err)
	}
	view, stored, err := slots[0].CommitView(ctx, keys[blocks], parent)
	if err != nil || !stored || view == nil {
		t.Fatalf("stored %v, view %v: %v", stored, view, err)
	}
	if p, err := e.read(view.Addr(), view.Len()); err != nil || !bytes.Equal(p, content[blocks]) || view.Checksum() != block.Checksum(p) {
		t.Errorf("the block after its commit: %v", err)
	}
	await(t, patience, "B finds the new block", func() error { // it learns of it by an announcement
		p, err := b.Get(ctx, keys[blocks], nil)
		if err == nil && !bytes.Equal(p, content[blocks]) {
			t.Fatal("B has wrong bytes")
		}
		return err
	})
	if st := s.status(s.nodes[0]).Devices; st.Pinned != blocks+1 || st.Sealed != 1 {
		t.Errorf("%+v", st)
	}
	if err := e.end(); err != nil {
		t.Fatal(err)
	}
	s.awaitNothingHeld(s.nodes[0])
	s.stop()
}

// chainKey is the key of the i-th block of a sequence.
func chainKey(t *testing.T, i int) block.Key {
	t.Helper()
	k, err := block.NewKey(i, [block.HashSize]byte{0xde, byte(i)})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *system) awaitNothingHeld(n *server) {
	s.t.Helper()
	await(s.t, patience, "engines hold nothing of GPU memory", func() error {
		if st := s.status(n).Devices; st.Held != 0 || st.Pinned+st.Slots+st.Quarantined+st.Regions != 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}

// engineBlock is what an engine process commits as its i-th block.
func engineBlock(round, i int) (block.Key, []byte) {
	k, p := benchKey(uint64(1000+round), i), make([]byte, keptBlock)
	replay.Fill(p, k)
	return k, p
}

// engineMain is an engine process: it holds slots that it never commits and a view, and
// commits blocks and versions of a name one after the other, each written in pieces and
// read in place, until it is killed, or its input ends. It says what was acknowledged.
func engineMain(socket string) {
	ctx := context.Background()
	go func() {
		io.Copy(io.Discard, os.Stdin) // whoever started it is gone
		os.Exit(exitFailure)
	}()
	round, _ := strconv.Atoi(os.Args[1])
	if err := runEngine(ctx, socket, round); err != nil {
		fmt.Println("error:", err)
		os.Exit(exitFailure)
	}
}

func runEngine(ctx context.Context, socket string, round int) error {
	dev, err := engineDevice(os.Getenv(engineDriverEnv))
	if err != nil {
		return err
	}
	e, err := openEngine(ctx, socket, dev)
	if err != nil {
		return err
	}
	if _, err := e.memory.Reserve(ctx, keptBlock, keptBlock); err != nil {
		return err
	}
	for i := 0; ; i++ {
		k, p := engineBlock(round, i)
		slots, err := e.memory.Reserve(ctx, len(p), len(p))
		if err != nil {
			return err
		}
		const pieces = 8
		for piece := range pieces {
			from, to := piece*len(p)/pieces, (piece+1)*len(p)/pieces
			for _, s := range slots {
				if err := e.write(s.Addr()+vram.Addr(from), p[from:to]); err != nil {
					return err
				}
			}
		}
		view, _, err := slots[0].CommitView(ctx, k, block.Key{})
		if err != nil {
			return err
		}
		if _, err := slots[1].CommitName(ctx, "newest"); err != nil {
			return err
		}
		if view == nil {
			return errors.New("the block is not pinned")
		}
		got, err := e.read(view.Addr(), view.Len())
		if err := errors.Join(err, view.Release(ctx)); err != nil {
			return err
		}
		newest, _, err := e.readName(ctx, "newest", client.Strict())
		if err != nil {
			return err
		}
		if !bytes.Equal(got, p) || !bytes.Equal(newest, p) {
			return errors.New("other bytes in place")
		}
		fmt.Println("acknowledged", i)
	}
}

// TestKilledEngine kills engine processes in the middle of their writing. What they were
// told is there is there; nothing that is half-written is visible; and every slot comes
// back.
func TestKilledEngine(t *testing.T) {
	t.Parallel()
	s := startSystem(t, systemConfig{nodes: 2, flags: deviceNode()})
	killEngines(t, s, "")
	// All that engines may have can be had: nothing has leaked.
	ctx := t.Context()
	e := s.engineAt(s.nodes[0])
	info, err := e.memory.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lengths := make([]int, info.Limit/(64<<10))
	for i := range lengths {
		lengths[i] = 64 << 10
	}
	slots, err := e.memory.Reserve(ctx, lengths...)
	if err != nil || len(slots) < 8 {
		t.Fatalf("%d slots: %v", len(slots), err)
	}
	if _, err := e.memory.Reserve(ctx, 1); !errors.Is(err, client.ErrPinned) {
		t.Errorf("one more: %v", err)
	}
	s.stop()
}

// killEngines kills engine processes at the first of two nodes, and checks what they leave;
// driver is as in engineDriverEnv.
func killEngines(t *testing.T, s *system, driver string) {
	t.Helper()
	ctx := t.Context()
	a, b := s.dial(s.nodes[0], client.Config{}), s.dial(s.nodes[1], client.Config{})
	for round := range 4 {
		acknowledged := s.killEngine(round, 10+7*round, driver)
		for i := range acknowledged + 2 { // the last may be there without having been acknowledged
			k, want := engineBlock(round, i)
			p, err := a.Get(ctx, k, nil)
			if err == nil && !bytes.Equal(p, want) || err != nil && (i < acknowledged || !errors.Is(err, client.ErrNotFound)) {
				t.Fatalf("round %d, block %d of %d acknowledged: %v", round, i, acknowledged, err)
			}
		}
		got, err := b.GetName(ctx, "newest", nil, client.Strict())
		if err != nil {
			t.Fatal(err)
		}
		_, last := engineBlock(round, acknowledged-1)
		_, next := engineBlock(round, acknowledged)
		if !bytes.Equal(got.Value, last) && !bytes.Equal(got.Value, next) {
			t.Fatalf("round %d: the name has neither the value acknowledged last nor the one after it", round)
		}
		s.awaitNothingHeld(s.nodes[0])
	}
	st := s.status(s.nodes[0])
	if st.Devices.Released < 8 { // two slots of each engine at least
		t.Errorf("%+v", st.Devices)
	}
}

// killEngine starts an engine process at the first node, kills it when that many blocks
// were acknowledged, and returns how many there were in the end.
func (s *system) killEngine(round, after int, driver string) (acknowledged int) {
	s.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(exe, strconv.Itoa(round))
	cmd.Env = append(cleanEnv(), engineEnv+"="+s.socket(s.nodes[0]), engineDriverEnv+"="+driver)
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var killed sync.Once
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "acknowledged ") {
			s.t.Errorf("the engine says %q", lines.Text())
			break
		}
		if acknowledged++; acknowledged >= after {
			killed.Do(func() { cmd.Process.Kill() })
		}
	}
	killed.Do(func() { cmd.Process.Kill() })
	_ = cmd.Wait() // killed: an error
	if acknowledged < after {
		s.t.Fatalf("the engine ended after %d blocks", acknowledged)
	}
	return acknowledged
}

// TestDeviceInProtocolDoc plays what docs/protocol.md shows of GPU memory: what stands there
// is what a node answers.
func TestDeviceInProtocolDoc(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	s := startSystem(t, systemConfig{nodes: 1, flags: smallNode()})
	conn, err := resp.Dial(t.Context(), "unix", s.socket(s.nodes[0]), resp.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Begin(t.Context())
	steps := regexp.MustCompile(`(?m)^> (CAIRN.DEVICE.*)\n(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(steps) < 9 {
		t.Fatalf("%d steps", len(steps))
	}
	for _, step := range steps {
		words := strings.Fields(step[1])
		args := make([][]byte, len(words)-1)
		for i, w := range words[1:] {
			args[i] = []byte(w)
		}
		conn.Append(words[0], args...)
		v, err := conn.ReadReply()
		var refusal resp.ServerError
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		got := string(refusal)
		if err == nil {
			got = shown(v, words[0] == "CAIRN.DEVICE.INFO" || words[0] == "CAIRN.DEVICE.COMMIT")
		}
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(step[2]), "…", ".+") + "$")
		if !want.MatchString(got) {
			t.Errorf("%s\n got %q\nwant %q", step[1], got, step[2])
		}
	}
}

// shown is a reply on one line; pairs: it is a map.
func shown(v resp.Value, pairs bool) string {
	if v.Kind == resp.Null {
		return "(nil)"
	}
	if v.Kind != resp.Array {
		return v.Text()
	}
	words := make([]string, len(v.Elems))
	for i, e := range v.Elems {
		words[i] = shown(e, false)
	}
	if !pairs {
		return "[" + strings.Join(words, " ") + "]"
	}
	for i := 1; i < len(words); i += 2 {
		words[i/2] = words[i-1] + "=" + words[i]
	}
	return strings.Join(words[:len(words)/2], " ")
}
