//go:build cuda && cgo

package fakedriver

import (
	"fmt"
	"time"
)

// The results that tests inject most, as the Driver API numbers them.
const (
	InvalidValue      = 1
	OutOfMemory       = 2
	DeviceUnavailable = 46
	NoDevice          = 100
	InvalidHandle     = 400
	NotReady          = 600
	IllegalAddress    = 700
	LaunchFailed      = 719
	NotSupported      = 801
	Unknown           = 999
)

// Control says what a loaded fake driver is to do and tells what it has seen. There is one
// driver in a process, so all Controls of a path are the same, and tests that use one must
// not run in parallel. All methods may be called in parallel.
//
// Calls go by their names, with or without _v2: "cuMemAlloc". "" is any call. A name that
// does not occur is a mistake in the test, and panics.
type Control struct{ lib library }

// Leaks is what users of the driver have not given back.
type Leaks struct {
	Contexts        int   // how often primary contexts are retained
	Allocations     int   // of device memory
	Bytes           int64 // in them
	Streams         int
	Events          int
	Registrations   int // of host memory
	HostAllocations int // of page-locked memory
	Imports         int // of other processes' memory
	// Dropped is what the ends of contexts have freed, since Reset, because nobody else
	// had. It does not count what devices held that were lost.
	Dropped int
}

// Open loads the fake driver that Build has compiled, or gives access to the one that is
// loaded from this path already.
func Open(path string) (*Control, error) {
	lib, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("fakedriver: load %s: %w", path, err)
	}
	return &Control{lib}, nil
}

// Fail lets the at-th call of that name from now, counted from 1, do nothing and return
// result, once. If it is sticky, the device of the current context is lost besides.
func (c *Control) Fail(call string, at, result int, sticky bool) {
	c.fail(call, at, result, sticky, false)
}

// FailQueued lets the at-th piece of work that calls of that name have queued fail when its
// stream comes to it. The error arrives with the event behind it, or with whoever
// synchronizes with the stream first; if it is sticky, with every call.
func (c *Control) FailQueued(call string, at, result int, sticky bool) {
	c.fail(call, at, result, sticky, true)
}

func (c *Control) fail(call string, at, result int, sticky, queued bool) {
	if c.lib.fail(call, at, result, sticky, queued) != 0 {
		panic(fmt.Sprintf("fakedriver: cannot let call %d of %q fail with %d: no such call or error, or more than 64 at once", at, call, result))
	}
}

// Pending is how many injected errors have not occurred yet.
func (c *Control) Pending() int { return c.lib.pending() }

// Delay lets every call of that name take d longer; where it queues work, the work and not
// the call. "" is all queued work. 0 ends it.
func (c *Control) Delay(call string, d time.Duration) {
	if c.lib.delay(call, d.Nanoseconds()) != 0 {
		panic(fmt.Sprintf("fakedriver: cannot delay %q by %v: no such call", call, d))
	}
}

// Hold keeps streams from beginning work that calls of that name have queued, until
// Release. "" is all of it. Synchronous copies wait, too.
func (c *Control) Hold(call string) { c.hold(call, true) }

// Release ends all Holds.
func (c *Control) Release() { c.hold("", false) }

func (c *Control) hold(call string, on bool) {
	if c.lib.hold(call, on) != 0 {
		panic(fmt.Sprintf("fakedriver: cannot hold %q: no such call", call))
	}
}

// Calls is how many calls of that name there were since Reset.
func (c *Control) Calls(call string) int {
	n := c.lib.calls(call)
	if n < 0 {
		panic(fmt.Sprintf("fakedriver: no call %q", call))
	}
	return n
}

// TotalCalls is how many calls there were since Reset: so many indices Fail("", i, …) has.
func (c *Control) TotalCalls() int { return c.lib.calls("") }

// CallNames lists the calls that are counted and that can fail. Those that name errors are
// not among them.
func (c *Control) CallNames() []string {
	var names []string
	for {
		name := c.lib.callName(len(names))
		if name == "" {
			return names
		}
		names = append(names, name)
	}
}

// Queued is how many entries streams hold that are not over.
func (c *Control) Queued() int { return int(c.lib.leaks().queued) }

// Lose lets a device be lost, with this result from all calls of its context.
func (c *Control) Lose(device, result int) { c.lib.lose(device, result) }

// Restore takes back all Fails, Delays, Holds and losses. What users hold stays theirs.
func (c *Control) Restore() { c.lib.restore() }

// Reset ends all contexts with what they hold, takes them from all threads, and makes
// everything as it was after loading, except that cuInit counts still. It waits for copies
// that are being carried out.
func (c *Control) Reset() { c.lib.reset() }

// SetMemory sets the memory of a device in bytes, which may be less than what is in use.
func (c *Control) SetMemory(device int, bytes int64) {
	if c.lib.setMemory(device, bytes) != 0 {
		panic(fmt.Sprintf("fakedriver: cannot give device %d %d bytes", device, bytes))
	}
}

// Devices sets how many devices there are, from 0 to 16. Nobody must be using one that goes.
func (c *Control) Devices(n int) {
	if c.lib.devices(n) != 0 {
		panic(fmt.Sprintf("fakedriver: cannot have %d devices", n))
	}
}

// Leaks tells what is still held.
func (c *Control) Leaks() Leaks {
	n := c.lib.leaks()
	return Leaks{
		Contexts:        int(n.contexts),
		Allocations:     int(n.allocations),
		Bytes:           int64(n.bytes),
		Streams:         int(n.streams),
		Events:          int(n.events),
		Registrations:   int(n.registrations),
		HostAllocations: int(n.host_allocations),
		Imports:         int(n.imports),
		Dropped:         int(n.dropped),
	}
}

// Misuse lists, since Reset, what users have done that a real driver punishes later or not
// at all. At most 128 are kept.
func (c *Control) Misuse() []string { return c.lib.misuse() }
