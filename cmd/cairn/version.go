package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// release is set at link time (-ldflags "-X main.release=v1.2.3").
var release = ""

// version is the release, or the commit that the binary was built from.
func version() string {
	if release != "" {
		return release
	}
	v := "0.1.0"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v += "+" + s.Value[:12]
			}
		}
	}
	return v
}

func variables() kong.Vars { return kong.Vars{"version": version()} }

type versionCmd struct{}

func (versionCmd) Run(a *app) error {
	if a.json {
		return a.printJSON(map[string]string{"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
			"gpu": gpus().support})
	}
	_, err := fmt.Fprintf(a.out, "cairn %s (%s, %s/%s, %s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, gpus().support)
	return err
}
