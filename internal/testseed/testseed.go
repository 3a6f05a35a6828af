// Package testseed gives tests that draw at random their seeds.
//
// Without more said, a test has the same seed in every run, so that what fails after a
// change failed because of it, on whatever machine. CAIRN_TEST_SEED=random draws another
// in every run, to look for what nobody thought of; `make long` does. A number repeats a run that
// failed: its seed is in the log.
package testseed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Env is the environment variable that chooses seeds: "random", a number, or empty.
const Env = "CAIRN_TEST_SEED"

// fixed is the seed of a run of which nothing else is said.
const fixed = 1

// Of is the seed of a test. The test's log tells it, and how to use it again.
func Of(t testing.TB) uint64 {
	t.Helper()
	seed, err := choose(os.Getenv(Env))
	if err != nil {
		t.Fatalf("%s: want random or a number: %v", Env, err)
	}
	t.Logf("%s=%d", Env, seed)
	return seed
}

func choose(text string) (uint64, error) {
	switch text {
	case "":
		return fixed, nil
	case "random":
		return rand.Uint64(), nil
	}
	return strconv.ParseUint(text, 10, 64)
}
