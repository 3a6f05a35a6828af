//go:build cuda && cgo && race

package cuda_test

// raceEnabled: the race detector is on, and everything takes several times as long.
const raceEnabled = true
