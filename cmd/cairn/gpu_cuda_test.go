//go:build cuda && cgo

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"cairn/block"
	"cairn/client"
	"cairn/vram/cuda"
	"cairn/vram/cuda/driver"
	"cairn/vram/cuda/fakedriver"
)

// gpuNode is a node as a process of this binary, which has GPU support.
func gpuNode(t *testing.T, flags ...string) (*system, *server) {
	t.Helper()
	s := startSystem(t, systemConfig{nodes: 1, flags: smallNode(append([]string{"--log-level", "info", "--promote-after", "1"}, flags...)...)})
	return s, s.nodes[0]
}

// fakeDriver compiles the fake driver.
func fakeDriver(t *testing.T) string {
	t.Helper()
	path, err := fakedriver.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// serves writes and reads blocks until the node has some in GPU memory, and reads
// all of them again.
func serves(t *testing.T, s *system, n *server) {
	t.Helper()
	cn := s.dial(n, client.Config{})
	const blocks, size = 8, 60 << 10
	var keys []block.Key
	var want [][]byte
	random := rand.New(rand.NewPCG(1, 2))
	for i := range blocks {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		key, err := block.NewKey(i, [block.HashSize]byte{byte(i), 1})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		want = append(want, data)
		if _, err := cn.Put(t.Context(), keys[i], block.Key{}, data); err != nil {
			t.Fatal(err)
		}
	}
	read := func() error {
		for i, key := range keys {
			got, err := cn.Get(t.Context(), key, nil)
			if err != nil {
				return err
			}
			if !bytes.Equal(got, want[i]) {
				t.Fatalf("block %d has other bytes", i)
			}
		}
		return nil
	}
	await(t, patience, "blocks in GPU memory", func() error {
		if err := read(); err != nil {
			return err
		}
		if st := tierStatus(s.status(n), block.VRAM); st.Objects == 0 {
			return errors.New("none")
		}
		return nil
	})
	if err := read(); err != nil {
		t.Error(err)
	}
	if st := s.status(n); st.Trouble != "" {
		t.Errorf("trouble: %s", st.Trouble)
	}
}

// gpuWarnings are a node's warnings about GPU memory. There may be others, where a machine is
// slow: of a lease that is renewed late, say.
func gpuWarnings(text string) (list []string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "GPU") {
			list = append(list, line)
		}
	}
	return list
}

// Without a driver the binary starts, says so in one line, and serves.
func TestGPUWithoutDriver(t *testing.T) {
	if err := cuda.Load(""); !errors.Is(err, driver.ErrNoDriver) {
		t.Skipf("this machine has a driver: %v", err)
	}
	t.Parallel()
	s, n := gpuNode(t)
	serves(t, s, n)
	s.stop()
	text := n.out.String()
	if list := gpuWarnings(text); len(list) != 1 || !strings.Contains(list[0], "no GPU is used: GPU memory is emulated in host memory") || !strings.Contains(list[0], "no CUDA driver") {
		t.Errorf("it says\n%s", tail(text, 40))
	}
}

// With a driver it uses the first GPU, or the one that is named.
func TestGPUWithFakeDriver(t *testing.T) {
	t.Parallel()
	path := fakeDriver(t)
	for gpu, device := range map[string]string{gpuAuto: "fake driver, GPU 0", "1": "fake driver, GPU 1"} {
		t.Run(gpu, func(t *testing.T) {
			s, n := gpuNode(t, "--gpu", gpu, "--gpu-driver", path)
			serves(t, s, n)
			s.stop()
			text := n.out.String()
			for _, part := range []string{`msg="GPU memory"`, `device="` + device + `"`, `bytes=2097152`, `msg="host memory is page-locked"`, "bytes=8388608"} {
				if !strings.Contains(text, part) {
					t.Errorf("no %s in\n%s", part, tail(text, 40))
				}
			}
			if len(gpuWarnings(text)) > 0 {
				t.Errorf("it warns:\n%s", tail(text, 40))
			}
		})
	}
}

// A driver that is named must be there.
func TestGPUDriverIsNone(t *testing.T) {
	t.Parallel()
	p := cairn(t, nil, append([]string{"node", "--id", "n1", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0",
		"--gpu-driver", "/nowhere/libcuda.so.1"}, smallNode()...)...)
	<-p.done
	if text := p.out.String(); p.cmd.ProcessState.ExitCode() != exitFailure || !strings.Contains(text, "--gpu-driver /nowhere/libcuda.so.1: cuda: no CUDA driver: /nowhere/libcuda.so.1: ") ||
		!strings.Contains(text, "install NVIDIA's driver") {
		t.Errorf("exit code %d:\n%s", p.cmd.ProcessState.ExitCode(), text)
	}
}

// The doctor sees the driver and its GPUs.
func TestGPUDoctor(t *testing.T) {
	t.Parallel()
	args := []string{"doctor", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--disk-sample", "0", "--host", "8MiB",
		"--disk", "16MiB", "--segment", "1MiB", "--max-connections", "10", "--gpu-driver", fakeDriver(t)}
	p := cairn(t, nil, args...)
	<-p.done
	text := p.out.String()
	for _, part := range []string{"GPUs by CUDA", "libcuda.so.1, CUDA 13", "GPU 0", "GPU-", "GPU memory   ", " of fake driver, GPU 0, which has", "the GPU's driver took"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	if p.err != nil {
		t.Errorf("%v:\n%s", p.err, text)
	}
}
