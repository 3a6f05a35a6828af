package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/tier"
	"cairn/vram"
	"cairn/vram/emulated"
)

// gpuFlags say which device a node's GPU memory is on.
type gpuFlags struct {
	GPU       string `name:"gpu" help:"Device of GPU memory: auto (the first GPU that can be used, else emulated), emulated (a stand-in in host memory), off, or the number or UUID of a GPU. Only a binary made by 'make cuda' uses GPUs." default:"auto"`
	GPUDriver string `name:"gpu-driver" help:"CUDA driver to load; default libcuda.so.1, as the system finds it." type:"path" placeholder:"FILE"`
}

// Words of --gpu that are no GPU.
const (
	gpuAuto     = "auto"
	gpuOff      = "off"
	gpuEmulated = "emulated"
)

// validate tells a mistake before anything is opened.
func (f gpuFlags) validate(gpus gpuAPI) error {
	if f.GPUDriver != "" && gpus.open == nil {
		return fmt.Errorf("--gpu-driver: %w", errNoGPUSupport)
	}
	switch f.GPU {
	case gpuAuto, gpuOff, gpuEmulated:
		return nil
	}
	if _, err := strconv.ParseUint(f.GPU, 10, 16); err != nil && uuidOf(f.GPU) == f.GPU {
		return fmt.Errorf("--gpu %q: want %s, %s, %s, a number such as 0, or a UUID that begins with %s or %s",
			f.GPU, gpuAuto, gpuOff, gpuEmulated, uuidPrefix, instancePrefix)
	}
	if gpus.open == nil {
		return fmt.Errorf("--gpu %s: %w", f.GPU, errNoGPUSupport)
	}
	return nil
}

// uuidPrefix begins the UUID of a GPU, and instancePrefix that of an instance of one (MIG), as
// nvidia-smi -L shows them. The driver gives the UUID without, and does not tell which it is.
const (
	uuidPrefix     = "GPU-"
	instancePrefix = "MIG-"
)

// uuidOf is a UUID without its prefix.
func uuidOf(text string) string {
	return strings.TrimPrefix(strings.TrimPrefix(text, uuidPrefix), instancePrefix)
}

// errNoGPUSupport is the answer of a binary without cgo.
var errNoGPUSupport = errors.New("this binary has no GPU support: build one that has with 'make cuda', or leave --gpu and --gpu-driver out")

// gpuInfo is one GPU of the machine.
type gpuInfo struct {
	Ordinal int    `json:"ordinal"`
	Name    string `json:"name"`
	UUID    string `json:"uuid"`
	PCI     string `json:"pci,omitempty"`
	Compute string `json:"compute,omitempty"` // capability, such as 9.0
	Memory  int64  `json:"memory"`            // bytes
}

// gpuAPI is what this binary can do with GPUs. Its functions are nil where the
// binary has no GPU support; see gpu_cuda.go and gpu_emulated.go.
type gpuAPI struct {
	// support says in a word or two what the binary has.
	support string
	// load finds the driver, "" being the system's. Nothing else works before.
	load func(path string) error
	// driver says what load has found: where, and the CUDA version that it
	// speaks, such as 13000 for 13.0.
	driver  func() (path string, version int, err error)
	devices func() ([]gpuInfo, error)
	// open gives a device, which the caller closes.
	open func(ordinal int) (vram.Device, error)
}

// vramSize is the size of GPU memory: a size, or "auto".
type vramSize int64

// vramAuto is the vramSize that follows from the device.
const vramAuto vramSize = -1

const (
	// emulatedBytes is the memory of an emulated device where --vram is auto.
	emulatedBytes = 256 << 20
	// gpuShare: where --vram is auto a node takes one part in so many of what is
	// free on a GPU when it starts. The rest is for the engine, whichever
	// starts first, and for other nodes.
	gpuShare = 4
	// leastGPUBytes is the least GPU memory that a node starts with: some slots.
	leastGPUBytes = 1 << 20
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *vramSize) UnmarshalText(text []byte) error {
	if string(text) == gpuAuto {
		*s = vramAuto
		return nil
	}
	var n size
	if err := n.UnmarshalText(text); err != nil {
		return fmt.Errorf("%w, or auto", err)
	}
	*s = vramSize(n)
	return nil
}

// String is the size with a unit, or auto.
func (s vramSize) String() string {
	if s == vramAuto {
		return gpuAuto
	}
	return bytesText(int64(s))
}

// arg is what gives s exactly on a command line.
func (s vramSize) arg() string {
	if s == vramAuto {
		return gpuAuto
	}
	return strconv.FormatInt(int64(s), 10)
}

// vramProblem says why a node cannot start with so many bytes of GPU memory and slots of these
// sizes, nil being the default.
func vramProblem(bytes int64, classes []int) error {
	fit := deviceClasses(classes, int(bytes))
	err := vram.Config{Capacity: bytes, Classes: fit}.Validate()
	switch {
	case err == nil:
		return nil
	case fit != nil:
		return fmt.Errorf("--vram: %w", err)
	case classes == nil:
		classes = vram.DefaultClasses()
	}
	return fmt.Errorf("--vram: %s has no room for slots, want at least %s: four of the smallest of --classes",
		bytesText(bytes), bytesText(classShare*int64(slices.Min(classes))))
}

// gpuMemory is a device and how much of it a node uses.
type gpuMemory struct {
	dev      vram.Device
	bytes    int64
	emulated bool
}

// openDevice chooses the device for want bytes of GPU memory and opens it; the
// caller closes it. It is nil where none is wanted.
func (f gpuFlags) openDevice(gpus gpuAPI, want vramSize, log *slog.Logger) (*gpuMemory, error) {
	switch {
	case f.GPU == gpuOff || want == 0:
		return nil, nil
	case f.GPU == gpuEmulated:
		return openEmulated(want)
	case f.GPU != gpuAuto:
		dev, err := f.openNamed(gpus)
		if err != nil {
			return nil, err
		}
		return useGPU(dev, want, log)
	case gpus.open == nil:
		log.Debug("GPU memory is emulated in host memory")
		return openEmulated(want)
	}
	dev, err := f.openFirst(gpus, log)
	if err != nil && f.GPUDriver != "" { // who names a driver counts on it
		return nil, fmt.Errorf("--gpu-driver %s: %w", f.GPUDriver, err)
	}
	if err != nil {
		log.Warn("no GPU is used: GPU memory is emulated in host memory", "reason", err, "hint", gpuHint)
		return openEmulated(want)
	}
	return useGPU(dev, want, log)
}

// gpuHint is what to do where auto finds no GPU.
const gpuHint = "--gpu emulated or --gpu off ends this message"

// openFirst opens the first GPU that lets itself be opened: another process may
// have one for itself.
func (f gpuFlags) openFirst(gpus gpuAPI, log *slog.Logger) (vram.Device, error) {
	list, err := f.list(gpus)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, g := range list {
		dev, err := gpus.open(g.Ordinal)
		if err == nil {
			return dev, nil
		}
		log.Debug("a GPU cannot be used", "gpu", g.Ordinal, "err", err)
		errs = append(errs, fmt.Errorf("GPU %d: %w", g.Ordinal, err))
	}
	return nil, errors.Join(errs...)
}

// openNamed opens the GPU that --gpu names.
func (f gpuFlags) openNamed(gpus gpuAPI) (vram.Device, error) {
	list, err := f.list(gpus)
	if err != nil {
		return nil, fmt.Errorf("--gpu %s: %w", f.GPU, err)
	}
	ordinal, err := findGPU(list, f.GPU)
	if err != nil {
		return nil, usage("--gpu %s: %w", f.GPU, err)
	}
	dev, err := gpus.open(ordinal)
	if err != nil {
		return nil, fmt.Errorf("--gpu %s: %w", f.GPU, err)
	}
	return dev, nil
}

// list loads the driver and names at least one GPU.
func (f gpuFlags) list(gpus gpuAPI) ([]gpuInfo, error) {
	if err := gpus.load(f.GPUDriver); err != nil {
		return nil, err
	}
	list, err := gpus.devices()
	if err == nil && len(list) == 0 {
		err = errors.New("the driver has no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES")
	}
	return list, err
}

// findGPU is the ordinal of the GPU with this number, or whose UUID begins so.
func findGPU(list []gpuInfo, name string) (int, error) {
	n, err := strconv.Atoi(name)
	byNumber := err == nil
	found, have := []int{}, []string{}
	for _, g := range list {
		if byNumber && g.Ordinal == n || !byNumber && strings.HasPrefix(strings.ToLower(uuidOf(g.UUID)), strings.ToLower(uuidOf(name))) {
			found = append(found, g.Ordinal)
		}
		have = append(have, fmt.Sprintf("%d (%s, %s)", g.Ordinal, g.Name, g.UUID))
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, fmt.Errorf("there is no such GPU; there are %s", strings.Join(have, ", "))
	}
	return 0, fmt.Errorf("more than one UUID begins so; there are %s", strings.Join(have, ", "))
}

func openEmulated(want vramSize) (*gpuMemory, error) {
	if want == vramAuto {
		want = emulatedBytes
	}
	bytes := int64(want) / vram.SlotAlignment * vram.SlotAlignment
	dev, err := emulated.New(emulated.Config{Memory: bytes})
	if err != nil {
		return nil, usageError{err}
	}
	return &gpuMemory{dev: dev, bytes: bytes, emulated: true}, nil
}

func useGPU(dev vram.Device, want vramSize, log *slog.Logger) (*gpuMemory, error) {
	free, total, err := dev.Memory()
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	if want == vramAuto {
		want = vramSize(free / gpuShare)
	}
	bytes := int64(want) / vram.SlotAlignment * vram.SlotAlignment
	if bytes > free || bytes < leastGPUBytes {
		what := "too much"
		if bytes < leastGPUBytes {
			what = "too little"
		}
		return nil, errors.Join(usage("--vram %v is %s: %s has %s free of %s; give another size, stop what else runs there, or choose another device with --gpu",
			want, what, dev.Name(), bytesText(free), bytesText(total)), dev.Close())
	}
	log.Info("GPU memory", "device", dev.Name(), "bytes", bytes, "free", free, "total", total)
	return &gpuMemory{dev: dev, bytes: bytes}, nil
}

// pageLock is what the host tier shows its memory to: a device to which
// page-locked memory makes a difference locks it. Without that copies still work,
// through memory of the driver, so a refusal ends nothing.
func (m *gpuMemory) pageLock(log *slog.Logger) func([]byte) (func() error, error) {
	if m == nil {
		return nil
	}
	r, ok := m.dev.(vram.Registrar)
	if !ok {
		return nil
	}
	return func(mem []byte) (func() error, error) {
		const tick = 100 * time.Microsecond
		began := time.Now()
		if err := r.Register(mem); err != nil {
			log.Warn("host memory is not page-locked: copies to and from the GPU take a detour", "bytes", len(mem), "err", err,
				"hint", "lower --host, or raise the limit of locked memory: ulimit -l unlimited, LimitMEMLOCK=infinity, docker run --ulimit memlock=-1")
			return nil, nil
		}
		if !m.emulated {
			log.Info("host memory is page-locked", "bytes", len(mem), "took", time.Since(began).Round(tick))
		}
		return func() error {
			err := r.Unregister(mem)
			if errors.Is(err, tier.ErrClosed) || errors.Is(err, tier.ErrDeviceLost) {
				return nil // the device has let go of it already
			}
			return err
		}, nil
	}
}

// cudaVersionText is a CUDA version as people write it: 12080 is 12.8.
func cudaVersionText(v int) string {
	const major, minor = 1000, 10
	return strconv.Itoa(v/major) + "." + strconv.Itoa(v%major/minor)
}
