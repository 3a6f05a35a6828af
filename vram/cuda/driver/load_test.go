//go:build cuda && cgo

package driver_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"cairn/vram/cuda/driver"
)

const absent = "/nonexistent/libcuda.so.1"

// scenes are what a process of the tests may do with a path; nil is success. Each
// process has come through cu's package initialiser, which ends it when cuInit fails.
var scenes = map[string]func(path string) error{
	"none":    sceneNone,
	"lacking": sceneLacking,
	"refused": sceneRefused,
	"loaded":  sceneLoaded,
	"retry":   sceneRetry,
	"batch":   sceneBatch,
	"nobatch": sceneNoBatch,
}

// asleep checks that the functions of cu and of this package do nothing but say that
// there is no driver.
func asleep() error {
	_, count := cu.NumDevices()
	_, alloc := cu.MemAlloc(1 << 20)
	_, stream := cu.MakeStream(cu.NonBlocking)
	_, _, place := driver.AddressRange(1)
	_, uuid := driver.Uuid(0)
	var b byte
	return errors.Join(
		want("cu.NumDevices", count, error(cu.NotInitialized)),
		want("cu.MemAlloc", alloc, error(cu.NotInitialized)),
		want("cu.MakeStream", stream, error(cu.NotInitialized)),
		want("AddressRange", place, error(driver.Result(3))),
		want("Uuid", uuid, error(driver.Result(3))),
		want("HostUnregister", driver.HostUnregister(unsafe.Pointer(&b)), error(driver.Result(3))),
		want("MemcpyBatchAsync", driver.MemcpyBatchAsync([]uint64{1}, []uint64{2}, []uint64{3}, 4), error(driver.Result(3))),
		want("HasBatch", driver.HasBatch(), false),
		want("Path", driver.Path(), ""),
		want("Missing", len(driver.Missing()), 0),
	)
}

func TestNoDriver(t *testing.T) { play(t, "none", absent) }

func sceneNone(path string) error {
	return errors.Join(
		says("Err before Load", driver.Err(), driver.ErrNoDriver, "Load was not called"),
		asleep(),
		says("Load", driver.Load(path), driver.ErrNoDriver, path, "install"),
		says("Err after Load", driver.Err(), driver.ErrNoDriver, path),
		asleep(),
	)
}

// TestLacking: each function that is needed, left out of the driver, is refused by name.
func TestLacking(t *testing.T) {
	var needed []string
	for _, f := range functions(t) {
		if f.required {
			needed = append(needed, f.symbols[0])
		}
	}
	if len(needed) < 20 {
		t.Fatalf("only %v are needed", needed)
	}
	play(t, "lacking", stub(t, needed[:1])+" "+needed[0])
	all := stub(t, needed)
	play(t, "lacking", all+" "+strings.Join(needed, " "))
}

func sceneLacking(words string) error {
	path := strings.Fields(words)[0]
	return errors.Join(
		says("Load", driver.Load(path), driver.ErrNoDriver, strings.Fields(words)...),
		says("Err", driver.Err(), driver.ErrNoDriver, "newer driver"),
		asleep(),
	)
}

// TestRefused: cuInit's own answer is the error, and nothing works.
func TestRefused(t *testing.T) { play(t, "refused", stub(t, nil, "INIT_RESULT=100")) }

func sceneRefused(path string) error {
	const noDevice = driver.Result(100)
	return errors.Join(
		says("Load", driver.Load(path), noDevice, path, "CUDA_ERROR_NO_DEVICE"),
		says("Err", driver.Err(), noDevice, path),
		asleep(),
	)
}

// TestLoaded: with a driver every call arrives at the symbol of today's ABI, and one
// that the driver lacks is an error of that call alone.
func TestLoaded(t *testing.T) {
	play(t, "loaded", stub(t, []string{"cuMemHostRegister_v2", "cuStreamQuery"}))
}

func sceneLoaded(path string) error {
	if err := loadAtOnce(path); err != nil {
		return err
	}
	count, errCount := cu.NumDevices()
	address, errAlloc := cu.MemAlloc(6 << 30)
	free, total, errInfo := cu.MemInfo()
	stream, errStream := cu.MakeStream(cu.NonBlocking)
	uuid, errUUID := driver.Uuid(1)
	bus, errBus := driver.PCIBusID(1)
	base, size, errRange := driver.AddressRange(0x7f0000012345)
	handle, errHandle := driver.IpcGetMemHandle(0x55)
	mapped, errMapped := driver.IpcOpenMemHandle(handle)
	handle[63]++
	_, errWrong := driver.IpcOpenMemHandle(handle)
	var b byte
	return errors.Join(
		errCount, errAlloc, errInfo, errStream, errUUID, errBus, errRange, errHandle, errMapped,
		cu.MemFree(address), cu.MemcpyHtoDAsync(address, unsafe.Pointer(&b), 1, stream), cu.MemsetD8(address, 1, 1),
		stream.Destroy(), driver.HostUnregister(unsafe.Pointer(&b)), driver.IpcCloseMemHandle(mapped),
		want("devices", count, 3),
		want("address", uint64(address), uint64(0x7f0000000000+6<<30)),
		want("free", free, int64(140<<30)),
		want("total", total, int64(141<<30)),
		want("version", cu.Version(), 12080),
		want("UUID", uuid, [16]byte{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26}),
		want("bus", bus, "0000:3b:00.0"),
		want("base", base, uint64(0x7f0000010000)),
		want("size", size, int64(5<<30)),
		want("mapped", mapped, uint64(0x7e0000000000)),
		want("wrong handle", errWrong, error(driver.Result(400))),
		want("HostRegister", driver.HostRegister(unsafe.Pointer(&b), 1, driver.RegisterPortable), error(driver.Result(500))),
		want("cu.Stream.Query", stream.Query(), error(cu.NotFound)),
		want("Missing", fmt.Sprint(driver.Missing()), "[cuMemHostRegister_v2 cuMemcpyBatchAsync_v2 cuStreamQuery]"),
		want("Result of a newer driver", driver.Result(12345).Error(), "CUDA_ERROR_OF_TOMORROW (12345): nobody knows yet"),
		want("Result of none", driver.Result(54321).Error(), "CUDA result 54321"),
	)
}

// loadAtOnce loads from many goroutines, with calls under way: all agree, cuInit is
// called once, and another driver is refused.
func loadAtOnce(path string) error {
	errs := make([]error, 16)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			if _, err := cu.NumDevices(); err != nil && err != error(cu.NotInitialized) {
				errs[i] = err
				return
			}
			errs[i] = driver.Load(path)
		})
	}
	group.Wait()
	other := driver.Load(absent)
	if other == nil || errors.Is(other, driver.ErrNoDriver) || !strings.Contains(other.Error(), "loaded already") {
		errs = append(errs, fmt.Errorf("another driver: %w", other))
	}
	return errors.Join(append(errs, driver.Err(), want("Path", driver.Path(), path))...)
}

// TestRetry: a Load that found nothing does not stand in the way of one that does.
func TestRetry(t *testing.T) { play(t, "retry", stub(t, nil)) }

func sceneRetry(path string) error {
	first := driver.Load(absent)
	second := driver.Load(path)
	_, err := cu.NumDevices()
	return errors.Join(says("first", first, driver.ErrNoDriver), second, driver.Err(), err)
}

// TestBatch: either form of the call gets its parameters, the newer is preferred, and
// without any the call says so.
func TestBatch(t *testing.T) {
	play(t, "batch", stub(t, nil))
	play(t, "batch", stub(t, nil, "BATCH_2"))
	play(t, "batch", stub(t, nil, "BATCH_2", "NO_BATCH"))
	play(t, "nobatch", stub(t, nil, "NO_BATCH"))
}

func sceneBatch(path string) error {
	dst, src, size := []uint64{0x1000, 0x1001, 0x1002}, []uint64{0x2000, 0x2001, 0x2002}, []uint64{0x3000, 0x3001, 0x3002}
	return errors.Join(
		driver.Load(path),
		want("HasBatch", driver.HasBatch(), true),
		driver.MemcpyBatchAsync(dst, src, size, 0x77),
		want("another stream", driver.MemcpyBatchAsync(dst, src, size, 0), error(driver.Result(1))),
		want("fewer sizes", driver.MemcpyBatchAsync(dst, src, size[:2], 0x77), error(driver.Result(1))),
		driver.MemcpyBatchAsync(nil, nil, nil, 0x77),
	)
}

func sceneNoBatch(path string) error {
	err := driver.Load(path)
	missing := driver.Missing()
	return errors.Join(err,
		want("HasBatch", driver.HasBatch(), false),
		want("missing", slices.Contains(missing, "cuMemcpyBatchAsync") && slices.Contains(missing, "cuMemcpyBatchAsync_v2"), true),
		want("MemcpyBatchAsync", driver.MemcpyBatchAsync([]uint64{1}, []uint64{2}, []uint64{3}, 4), error(driver.Result(500))),
	)
}
