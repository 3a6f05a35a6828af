//go:build cuda && cgo

package main

import (
	"cairn/vram"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
)

// gpus is what a binary with cgo can do with GPUs of NVIDIA's.
func gpus() gpuAPI {
	return gpuAPI{support: "GPUs by CUDA", load: cuda.Load, driver: cudaDriver, devices: cudaDevices, open: cudaOpen}
}

func cudaDriver() (path string, version int, err error) {
	version, err = cuda.DriverVersion()
	return driver.Path(), version, err
}

func cudaDevices() ([]gpuInfo, error) {
	found, err := cuda.Devices()
	if err != nil {
		return nil, err
	}
	list := make([]gpuInfo, len(found))
	for i, d := range found {
		list[i] = gpuInfo{Ordinal: d.Ordinal, Name: d.Name, UUID: d.UUID, PCI: d.PCI, Compute: d.Compute, Memory: d.Memory}
	}
	return list, nil
}

func cudaOpen(ordinal int) (vram.Device, error) {
	dev, err := cuda.Open(cuda.Config{Ordinal: ordinal})
	if err != nil {
		return nil, err // not a nil *cuda.Device in an interface
	}
	return dev, nil
}
