//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"reflect"

	"gorgonia.org/cu"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/cuda/driver"
)

// ErrNoDriver: there is no usable CUDA driver on this machine, or Load was not called.
var ErrNoDriver = driver.ErrNoDriver

// Results of the driver that mean something of their own here, by the numbers of the
// driver API's documentation, CUresult.
const (
	resultOutOfMemory        driver.Result = 2
	resultInvalidDevice      driver.Result = 101
	resultInvalidContext     driver.Result = 201
	resultContextIsDestroyed driver.Result = 709
	resultAlreadyRegistered  driver.Result = 712
	resultNotSupported       driver.Result = 801
	resultUnknown            driver.Result = 999
)

// final are the results after which a context is of no use: those of which the
// documentation says that the process must end to use CUDA again, those of a device or context
// that is gone, and the unknown error, which is what drivers say when a GPU has left its bus and
// after which nothing can be vouched for.
var final = map[driver.Result]bool{
	4:                        true, // deinitialized
	46:                       true, // device unavailable
	100:                      true, // no device
	resultInvalidDevice:      true,
	resultInvalidContext:     true, // reset by another part of the process
	214:                      true, // uncorrectable ECC error
	220:                      true, // uncorrectable NVLink error
	226:                      true, // contained exception
	700:                      true, // illegal address
	702:                      true, // launch timeout
	resultContextIsDestroyed: true,
	710:                      true, // assert
	714:                      true, // hardware stack error
	715:                      true, // illegal instruction
	716:                      true, // misaligned address
	717:                      true, // invalid address space
	718:                      true, // invalid program counter
	719:                      true, // launch failed
	721:                      true, // tensor memory leak
	802:                      true, // system not ready
	805:                      true, // MPS: connection failed
	806:                      true, // MPS: remote procedure failed
	807:                      true, // MPS: server not ready
	810:                      true, // MPS: client terminated
	911:                      true, // external device
	resultUnknown:            true,
}

// result is what the driver said. cu's type for it is not exported; its kind is int.
func result(err error) (driver.Result, bool) {
	var r driver.Result
	if errors.As(err, &r) {
		return r, true
	}
	if v := reflect.ValueOf(err); v.IsValid() && v.Kind() == reflect.Int {
		return driver.Result(v.Int()), true
	}
	return 0, false
}

// is tells whether the driver said r.
func is(err error, r driver.Result) bool {
	got, ok := result(err)
	return ok && got == r
}

// plain is err as a driver.Result, if it is one.
func plain(err error) error {
	if r, ok := result(err); ok {
		return r
	}
	return err
}

// fail turns what the driver answered to a call into an error of this package, and takes note
// if the device is lost.
func (d *Device) fail(op string, err error) error {
	r, ok := result(err)
	switch {
	case !ok, errors.Is(err, vram.ErrInvalidHandle), errors.Is(err, tier.ErrNotShared):
		return fmt.Errorf("cuda: %s: %w", op, err)
	case final[r]:
		d.lost.Store(true)
		return fmt.Errorf("cuda: %s on %s: %w: %w", op, d.name, r, tier.ErrDeviceLost)
	case r == resultOutOfMemory:
		return fmt.Errorf("cuda: %s on %s: %w: %w", op, d.name, r, vram.ErrOutOfMemory)
	default:
		return fmt.Errorf("cuda: %s on %s: %w", op, d.name, r)
	}
}

// notReady tells whether err says that an event has not completed, which is no error.
func notReady(err error) bool { return err == error(cu.NotReady) }
