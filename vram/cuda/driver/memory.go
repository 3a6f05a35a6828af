//go:build cuda && cgo

package driver

// #include "driver.h"
import "C"

import "unsafe"

// What gorgonia.org/cu lacks of memory management. As with cu's functions, a context
// must be current on the calling thread (runtime.LockOSThread, cu.SetCurrentContext),
// any number of threads may call at once, and an error is the driver's Result:
// CUDA_ERROR_NOT_INITIALIZED without a driver, CUDA_ERROR_NOT_FOUND when it is too old.
// Addresses on a device are unified addresses as in cu.DevicePtr.

// Flags of HostRegister.
const (
	RegisterPortable  uint32 = C.CU_MEMHOSTREGISTER_PORTABLE  // pinned for the contexts of all devices
	RegisterDeviceMap uint32 = C.CU_MEMHOSTREGISTER_DEVICEMAP // kernels can reach it as well
	RegisterReadOnly  uint32 = C.CU_MEMHOSTREGISTER_READ_ONLY // the device will only read it
)

// HostRegister page-locks n bytes at p, so that copies from and to them run in the
// background and at full speed. They must not be Go's heap, and stay mapped until
// HostUnregister. Takes time in proportion to n.
func HostRegister(p unsafe.Pointer, n uintptr, flags uint32) error {
	return result(C.cuMemHostRegister(p, C.size_t(n), C.uint(flags)))
}

// HostUnregister undoes the HostRegister of the range that begins at p.
func HostUnregister(p unsafe.Pointer) error {
	return result(C.cuMemHostUnregister(p))
}

// IpcGetMemHandle names the allocation that begins at ptr to other processes of this
// machine. The handle is good until the allocation is freed.
func IpcGetMemHandle(ptr uint64) (handle [64]byte, err error) {
	var h C.CUipcMemHandle
	err = result(C.cuIpcGetMemHandle(&h, C.CUdeviceptr(ptr)))
	if err == nil {
		handle = *(*[64]byte)(unsafe.Pointer(&h))
	}
	return handle, err
}

// IpcOpenMemHandle maps the allocation of another process, which must not free it
// before IpcCloseMemHandle, and returns its address here. A process cannot open what is
// its own.
func IpcOpenMemHandle(handle [64]byte) (uint64, error) {
	h := *(*C.CUipcMemHandle)(unsafe.Pointer(&handle))
	var ptr C.CUdeviceptr
	err := result(C.cuIpcOpenMemHandle(&ptr, h, C.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS))
	return uint64(ptr), err
}

// IpcCloseMemHandle undoes one IpcOpenMemHandle.
func IpcCloseMemHandle(ptr uint64) error {
	return result(C.cuIpcCloseMemHandle(C.CUdeviceptr(ptr)))
}

// AddressRange returns where the allocation that ptr lies in begins, and its size in
// bytes. Unlike cu.DevicePtr.AddressRange it works on a mapped allocation of another
// process as well as any, and its error is a Result.
func AddressRange(ptr uint64) (base uint64, size int64, err error) {
	var b C.CUdeviceptr
	var n C.size_t
	err = result(C.cuMemGetAddressRange(&b, &n, C.CUdeviceptr(ptr)))
	return uint64(b), int64(n), err
}

// HasBatch tells whether MemcpyBatchAsync can work: the driver is of CUDA 12.8 or later.
func HasBatch() bool { return C.cairn_driver_has_batch() != 0 }

// MemcpyBatchAsync queues on stream copies of size[i] bytes from src[i] to dst[i], host
// or device addresses each, with one call. The copies run in any order among each
// other, and after what the stream holds before; ranges of one batch must not overlap.
// The slices are free again when it returns; the memory is not until the stream is
// there. stream is a CUstream and not the NULL stream, which the driver refuses. An
// error means that no copy, or an unknown part of them, is queued: only a stream that
// has been synchronised tells. No copies are no error.
//
// The driver has two forms of the call, and either is used: cuMemcpyBatchAsync of CUDA
// 12.8 and cuMemcpyBatchAsync_v2 of CUDA 13.
func MemcpyBatchAsync(dst, src, size []uint64, stream uintptr) error {
	if len(dst) != len(src) || len(dst) != len(size) {
		return Result(C.CUDA_ERROR_INVALID_VALUE)
	}
	if len(dst) == 0 {
		return nil
	}
	return result(C.cairn_driver_batch((*C.CUdeviceptr)(&dst[0]), (*C.CUdeviceptr)(&src[0]),
		(*C.size_t)(&size[0]), C.size_t(len(dst)), C.uintptr_t(stream)))
}
