package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"cairn/internal/doctor"
	"cairn/vram"

	"golang.org/x/sys/unix"
)

// nvidiaVersion is where the driver's kernel module says its version.
const nvidiaVersion = "proc/driver/nvidia/version"

// gpuResults looks at what GPU memory there is, and opens the device that a node would
// use, as it would; the caller closes it. The device is nil where there is none.
func (c *doctorCmd) gpuResults(root fs.FS, gpus gpuAPI) (list []doctor.Result, gpu *gpuMemory) {
	list = append(list, c.binaryResult(root, gpus))
	if gpus.open != nil && c.GPU != gpuOff && c.GPU != gpuEmulated {
		found := c.driverResults(root, gpus)
		list = append(list, found...)
		if doctor.Worst(found) == doctor.Bad { // the node would not start, and that is said
			return list, nil
		}
	}
	gpu, err := c.openDevice(gpus, c.VRAM, slog.New(slog.DiscardHandler))
	r := c.tierResult(gpu, err)
	if gpu != nil {
		if err := vramProblem(gpu.bytes, c.slotSizes()); err != nil {
			r.Level, r.Found, r.Advice = doctor.Bad, err.Error(), "the node would not start: change --vram or --classes"
		}
	}
	return append(list, r), gpu
}

// binaryResult says what this binary can use, and what it leaves unused.
func (c *doctorCmd) binaryResult(root fs.FS, gpus gpuAPI) doctor.Result {
	r := doctor.Result{Group: doctor.GPU, Name: "binary", Found: gpus.support}
	if gpus.open != nil {
		return r
	}
	r.Found = "no GPU support; `make cuda` builds a binary that has it"
	if module, err := fs.ReadFile(root, nvidiaVersion); err == nil {
		r.Level, r.Found = doctor.Warn, "no GPU support, though this machine has an NVIDIA driver "+moduleVersion(module)
		r.Advice = "to use its GPUs run the binary that `make cuda` builds"
	}
	return r
}

// driverResults loads the driver and lists its GPUs.
func (c *doctorCmd) driverResults(root fs.FS, gpus gpuAPI) []doctor.Result {
	r := doctor.Result{Group: doctor.GPU, Name: "driver"}
	module, _ := fs.ReadFile(root, nvidiaVersion)
	list, err := c.list(gpus)
	if path, version, versionErr := gpus.driver(); versionErr == nil {
		r.Found = fmt.Sprintf("%s, CUDA %s", path, cudaVersionText(version))
		if v := moduleVersion(module); v != "" {
			r.Found += ", kernel module " + v
		}
	}
	if err != nil {
		if r.Found != "" {
			r.Found += ": "
		}
		r.Found += driverError(err)
		r.Level, r.Advice = doctor.Warn, "in a container, `docker run --gpus all`; elsewhere install the driver, or name it with --gpu-driver; --gpu emulated ends this"
		if c.GPU != gpuAuto || c.GPUDriver != "" {
			r.Level = doctor.Bad
		}
		return []doctor.Result{r}
	}
	results := []doctor.Result{r}
	for _, g := range list {
		results = append(results, doctor.Result{
			Group: doctor.GPU, Name: fmt.Sprintf("GPU %d", g.Ordinal),
			Found: fmt.Sprintf("%s, %s, compute %s, %s, PCI %s", g.Name, bytesText(g.Memory), g.Compute, g.UUID, g.PCI), Values: map[string]int64{"memory_bytes": g.Memory},
		})
	}
	return results
}

// driverError is an error of loading the driver without the name of its package, and
// without the advice that is there for those who do not ask a doctor.
func driverError(err error) string {
	text, _, _ := strings.Cut(err.Error(), " (install")
	return strings.TrimPrefix(text, "cuda: ")
}

// moduleVersion finds 580.65.06 in "NVRM version: NVIDIA UNIX x86_64 Kernel Module
// 580.65.06 Sun Jul …".
func moduleVersion(text []byte) string {
	line, _, _ := strings.Cut(string(text), "\n")
	for word := range strings.FieldsSeq(line) {
		if strings.Count(word, ".") > 0 && strings.Trim(word, "0123456789.") == "" {
			return word
		}
	}
	return ""
}

// tierResult says what the node's GPU memory would be.
func (c *doctorCmd) tierResult(gpu *gpuMemory, err error) doctor.Result {
	r := doctor.Result{Group: doctor.GPU, Name: "GPU memory"}
	switch {
	case err != nil:
		r.Level, r.Found, r.Advice = doctor.Bad, err.Error(), "the node would not start: change --gpu or --vram"
	case gpu == nil:
		r.Found = "none: --gpu off or --vram 0"
	case gpu.emulated:
		r.Found = fmt.Sprintf("%s, emulated in host memory", bytesText(gpu.bytes))
	default:
		r.Found = fmt.Sprintf("%s of %s", bytesText(gpu.bytes), gpu.dev.Name())
		if free, total, err := gpu.dev.Memory(); err == nil {
			r.Found += fmt.Sprintf(", which has %s free of %s", bytesText(free), bytesText(total))
			r.Values = map[string]int64{"free_bytes": free, "total_bytes": total}
		}
	}
	return r
}

// tryRegister shows host memory to the device and takes it back; nil for a device to
// which that makes no difference.
func (m *gpuMemory) tryRegister() func(n int) error {
	r, ok := m.dev.(vram.Registrar)
	if !ok {
		return nil
	}
	return func(n int) error {
		mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		if err = r.Register(mem); err == nil {
			err = r.Unregister(mem)
		}
		return errors.Join(err, unix.Munmap(mem))
	}
}
