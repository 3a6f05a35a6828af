package main

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// otherFlags gives every flag of a struct another value than its default.
func otherFlags(t *testing.T, flags any) {
	t.Helper()
	v := reflect.ValueOf(flags).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i).Addr().Interface().(type) {
		case *string:
			words := strings.Split(cmp.Or(v.Type().Field(i).Tag.Get("enum"), "word"), ",")
			*f = words[len(words)-1]
		case *int:
			*f = -1 - i
		case *float64:
			*f = 0.125 * float64(i+1)
		case *size:
			*f = size(1<<30 + i)
		case *time.Duration:
			*f = time.Duration(i+1) * time.Second
		default:
			t.Fatalf("%s is of a kind that flagArgs must learn", v.Type().Field(i).Name)
		}
	}
}

// What cairn up passes on to its nodes is what it was given: every flag of the cost model, of
// engines in GPU memory and of its pressure.
func TestUpHandsOnFlags(t *testing.T) {
	want := upCmd{Nodes: 1, Lease: time.Second}
	otherFlags(t, &want.Cost)
	otherFlags(t, &want.Device)
	otherFlags(t, &want.Pressure)
	got, err := nodeDefaults(want.nodeArgs(0, "n1")[1:]...)
	if err != nil || got.Cost != want.Cost || got.Device != want.Device || got.Pressure != want.Pressure {
		t.Errorf("error %v\n got %+v, %+v, %+v\nwant %+v, %+v, %+v", err, got.Cost, got.Device, got.Pressure, want.Cost, want.Device, want.Pressure)
	}
	for _, flags := range []any{costFlags{}, deviceFlags{}, pressureFlags{}} {
		if args := flagArgs(flags); len(args) != 0 {
			t.Errorf("flags that are not set are %q", args)
		}
	}
}

// A node that cairn up starts runs with what up was given.
func TestUpNodeHasLimits(t *testing.T) {
	t.Parallel()
	p := cairn(t, nil, "up", "--nodes", "1", "--port", "0", "--router", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--data", t.TempDir(),
		"--host", "8MiB", "--disk", "64MiB", "--vram", "2MiB", "--gpu", "emulated", "--classes", "4KiB,64KiB",
		"--device-pins", "0.25", "--vram-high", "0.75", "--vram-low", "0.5", "--vram-batch", "4", "--vram-in-flight", "1MiB")
	m, err := p.says(regexp.MustCompile(`node n1 +(127\.0\.0\.1:\d+)`))
	if err != nil {
		t.Fatal(err)
	}
	st, err := nodeStatus(t.Context(), m[1], oneCall)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := st.Devices.Limit, int64(2<<20)/4; got != want {
		t.Errorf("engines may hold %d bytes of GPU memory, want %d", got, want)
	}
	p.stop()
}

// What a node would refuse, up refuses before it starts anything.
func TestUpRefuses(t *testing.T) {
	t.Parallel()
	for flag, value := range map[string]string{"vram-high": "1.5", "vram-batch": "0", "vram-in-flight": "0", "device-pins": "2", "device-idle": "0s"} {
		p := cairn(t, nil, "up", "--data", t.TempDir(), fmt.Sprintf("--%s=%s", flag, value))
		<-p.done
		if text := p.out.String(); p.cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(text, "--"+flag) {
			t.Errorf("--%s %s: exit code %d:\n%s", flag, value, p.cmd.ProcessState.ExitCode(), text)
		}
	}
}
