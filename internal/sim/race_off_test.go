//go:build !race

package sim

// raceEnabled: the race detector is on, and nothing is as fast as it should be.
const raceEnabled = false
