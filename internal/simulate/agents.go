package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"cairn/internal/trace"
)

// Agents describes a generated workload: agents that work in loops of a prompt, a
// tool and a longer prompt. The zero value stands for the defaults in brackets.
//
// There are Types of agents with a system prompt each, which all sessions of the type
// share, 2 to 40 blocks long; a few types are much more popular than the rest
// (Zipf's law). Sessions arrive independently (a Poisson process). A session adds
// a task of 1 to 8 blocks, and then takes a number of steps, Steps on average
// (geometric). After each, a tool adds between a few tokens and a dozen blocks
// (lognormal), and the next prompt, which is everything so far, comes after the tool's
// time (lognormal, 6 s in the middle), or in one step of five after a person has
// answered (3 min in the middle). One step in twenty starts a session of another type, for
// part of the work. A prompt that outgrows the context of 240 blocks is replaced by the
// system prompt and a new summary. The last block of a prompt is partly filled, and
// so never found again.
type Agents struct {
	// Requests is how many are made [20,000].
	Requests int
	// Rate is sessions a second, without those that sessions start [1].
	Rate float64
	// Types of agents [24].
	Types int
	// Steps of a session, on average [6].
	Steps float64
	// Seed makes the workload repeatable.
	Seed uint64
}

// Defaults of [Agents].
const (
	defaultAgentRequests = 20000
	defaultAgentRate     = 1
	defaultAgentTypes    = 24
	defaultAgentSteps    = 6
	agentContext         = 240 // blocks
)

// Validate reports every problem at once.
func (a Agents) Validate() error {
	var errs []error
	if a.Requests < 0 || a.Types < 0 || a.Types > 1<<16 {
		errs = append(errs, fmt.Errorf("simulate: %d requests of %d types of agents: want 1 or more of each, at most %d types, or 0 for the default", a.Requests, a.Types, 1<<16))
	}
	if !(a.Rate >= 0) || math.IsInf(a.Rate, 0) || !(a.Steps >= 0) || a.Steps > 0 && a.Steps < 1 || math.IsInf(a.Steps, 0) {
		errs = append(errs, fmt.Errorf("simulate: %g sessions a second of %g steps: want a rate above 0 and 1 step or more, or 0 for the default", a.Rate, a.Steps))
	}
	return errors.Join(errs...)
}

func (a Agents) withDefaults() Agents {
	a.Requests = cmp.Or(a.Requests, defaultAgentRequests)
	a.Rate = cmp.Or(a.Rate, defaultAgentRate)
	a.Types = cmp.Or(a.Types, defaultAgentTypes)
	a.Steps = cmp.Or(a.Steps, defaultAgentSteps)
	return a
}

// Name says what the workload is, for people.
func (a Agents) Name() string {
	a = a.withDefaults()
	return fmt.Sprintf("agents (generated, %d types, %g steps, seed %d)", a.Types, a.Steps, a.Seed)
}

// Trace yields the requests, in the form of a recorded trace with blocks of
// [trace.BlockTokens] tokens.
func (a Agents) Trace() iter.Seq2[trace.Request, error] {
	return func(yield func(trace.Request, error) bool) {
		if err := a.Validate(); err != nil {
			yield(trace.Request{}, err)
			return
		}
		for _, r := range newAgentWorld(a.withDefaults()).run() {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// agentWorld makes requests.
type agentWorld struct {
	Agents
	rng     *rand.Rand
	systems [][]uint64 // block ids of the system prompts
	popular []float64  // sums of weights
	nextID  uint64
	made    []trace.Request
}

func newAgentWorld(a Agents) *agentWorld {
	w := &agentWorld{Agents: a, rng: rand.New(rand.NewPCG(a.Seed, 2))}
	sum := 0.0
	for i := range a.Types {
		w.systems = append(w.systems, w.blocks(nil, 2+int(38*math.Pow(w.rng.Float64(), 2))))
		sum += 1 / float64(i+1)
		w.popular = append(w.popular, sum)
	}
	return w
}

// blocks appends n new blocks.
func (w *agentWorld) blocks(to []uint64, n int) []uint64 {
	for range n {
		to = append(to, w.nextID)
		w.nextID++
	}
	return to
}

func (w *agentWorld) agentType() int {
	x := w.rng.Float64() * w.popular[len(w.popular)-1]
	at, _ := slices.BinarySearch(w.popular, x)
	return min(at, len(w.popular)-1)
}

func (w *agentWorld) lognormal(median, sigma float64) float64 {
	return median * math.Exp(sigma*w.rng.NormFloat64())
}

// run starts sessions until none that starts later can be among the first requests.
func (w *agentWorld) run() []trace.Request {
	byTime := func(a, b trace.Request) int { return cmp.Compare(a.Arrival, b.Arrival) }
	at, next := 0.0, w.Requests
	for {
		at += w.rng.ExpFloat64() / w.Rate
		if len(w.made) >= next {
			slices.SortStableFunc(w.made, byTime)
			if w.made[w.Requests-1].Arrival.Seconds() < at {
				return w.made[:w.Requests]
			}
			next = len(w.made) + w.Requests/8 + 1
		}
		w.session(at, 0)
	}
}

const (
	mostDepth = 2 // of sessions that sessions start
	forkShare = 1.0 / 20
	waitShare = 1.0 / 5
)

// session makes the requests of one session that starts at a time in seconds.
func (w *agentWorld) session(at float64, depth int) {
	system := w.systems[w.agentType()]
	prompt := w.blocks(slices.Clone(system), 1+w.rng.IntN(8))
	tail := w.rng.IntN(trace.BlockTokens) // tokens of the partly filled last block
	for {
		w.request(at, prompt, tail)
		if w.rng.Float64() < 1/w.Steps {
			return
		}
		if depth < mostDepth && w.rng.Float64() < forkShare {
			w.session(at+w.lognormal(4, .5), depth+1)
		}
		if w.rng.Float64() < waitShare {
			at += w.lognormal(180, 1)
		} else {
			at += w.lognormal(6, .8)
		}
		tokens := tail + int(w.lognormal(500, 1.2))
		prompt = w.blocks(prompt, min(tokens/trace.BlockTokens, agentContext/4))
		tail = tokens % trace.BlockTokens
		if len(prompt) >= agentContext {
			prompt = w.blocks(slices.Clone(system), 4)
		}
	}
}

func (w *agentWorld) request(at float64, prompt []uint64, tail int) {
	ids := slices.Clone(prompt)
	if tail > 0 {
		ids = w.blocks(ids, 1)
	}
	w.made = append(w.made, trace.Request{
		Arrival: time.Duration(at * float64(time.Second)), Input: len(prompt)*trace.BlockTokens + tail, Output: 1, IDs: ids,
	})
}
