package node

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"cairn/block"
	"cairn/coherency/ledger"
	"cairn/coherency/protocol"
	"cairn/tier"
)

// homed is what this node, as a home, knows of objects that were staged here and that
// no decided record names. It survives a restart: each batch leaves a label in
// the home tier beside its objects, a small object that lists them, until the last
// of them is decided.
type homed struct {
	c *coherence

	// mu guards everything below.
	mu      sync.Mutex
	objects map[block.Key]stagedHere    // undecided, by object
	byKey   map[block.Key][]stagedWrite // of these, writes under ownership, by block
	labels  map[block.Key]int           // how many objects of a label are undecided
	held    map[block.Key]struct{}      // objects that a node without a disk keeps in memory
	found   []block.Key                 // named objects that the disk had at the start
	// born is the sequence of the log from which on the home tier has kept everything
	// that was staged here.
	born uint64
	aged bool // born is known
}

type stagedHere struct {
	write  stagedWrite
	author stageAuthor
	label  block.Key
	at     time.Duration // when it came, on the machine's clock; 0: in an earlier life
}

func (h *homed) init() {
	h.objects = map[block.Key]stagedHere{}
	h.byKey = map[block.Key][]stagedWrite{}
	h.labels = map[block.Key]int{}
	h.held = map[block.Key]struct{}{}
}

// store makes objects durable in the home tier, with one flush for all, and lets the
// machine know them. They lie in the host tier, or in asides, which may be nil. The
// answer has an error, or nil, for each.
func (h *homed) store(ctx context.Context, author stageAuthor, items []stagedWrite, asides [][]byte) []error {
	errs := make([]error, len(items))
	if len(items) == 0 {
		return errs
	}
	n := h.c.n
	var label block.Key
	if n.home == block.Host {
		h.hold(items, errs)
	} else {
		label = h.bring(ctx, author, items, asides, errs)
	}
	h.mu.Lock()
	for i, w := range items {
		if errs[i] == nil {
			h.addLocked(stagedHere{w, author, label, h.c.now()})
		}
	}
	if !label.IsZero() && h.labels[label] == 0 {
		h.c.dropper.dropLabel(label) // nothing of it has arrived
	}
	h.mu.Unlock()
	for i, w := range items {
		if errs[i] == nil {
			h.c.counters.arrived.Add(1)
			h.c.event(arrivedEvent(stagedHere{write: w, author: author}))
		}
	}
	return errs
}

func arrivedEvent(s stagedHere) protocol.Arrived {
	return protocol.Arrived{Key: s.write.Key, Author: s.author.node, Incarnation: s.author.incarnation,
		Token: s.write.Token, Version: s.write.Version, Value: s.write.Value}
}

// hold keeps objects in the host tier of a node that has no disk.
func (h *homed) hold(items []stagedWrite, errs []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, w := range items {
		if _, ok := h.held[w.Value.Object]; ok {
			continue
		}
		if errs[i] = h.c.n.host.Pin(w.Value.Object); errs[i] == nil {
			h.held[w.Value.Object] = struct{}{}
		}
	}
}

// bring copies objects to the disk and leaves a label for them.
func (h *homed) bring(ctx context.Context, author stageAuthor, items []stagedWrite, asides [][]byte, errs []error) (label block.Key) {
	n := h.c.n
	arrived := make([]arrival, len(items))
	text := appendAuthor(nil, author)
	some := false
	for i, w := range items {
		place := func() {
			if asides != nil && asides[i] != nil {
				errs[i] = n.putAside(ctx, w.Value, asides[i])
			} else {
				arrived[i], errs[i] = n.copyNamedHome(ctx, w.Value.Object)
			}
		}
		before := h.c.dropper.removals.Load()
		place()
		if errors.Is(errs[i], tier.ErrNoSpace) && h.c.dropper.hurry() > before {
			place()
		}
		if errs[i] == nil {
			text = w.append(text)
			some = true
		}
	}
	if !some {
		h.refused(items, errs)
		return block.Key{}
	}
	label = block.NamedKey("\x00cairn", text[:min(len(text), 256)], h.c.newUnique())
	evicted, err := n.stores[n.home].Put(ctx, block.Describe(label, labelParent, text), text)
	n.evicted(n.home, evicted)
	if err == nil {
		err = n.syncHome(ctx)
	}
	for i := range items {
		switch {
		case errs[i] != nil:
		case err != nil:
			errs[i] = err
			if arrived[i].copied {
				n.stores[n.home].Delete(items[i].Value.Object)
				n.abort(arrived[i])
			} else if asides != nil && asides[i] != nil {
				n.takeAside(items[i].Value.Object)
			}
		case asides != nil && asides[i] != nil:
			errs[i] = n.enterHome(items[i].Value)
		case arrived[i].copied:
			n.commitHome(arrived[i])
			if e, ok := n.dir.get(items[i].Value.Object); !ok || !e.state.Durable() {
				errs[i] = errGone
			}
		}
	}
	h.refused(items, errs)
	return label
}

// refused counts and shows that the home tier has not taken objects.
func (h *homed) refused(items []stagedWrite, errs []error) {
	for i, err := range errs {
		if err != nil && !errors.Is(err, tier.ErrNotFound) && !errors.Is(err, errBusy) && !errors.Is(err, errGone) {
			h.c.n.offloadFailed(items[i].Value.Object, err)
			return
		}
	}
}

func (h *homed) addLocked(s stagedHere) {
	object := s.write.Value.Object
	if old, ok := h.objects[object]; ok {
		h.releaseLocked(old.label)
	}
	h.objects[object] = s
	if !s.label.IsZero() {
		h.labels[s.label]++
	}
	if s.write.Token != 0 {
		h.byKey[s.write.Key] = append(h.byKey[s.write.Key], s.write)
	}
}

// releaseLocked forgets one undecided object of a label, and the label with the last.
func (h *homed) releaseLocked(label block.Key) {
	if label.IsZero() {
		return
	}
	if h.labels[label]--; h.labels[label] <= 0 {
		delete(h.labels, label)
		h.c.dropper.dropLabel(label)
	}
}

// decided forgets an object: it is named by a pointer, or is going to be collected.
func (h *homed) decided(object block.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.decidedLocked(object)
}

func (h *homed) decidedLocked(object block.Key) {
	s, ok := h.objects[object]
	if !ok {
		return
	}
	delete(h.objects, object)
	h.releaseLocked(s.label)
	if s.write.Token != 0 {
		h.pruneLocked(s.write.Key, func(w stagedWrite) bool { return w.Value.Object != object })
	}
}

// moved forgets what a pointer's new state has decided.
func (h *homed) moved(p ledger.Pointer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.objects) == 0 {
		return
	}
	h.decidedLocked(p.Value.Object)
	if _, ok := h.byKey[p.Key]; ok {
		h.pruneLocked(p.Key, func(w stagedWrite) bool { return w.Token >= p.Token && w.Version > p.Version })
	}
}

func (h *homed) pruneLocked(key block.Key, keep func(stagedWrite) bool) {
	list := h.byKey[key]
	kept := list[:0:0]
	for _, w := range list {
		if keep(w) {
			kept = append(kept, w)
		}
	}
	if len(kept) == 0 {
		delete(h.byKey, key)
		return
	}
	h.byKey[key] = kept
}

// newest is the newest write that was staged here under the token.
func (h *homed) newest(key block.Key, token ledger.Version) (best stagedWrite, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.byKey[key] {
		if w.Token == token && (!ok || w.Version > best.Version) {
			best, ok = w, true
		}
	}
	return best, ok
}

// has tells whether an object is staged here and not decided.
func (h *homed) has(object block.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.objects[object]
	return ok
}

// undecided counts the objects that are staged here.
func (h *homed) undecided() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.objects)
}

// open tells whether an object is staged here, and at no other member that stays, of which a write
// may have been acknowledged that this node has not heard of. Of older ones it would have.
func (h *homed) open() bool {
	c := h.c
	self := uint16(c.number.Load())
	heard := time.Duration(c.fresh.Load()) - c.n.cfg.NameWait - limitGrain
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.objects {
		elsewhere := func(n uint16) bool { return n != self && c.keeps(n) }
		if s.at >= heard && !slices.ContainsFunc(s.write.Value.Homes[:], elsewhere) {
			return true
		}
	}
	return false
}

// bornKey is the object that tells how old the home tier is.
var bornKey = block.NamedKey("\x00cairn", []byte("born"), 1)

// age finds out how old the home tier is: a new one, such as a disk that took the
// place of a broken one, knows nothing of what was staged before the log's present end.
func (h *homed) age() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.aged {
		return
	}
	h.born, h.aged = h.c.machine.Ledger().Sequence(), true
	if h.c.n.home == block.Host {
		return // as old as the process
	}
	text := binary.BigEndian.AppendUint64(nil, h.born)
	h.c.beside(func(ctx context.Context) {
		n := h.c.n
		evicted, err := n.stores[n.home].Put(ctx, block.Describe(bornKey, labelParent, text), text)
		n.evicted(n.home, evicted)
		if err == nil {
			err = n.syncHome(ctx)
		}
		if err != nil && ctx.Err() == nil { // then the next start finds a tier that is younger than it is
			h.c.log.Warn("the age of the home tier could not be kept", "err", err)
		}
	})
}

// remembers tells whether this node would know of a write that was staged here under
// the token.
func (h *homed) remembers(token ledger.Version) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.aged && token.Place().Sequence() >= h.born
}

// removed forgets that a node without a disk holds an object.
func (h *homed) removed(objects []block.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range objects {
		delete(h.held, o)
	}
}

// recover takes in what a home tier has kept from an earlier run. Labels are read;
// other named objects are looked at when the log is known.
func (h *homed) recover(ctx context.Context, d block.Descriptor, store tier.Store) {
	if d.Key == bornKey {
		var text [8]byte
		if _, err := store.Get(ctx, d.Key, text[:]); err == nil && d.Length == 8 {
			h.born, h.aged = binary.BigEndian.Uint64(text[:]), true
		}
		return
	}
	if !isLabel(d) {
		h.found = append(h.found, d.Key)
		return
	}
	text := make([]byte, d.Length)
	if _, err := store.Get(ctx, d.Key, text); err != nil {
		h.c.log.Warn("a list of staged objects cannot be read", "err", err)
		return
	}
	author, writes, err := parseLabel(text)
	if err != nil {
		h.c.log.Warn("a list of staged objects cannot be read", "err", err)
		return
	}
	for _, w := range writes {
		h.addLocked(stagedHere{write: w, author: author, label: d.Key})
	}
}

// announce runs in the coherence goroutine when the log is known: what was staged
// before the restart, and is not decided, arrives again; what no pointer names
// and nobody has staged is dropped.
func (h *homed) announce() {
	c := h.c
	h.age()
	var arrived []protocol.Arrived
	h.mu.Lock()
	for object, s := range h.objects {
		p, _ := c.table.lookup(s.write.Key)
		switch {
		case !c.n.Holds(object), p.Value.Object == object:
			h.decidedLocked(object)
		default:
			arrived = append(arrived, arrivedEvent(s))
		}
	}
	found := h.found
	h.found = nil
	left := map[block.Key]struct{}{}
	for _, object := range found {
		if _, ok := h.objects[object]; !ok {
			left[object] = struct{}{}
		}
	}
	h.mu.Unlock()
	for _, e := range arrived {
		c.step(e)
	}
	if len(left) == 0 {
		return
	}
	c.table.Range(func(p ledger.Pointer) bool {
		c.table.mask(&p)
		delete(left, p.Value.Object)
		return true
	})
	for object := range left {
		c.discard(object)
	}
}
