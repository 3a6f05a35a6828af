package main

import (
	"errors"
	"os"
	"runtime/pprof"
)

// inTemporary runs a benchmark with a directory for its data, which is made under dir, or
// the system's where that is empty, and removed in the end.
func inTemporary(dir string, bench func(dir string) error) error {
	path, err := os.MkdirTemp(dir, "cairn-bench-")
	if err != nil {
		return usage("--dir: %w", err)
	}
	defer os.RemoveAll(path)
	return bench(path)
}

// profiled runs f under the profiler of the processor, which writes to file; an empty name
// is no profile.
func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return usage("--profile: %w", err)
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return errors.Join(err, out.Close())
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}
