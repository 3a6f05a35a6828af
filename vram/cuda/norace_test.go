//go:build cuda && cgo && !race

package cuda_test

const raceEnabled = false
