//go:build cuda && cgo

package driver

/*
#cgo CFLAGS: -I${SRCDIR}/include -std=gnu11 -Wall -Wextra -fvisibility=hidden
#cgo LDFLAGS: -ldl
#include "driver.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// Library is what Load("") loads, found as the dynamic loader finds libraries.
const Library = "libcuda.so.1"

// ErrNoDriver: no driver has been loaded. The error that wraps it says why and what to do.
var ErrNoDriver = errors.New("no CUDA driver")

// errNotCalled is Err's answer before the first Load.
var errNotCalled = fmt.Errorf("%w: Load was not called", ErrNoDriver)

// state is what the last Load came to; its lock is held while one loads. There is one
// driver in a process, as there is one set of cu* functions in it.
var state = struct {
	sync.Mutex
	asked string // what Load was called with when it succeeded
	path  string // what that was
	err   error
}{err: errNotCalled}

// Load loads the driver from path, a file or the name of a library; "" is Library. It
// calls cuInit and, when that succeeds, makes every function of gorgonia.org/cu and of
// this package work. There is one driver in a process: calling Load again with the same
// path does nothing, and with another path is an error that leaves the first in place.
// After an error it can be called again. Safe for concurrent use; takes up to seconds,
// as the driver starts.
//
// Errors: ErrNoDriver when there is no such library or it lacks a function that cannot
// be done without, a Result when cuInit refused. Their texts do not name this package:
// package vram/cuda, through which they come, puts its own name before them.
func Load(path string) error {
	if path == "" {
		path = Library
	}
	state.Lock()
	defer state.Unlock()
	if state.err == nil {
		if path == state.asked || path == state.path {
			return nil
		}
		return fmt.Errorf("load %s: %s is loaded already, and a process has one driver", path, state.path)
	}
	state.path, state.err = load(path)
	if state.err == nil {
		state.asked = path
	}
	return state.err
}

func load(path string) (string, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var text [4096]C.char
	var result C.CUresult
	outcome := C.cairn_driver_load(name, &result, &text[0], C.size_t(len(text)))
	said := C.GoString(&text[0])
	switch outcome {
	case C.CAIRN_LOADED:
		return said, nil
	case C.CAIRN_NO_LIBRARY:
		return "", fmt.Errorf("%w: %s (install NVIDIA's driver, give the container its GPUs, or name the driver's library)", ErrNoDriver, said)
	case C.CAIRN_NO_FUNCTION:
		return "", fmt.Errorf("%w: %s lacks %s (install a newer driver)", ErrNoDriver, path, said)
	default:
		return "", fmt.Errorf("start %s: %w", said, Result(result))
	}
}

// Err is nil once a driver is loaded and initialised; else why there is none, as Load
// has returned it: ErrNoDriver or a Result. It waits for a Load that is under way.
func Err() error {
	state.Lock()
	defer state.Unlock()
	return state.err
}

// Path is the file that the driver was loaded from; "" when there is none.
func Path() string {
	state.Lock()
	defer state.Unlock()
	return state.path
}

// Missing are the symbols that the loaded driver lacks, of those that Load looks for:
// what calls them gets CUDA_ERROR_NOT_FOUND. Two symbols apart by a space are one
// function's, of which the driver has neither. Nil without a driver.
func Missing() []string {
	var names []string
	for i := C.size_t(0); ; i++ {
		name := C.cairn_driver_missing(i)
		if name == nil {
			return names
		}
		names = append(names, C.GoString(name))
	}
}
