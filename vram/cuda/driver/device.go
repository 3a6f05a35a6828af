//go:build cuda && cgo

package driver

// #include <cuda.h>
import "C"

import "unsafe"

// Uuid is the device's UUID, or with MIG that of the instance; it names the same device
// in every process and after restarts, which an ordinal does not. device is an ordinal
// below cu.NumDevices. No context is needed.
func Uuid(device int) (uuid [16]byte, err error) {
	d, err := get(device)
	if err != nil {
		return uuid, err
	}
	var u C.CUuuid
	if err := result(C.cuDeviceGetUuid(&u, d)); err != nil {
		return uuid, err
	}
	return *(*[16]byte)(unsafe.Pointer(&u)), nil
}

// PCIBusID is where the device is on the bus, as domain:bus:device.function in hex:
// 0000:3b:00.0, or in capitals. No context is needed.
func PCIBusID(device int) (string, error) {
	d, err := get(device)
	if err != nil {
		return "", err
	}
	var id [32]C.char
	if err := result(C.cuDeviceGetPCIBusId(&id[0], C.int(len(id)), d)); err != nil {
		return "", err
	}
	return C.GoString(&id[0]), nil
}

func get(ordinal int) (C.CUdevice, error) {
	var d C.CUdevice
	err := result(C.cuDeviceGet(&d, C.int(ordinal)))
	return d, err
}
