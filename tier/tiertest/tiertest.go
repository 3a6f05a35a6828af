// Package tiertest is the conformance suite of [tier.Store]: one set of tests
// that every store, wrapper and fake passes, so that a node may exchange one for
// another.
//
// A store's own test calls [Run] with a function that opens it:
//
//	func TestConformance(t *testing.T) {
//		tiertest.Run(t, tiertest.Config{Open: func(t testing.TB, o tiertest.Options) tier.Store {
//			s, err := hostcache.Open(hostcache.Config{Capacity: o.Capacity})
//			if err != nil {
//				t.Fatal(err)
//			}
//			return s
//		}})
//	}
//
// What a store can do besides [tier.Store] is found by type assertion:
// [tier.Pinner], [tier.Memory] and [tier.Syncer] bring their own cases. The suite
// tests what the contract in package tier says, and of which object a store chooses to
// evict only that it is not one that others follow; a store tests its own policy.
package tiertest

import (
	"math/rand/v2"
	"testing"

	"cairn/tier"
)

// Defaults of [Config].
const (
	DefaultCapacity  = 1 << 20
	DefaultBlockSize = 16 << 10
)

// Config describes the store under test.
type Config struct {
	// Open opens a store; it ends the test when that is not possible. The suite
	// closes every store that it opened.
	Open func(t testing.TB, o Options) tier.Store

	// Capacity is what Open is asked for, in bytes; 0 is DefaultCapacity. Keep it
	// small: the suite fills the store several times over. A store that rounds
	// it up says so in its Stats.
	Capacity int64
	// BlockSize is the size of most objects that the suite puts, in bytes; 0
	// is DefaultBlockSize. At least eight of them must fit into Capacity.
	BlockSize int
	// MaxObject is the size of the largest object that the store takes, in bytes;
	// 0 stands for the Capacity in its Stats. One byte more must give
	// ErrTooLarge.
	MaxObject int
	// Persists says that a store opened again with the same Options.Dir holds
	// what was synced. It must then be a tier.Syncer.
	Persists bool
	// Seed of the random cases; 0 takes another one in every run. A failure
	// prints the seed.
	Seed uint64
}

// Options is what a store is to be opened with.
type Options struct {
	// Capacity is the size of the store in bytes.
	Capacity int64
	// Dir is an empty directory, or the one of the store that was closed before.
	Dir string
}

// Run runs every case that applies to the store, each on a store of its own.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(newSuite(t, cfg)) })
	}
}

type testCase struct {
	name string
	run  func(*suite)
}

// cases that need an optional interface return at once where the store lacks it.
var cases = []testCase{
	{"RoundTrip", testRoundTrip},
	{"SourceIsCopied", testSourceIsCopied},
	{"Missing", testMissing},
	{"Exists", testExists},
	{"ShortBuffer", testShortBuffer},
	{"TooLarge", testTooLarge},
	{"LengthMismatch", testLengthMismatch},
	{"Delete", testDelete},
	{"All", testAll},
	{"Stats", testStats},
	{"Canceled", testCanceled},
	{"Closed", testClosed},
	{"Eviction", testEviction},
	{"EvictionMixedSizes", testEvictionMixedSizes},
	{"LeavesFirst", testLeavesFirst},
	{"LeavesAlways", testLeavesAlways},
	{"Parallel", testParallel},
	{"CloseWhileBusy", testCloseWhileBusy},
	{"Pin", testPin},
	{"PinFull", testPinFull},
	{"PinStale", testPinStale},
	{"PinExact", testPinExact},
	{"CommitPinnedExact", testCommitPinnedExact},
	{"Reserve", testReserve},
	{"ReserveNoLeak", testReserveNoLeak},
	{"CommitPinned", testCommitPinned},
	{"View", testView},
	{"ViewSurvives", testViewSurvives},
	{"ViewParallel", testViewParallel},
	{"ViewOverClose", testViewOverClose},
	{"Reopen", testReopen},
	{"Model", testModel},
}

func newSuite(t testing.TB, cfg Config) *suite {
	if cfg.Capacity == 0 {
		cfg.Capacity = DefaultCapacity
	}
	if cfg.BlockSize == 0 {
		cfg.BlockSize = DefaultBlockSize
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	s := &suite{TB: t, cfg: cfg, dir: t.TempDir()}
	s.open()
	return s
}
