package protocol

import (
	"cairn/coherency/ledger"
)

// check looks at the invariants that hold in every state.
func (u *universe) check() {
	for i := range u.in.nodes {
		m := u.sites[i].m
		if m == nil || !m.Serving(u.now) {
			continue
		}
		mem, _ := u.oracle.Find(u.in.nodes[i])
		if !mem.Live && !m.away || mem.Incarnation != m.incarnation {
			u.fail("I2: %s holds a lease as incarnation %d, and the log has %d, live: %v", u.in.nodes[i], m.incarnation, mem.Incarnation, mem.Live)
		}
	}
	for b, key := range u.in.keys {
		p, _ := u.oracle.Lookup(key)
		u.checkOwner(b, p)
		for _, h := range p.Value.Homes {
			if h != 0 && !p.Value.Object.IsZero() && u.sites[h-1].disk>>u.in.objectOf(p.Value.Object)&1 == 0 {
				u.fail("I3: %s names object %d, and its home %s has not got it", u.in.names[b], u.in.objectOf(p.Value.Object), u.in.nodes[h-1])
			}
		}
		if !p.Value.Object.IsZero() && p.Value.Homes.Count() == 0 {
			u.fail("I3: %s names object %d, which has no home", u.in.names[b], u.in.objectOf(p.Value.Object))
		}
	}
}

// checkOwner: I1, and what the one owner would answer is allowed (I4, I5, I7).
func (u *universe) checkOwner(b int, p ledger.Pointer) {
	acting := -1
	for i := range u.in.nodes {
		m := u.sites[i].m
		if m == nil || m.phase != serving || u.now >= m.leased {
			continue
		}
		l := m.blocks[u.in.keys[b]]
		if l == nil || l.token == 0 || l.owner != m.incarnation || l.undecided {
			continue
		}
		if acting >= 0 {
			u.fail("I1: %s and %s both act as owner of %s", u.in.nodes[acting], u.in.nodes[i], u.in.names[b])
		}
		acting = i
		if p.Token != l.token {
			u.fail("I1: %s acts as owner of %s by token %d, and the log has %d", u.in.nodes[i], u.in.names[b], l.token, p.Token)
		}
		if u.possible(b)>>l.value.Sum&1 == 0 {
			u.fail("I5: %s, owner of %s, has the value %d, which is lost or too old", u.in.nodes[i], u.in.names[b], l.value.Sum)
		}
	}
}

// checkTruth: the pointer of a block that is free has what was acknowledged (I4, I5, I7, I9).
func (u *universe) checkTruth() {
	for b, key := range u.in.keys {
		p, _ := u.oracle.Lookup(key)
		if p.Owned() {
			continue
		}
		if u.possible(b)>>p.Value.Sum&1 == 0 {
			u.fail("I5: %s is free with the value %d, which cannot be: acknowledged was another", u.in.names[b], p.Value.Sum)
		}
		if p.Version < u.durable[b] {
			u.fail("I5: %s is free at version %d, older than what was acknowledged, %d", u.in.names[b], p.Version, u.durable[b])
		}
	}
}

// finalRead is the number of the first operation that settle adds.
const finalRead = 64

// settle lets a cluster go on without faults until nothing moves any more, and
// checks that nobody waits (L1) and that all nodes read the same, which is allowed (I4).
// Nodes that are down stay down at first, then start again.
func (u *universe) settle() *universe {
	c := u.copy()
	c.ghosts = nil
	c.budget = [budgets]uint8{}
	c.rounds(7)
	if c.err == nil {
		c.checkWaiting(func(i int) bool { return c.up(i) })
	}
	for i := range c.in.nodes {
		if !c.up(i) && c.err == nil {
			c.boot(i)
		}
	}
	c.rounds(7)
	if c.err == nil {
		c.checkWaiting(func(int) bool { return true })
	}
	if c.err != nil {
		return c
	}
	c.checkRedundancy()
	for i := range c.in.nodes {
		if c.sites[i].m.phase == left {
			continue
		}
		for b, key := range c.in.keys {
			c.finals++
			c.step(i, Read{Op: Op(finalRead + 1 + i*2 + b), Key: key, Space: c.in.space})
		}
	}
	c.rounds(3)
	if c.finals > 0 && c.err == nil {
		c.fail("L1: %d reads wait for ever once all faults are over", c.finals)
	}
	return c
}

// rounds lets time pass, and all that must happen.
func (u *universe) rounds(n int) {
	var list []move
	for range n {
		for steps := 0; u.err == nil; steps++ {
			if steps > 2000 {
				u.fail("L1: the cluster does not come to rest")
				return
			}
			list = u.moves(list[:0])
			next := -1
			for i, m := range list {
				if m.must() {
					next = i
					break
				}
			}
			if next < 0 {
				break
			}
			u.do(list[next])
			u.check()
		}
		u.pass()
	}
}

// checkWaiting: L1.
func (u *universe) checkWaiting(node func(int) bool) {
	for k, program := range u.in.clients {
		c := u.clients[k]
		if c.at < len(program) && node(program[c.at].node) && u.sites[program[c.at].node].m.phase != left {
			a := program[c.at]
			u.fail("L1: client %d waits for ever for %s of %s at %s", k, verbs[a.do], u.in.names[a.block], u.in.nodes[a.node])
		}
	}
	for i := range u.in.nodes {
		if m := u.sites[i].m; m != nil && node(i) && len(m.ops) > 0 {
			u.fail("L1: %s has %d operations that wait for ever", u.in.nodes[i], len(m.ops))
		}
	}
}

// checkRedundancy: once all that was wrong is over, every block has as many live homes as
// it should have, unless the only one has left.
func (u *universe) checkRedundancy() {
	live := 0
	for _, m := range u.oracle.Members() {
		if m.Live {
			live++
		}
	}
	for b, key := range u.in.keys {
		p, _ := u.oracle.Lookup(key)
		have := 0
		for _, h := range p.Value.Homes {
			if h != 0 && u.oracle.Member(h).Live {
				have++
			}
		}
		if want := min(max(u.in.space.Homes, u.in.space.Copies), live); !p.Value.Object.IsZero() && have < want && (have > 0 || u.in.budget[leaves] == 0) {
			u.fail("L1: %s has %d live homes, want %d", u.in.names[b], have, want)
		}
	}
}

func (u *universe) finalAnswer(i, number int, s Serve) {
	u.finals--
	b := number & 1
	value := uint8(s.Pointer.Value.Sum)
	l := &u.history[b]
	if !u.filter(l, func(c *config) bool { return c.value == value }, func(*config) {}) {
		u.fail("I4: at the end %s reads the value %d of %s", u.in.nodes[i], value, u.in.names[b])
	}
}
