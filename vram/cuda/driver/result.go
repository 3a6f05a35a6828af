//go:build cuda && cgo

package driver

// #include <cuda.h>
import "C"

import "fmt"

// Result is a CUresult other than success, as an error; errors.Is compares codes. The
// codes and what they mean are in "NVIDIA CUDA Driver API", Data types used by CUDA
// driver, enum CUresult.
type Result int32

// Error gives the code's name, its number and what it says, with what to do where
// that is clear.
func (r Result) Error() string {
	if known, ok := results[r]; ok {
		return fmt.Sprintf("%s (%d): %s", known.name, int32(r), known.text)
	}
	// A newer driver knows codes that this table does not.
	var name, text *C.char
	if C.cuGetErrorName(C.CUresult(r), &name) == C.CUDA_SUCCESS && name != nil &&
		C.cuGetErrorString(C.CUresult(r), &text) == C.CUDA_SUCCESS && text != nil {
		return fmt.Sprintf("%s (%d): %s", C.GoString(name), int32(r), C.GoString(text))
	}
	return fmt.Sprintf("CUDA result %d", int32(r))
}

// result is nil for success.
func result(r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return Result(r)
}

type explained struct{ name, text string }

// results has what a cache meets. It is here, and not asked of the driver, for the
// codes that say that there is none.
var results = map[Result]explained{
	C.CUDA_ERROR_INVALID_VALUE:                  {"CUDA_ERROR_INVALID_VALUE", "an argument is out of its range"},
	C.CUDA_ERROR_OUT_OF_MEMORY:                  {"CUDA_ERROR_OUT_OF_MEMORY", "there is no memory left for it"},
	C.CUDA_ERROR_NOT_INITIALIZED:                {"CUDA_ERROR_NOT_INITIALIZED", "no driver has been loaded"},
	C.CUDA_ERROR_DEINITIALIZED:                  {"CUDA_ERROR_DEINITIALIZED", "the driver is shutting down"},
	C.CUDA_ERROR_STUB_LIBRARY:                   {"CUDA_ERROR_STUB_LIBRARY", "the library is the toolkit's stub for linking; name the driver's own, or take the stub off the loader's path"},
	C.CUDA_ERROR_DEVICE_UNAVAILABLE:             {"CUDA_ERROR_DEVICE_UNAVAILABLE", "another process has the device for itself, or it is prohibited"},
	C.CUDA_ERROR_NO_DEVICE:                      {"CUDA_ERROR_NO_DEVICE", "the driver finds no GPU; is one in this machine, and in this container?"},
	C.CUDA_ERROR_INVALID_DEVICE:                 {"CUDA_ERROR_INVALID_DEVICE", "there is no device of that number"},
	C.CUDA_ERROR_DEVICE_NOT_LICENSED:            {"CUDA_ERROR_DEVICE_NOT_LICENSED", "the device has no licence for this"},
	C.CUDA_ERROR_INVALID_CONTEXT:                {"CUDA_ERROR_INVALID_CONTEXT", "no usable context is current on this thread"},
	C.CUDA_ERROR_MAP_FAILED:                     {"CUDA_ERROR_MAP_FAILED", "the memory could not be mapped"},
	C.CUDA_ERROR_UNMAP_FAILED:                   {"CUDA_ERROR_UNMAP_FAILED", "the memory could not be unmapped"},
	C.CUDA_ERROR_ALREADY_MAPPED:                 {"CUDA_ERROR_ALREADY_MAPPED", "the memory is mapped already"},
	C.CUDA_ERROR_ECC_UNCORRECTABLE:              {"CUDA_ERROR_ECC_UNCORRECTABLE", "the device's memory has an error that cannot be corrected"},
	C.CUDA_ERROR_PEER_ACCESS_UNSUPPORTED:        {"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "these devices cannot reach each other's memory"},
	C.CUDA_ERROR_NVLINK_UNCORRECTABLE:           {"CUDA_ERROR_NVLINK_UNCORRECTABLE", "the link between devices has an error that cannot be corrected"},
	C.CUDA_ERROR_CONTAINED:                      {"CUDA_ERROR_CONTAINED", "the device had an error that was contained; the process must start anew"},
	C.CUDA_ERROR_OPERATING_SYSTEM:               {"CUDA_ERROR_OPERATING_SYSTEM", "a call of the operating system was refused; is locked memory limited (ulimit -l)?"},
	C.CUDA_ERROR_INVALID_HANDLE:                 {"CUDA_ERROR_INVALID_HANDLE", "the stream, event or handle is not valid"},
	C.CUDA_ERROR_ILLEGAL_STATE:                  {"CUDA_ERROR_ILLEGAL_STATE", "something that is needed is not in the right state"},
	C.CUDA_ERROR_NOT_FOUND:                      {"CUDA_ERROR_NOT_FOUND", "the driver has no such function or name; a newer driver may"},
	C.CUDA_ERROR_NOT_READY:                      {"CUDA_ERROR_NOT_READY", "not all of it is done yet"},
	C.CUDA_ERROR_ILLEGAL_ADDRESS:                {"CUDA_ERROR_ILLEGAL_ADDRESS", "the device was given an address that is not mapped; the process must start anew"},
	C.CUDA_ERROR_LAUNCH_TIMEOUT:                 {"CUDA_ERROR_LAUNCH_TIMEOUT", "the device took too long; the process must start anew"},
	C.CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE:         {"CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", "the device's primary context is in use already"},
	C.CUDA_ERROR_CONTEXT_IS_DESTROYED:           {"CUDA_ERROR_CONTEXT_IS_DESTROYED", "the context is destroyed"},
	C.CUDA_ERROR_TOO_MANY_PEERS:                 {"CUDA_ERROR_TOO_MANY_PEERS", "no more devices can reach this one"},
	C.CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED: {"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "some of the memory is registered already"},
	C.CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED:     {"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "the memory is not registered"},
	C.CUDA_ERROR_HARDWARE_STACK_ERROR:           {"CUDA_ERROR_HARDWARE_STACK_ERROR", "the device had an error; the process must start anew"},
	C.CUDA_ERROR_MISALIGNED_ADDRESS:             {"CUDA_ERROR_MISALIGNED_ADDRESS", "the device was given an address that is not aligned; the process must start anew"},
	C.CUDA_ERROR_LAUNCH_FAILED:                  {"CUDA_ERROR_LAUNCH_FAILED", "the device had an error; the process must start anew"},
	C.CUDA_ERROR_NOT_PERMITTED:                  {"CUDA_ERROR_NOT_PERMITTED", "this process may not do that"},
	C.CUDA_ERROR_NOT_SUPPORTED:                  {"CUDA_ERROR_NOT_SUPPORTED", "this system or device cannot do that"},
	C.CUDA_ERROR_SYSTEM_NOT_READY:               {"CUDA_ERROR_SYSTEM_NOT_READY", "the system is not ready for CUDA; is the fabric manager running?"},
	C.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:         {"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the kernel's part of the driver is of another version; restart the machine after an update"},
	C.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: {"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", "the compatibility library does not serve this GPU"},
	C.CUDA_ERROR_TIMEOUT:                        {"CUDA_ERROR_TIMEOUT", "it took too long"},
	C.CUDA_ERROR_UNKNOWN:                        {"CUDA_ERROR_UNKNOWN", "the driver gives no reason; the kernel's log may"},
}
