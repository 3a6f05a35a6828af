//go:build !(cuda && cgo)

package main

// gpus is what a static binary can do with GPUs.
func gpus() gpuAPI { return gpuAPI{support: "GPU memory emulated"} }
