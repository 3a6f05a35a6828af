package fakedriver

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed src
var source embed.FS

// Option changes what [Build] compiles.
type Option string

const (
	// WithoutBatch leaves out cuMemcpyBatchAsync, as drivers before CUDA 12.8 do.
	WithoutBatch Option = "-DFAKE_NO_BATCH"
	// WithoutBatchV2 leaves out its second version, as drivers before CUDA 13 do.
	WithoutBatchV2 Option = "-DFAKE_NO_BATCH_V2"
	// WithAliases gives registered host memory another address on the device, as drivers do
	// whose CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM is 0. Single copies
	// work with the host's address all the same; a batch that has one is the end of the device.
	WithAliases Option = "-DFAKE_ALIASES"
)

// ErrNoCompiler: the machine has no C compiler.
var ErrNoCompiler = errors.New("no C compiler: install gcc or clang")

// Build compiles the fake driver into dir, which must exist, and returns the path of
// libcuda.so.1 there. It takes about a second.
func Build(dir string, options ...Option) (path string, err error) {
	compiler := ""
	for _, name := range []string{"cc", "gcc", "clang"} {
		if compiler, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("fakedriver: %w", ErrNoCompiler)
	}
	src, err := os.MkdirTemp(dir, "fakedriver")
	if err != nil {
		return "", fmt.Errorf("fakedriver: %w", err)
	}
	defer os.RemoveAll(src)
	if err := os.CopyFS(src, source); err != nil {
		return "", fmt.Errorf("fakedriver: write the source: %w", err)
	}
	files, err := fs.Glob(source, "src/*.c")
	if err != nil {
		return "", fmt.Errorf("fakedriver: %w", err)
	}
	path = filepath.Join(dir, "libcuda.so.1")
	args := []string{"-shared", "-fPIC", "-O2", "-Wall", "-pthread", "-fvisibility=hidden", "-Wl,-soname,libcuda.so.1", "-o", path}
	for _, o := range options {
		args = append(args, string(o))
	}
	for _, name := range files {
		args = append(args, filepath.Join(src, name))
	}
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("fakedriver: compile: %w\n%s", err, out)
	}
	return path, nil
}
