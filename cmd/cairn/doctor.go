package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"cairn/cluster"
	"cairn/diskstore"
	"cairn/internal/doctor"
	"cairn/router"
)

// doctorCmd checks the machine for the node that its flags describe.
type doctorCmd struct {
	DiskSample  size          `help:"Bytes that are written and read to measure the disk; 0 measures nothing." default:"64MiB" group:"doctor"`
	DiskTime    time.Duration `help:"Limit of measuring the disk." default:"2s" group:"doctor"`
	NATSTimeout time.Duration `name:"nats-timeout" help:"How long to wait for the NATS that --nats names." default:"5s" group:"doctor"`
	nodeCmd
}

// Help is shown below the flags.
func (c *doctorCmd) Help() string {
	return `The advice is about the node that the same flags, environment and file would start:
the flags are those of cairn node, and the file's section node counts here too. What
is measured leaves nothing behind. Exit code 1 says that something is bad: the node
would not start, or would fail when it is as full as it may get.`
}

// doctorReport is the answer in JSON.
type doctorReport struct {
	Version string          `json:"version"`
	Node    string          `json:"node"`
	Level   doctor.Level    `json:"level"`
	Results []doctor.Result `json:"results"`
}

func (c *doctorCmd) Run(a *app) error {
	if err := c.complete(); err != nil {
		return err
	}
	if err := c.measureProblem(); err != nil {
		return usageError{err}
	}
	m := doctor.Here()
	plan := c.plan(a)
	results, gpu := c.gpuResults(m.Root, gpus())
	if gpu != nil {
		defer gpu.dev.Close()
		if gpu.emulated {
			plan.Emulated = gpu.bytes
		} else {
			plan.GPU, plan.Register = gpu.dev.Name(), gpu.tryRegister()
		}
	}
	progress := newProgress(a.err)
	progress.show("looking at this machine and at NATS")
	results = append(results, c.natsResults(a)...)
	results = append(results, c.unixResults()...)
	results = doctor.Look(m, plan, progress.show, results...)
	progress.end()
	if err := a.ctx.Err(); err != nil {
		return err // what was found in a hurry would be wrong
	}
	report := doctorReport{Version: version(), Node: c.ID, Level: doctor.Worst(results), Results: results}
	var err error
	if a.json {
		err = a.printJSON(report)
	} else {
		_, err = io.WriteString(a.out, doctorText(report, displayOf(a.out, a.env)))
	}
	if err == nil && report.Level == doctor.Bad {
		err = errSilent
	}
	return err
}

// measureProblem says what is wrong with the doctor's own flags.
func (c *doctorCmd) measureProblem() error {
	var errs []error
	if c.DiskTime <= 0 {
		errs = append(errs, fmt.Errorf("--disk-time %v: want more than 0", c.DiskTime))
	}
	if c.NATSTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--nats-timeout %v: want more than 0", c.NATSTimeout))
	}
	return errors.Join(errs...)
}

// plan is what the checks of the operating system have to know.
func (c *doctorCmd) plan(a *app) doctor.Plan {
	p := doctor.Plan{
		Host: int64(c.Host), Prefault: c.Prefault,
		Data: c.dataDir(), Size: int64(c.Disk), Files: c.segments(),
		Sample:   doctor.Sample{Bytes: int64(c.DiskSample), Time: c.DiskTime},
		DiskRate: router.DefaultDiskBandwidth, Connections: c.MaxConnections,
		Listen: map[string]string{"--listen": c.Listen}, Taken: c.taken(a), Advertise: c.advertised(), NATS: c.NATS,
	}
	if c.Cost.BandwidthDisk > 0 {
		p.DiskRate = int64(c.Cost.BandwidthDisk)
	}
	if len(c.NATS) == 0 {
		p.Other, p.Streams = int64(c.NATSMaxMemory), int64(c.NATSMaxStore)
		p.Listen["--nats-listen"] = c.NATSListen
		if c.NATSCluster != "" {
			p.Listen["--nats-cluster"] = c.NATSCluster
		}
	}
	return p
}

// dataDir is the data directory from the root, where that is known.
func (c *doctorCmd) dataDir() string {
	if abs, err := filepath.Abs(c.Data); err == nil {
		return abs
	}
	return c.Data
}

// segments is the most files that the disk tier has open.
func (c *doctorCmd) segments() int {
	if c.Disk == 0 {
		return 0
	}
	segment := int64(c.Segment)
	if segment == 0 { // as diskstore chooses it
		const share = 8
		segment = max(min(diskstore.DefaultSegmentSize, int64(c.Disk)/share), int64(c.Disk)/diskstore.MaxSegments+1, diskstore.MinSegmentSize)
	}
	const spare = 2 // as diskstore counts: segments that are emptied stay a while
	return int(2*int64(c.Disk)/segment) + spare
}

// advertised is where others would be told to reach the node.
func (c *doctorCmd) advertised() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		if name, err := os.Hostname(); err == nil {
			return net.JoinHostPort(name, port)
		}
	}
	return c.Listen
}

// taken says what holds an address that the node wants.
func (c *doctorCmd) taken(a *app) func(flag, addr string) (who, advice string, level doctor.Level) {
	running := func() bool { return pingNode(a.ctx, c.Listen) == nil }
	return func(flag, addr string) (who, advice string, level doctor.Level) {
		const mayBeThis = "if that is this node at work, all is well; another node needs another address"
		switch {
		case flag == "--listen" && running():
			return "a Cairn node", mayBeThis, doctor.Warn
		case flag == "--nats-listen" && speaksNATS(addr) && running():
			return "a NATS server", mayBeThis, doctor.Warn
		case flag == "--nats-listen" && speaksNATS(addr):
			return "a NATS server", fmt.Sprintf("use that one, `--nats nats://%s`, or give another port", addr), doctor.Bad
		}
		return "", "", doctor.Bad
	}
}

// speaksNATS tells whether a NATS server greets whoever comes to the address.
func speaksNATS(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, greetWait)
	if err != nil {
		return false
	}
	defer conn.Close()
	greeting := make([]byte, len("INFO "))
	if err := conn.SetDeadline(time.Now().Add(greetWait)); err != nil {
		return false
	}
	_, err = io.ReadFull(conn, greeting)
	return err == nil && string(greeting) == "INFO "
}

// greetWait is how long a server on this machine may take to say what it is.
const greetWait = 10 * time.Second

// unixResults tells whether there is a directory for the socket of --unix. That of its default
// is made by the node.
func (c *doctorCmd) unixResults() []doctor.Result {
	dir := filepath.Dir(c.Unix)
	if c.Unix == "off" || dir == filepath.Clean(c.Data) {
		return nil
	}
	r := doctor.Result{Group: doctor.Network, Name: "--unix", Found: c.Unix}
	if _, err := os.Stat(dir); err != nil {
		r.Level, r.Found, r.Advice = doctor.Bad, err.Error(), "the node would not start: make the directory, or name another one"
	}
	return []doctor.Result{r}
}

// natsResults asks the NATS that the flags name.
func (c *doctorCmd) natsResults(a *app) []doctor.Result {
	if len(c.NATS) == 0 {
		return []doctor.Result{{Group: doctor.Network, Name: "NATS", Found: fmt.Sprintf("none named: the node starts its own at %s, with streams in %s",
			c.NATSListen, filepath.Join(c.dataDir(), "nats"))}}
	}
	cfg := c.config(a, "cairn doctor")
	cfg.ConnectTimeout, cfg.Logger = c.NATSTimeout, slog.New(slog.DiscardHandler)
	conn, err := cluster.Connect(a.ctx, cfg)
	if err != nil {
		return natsFacts{err: err}.results()
	}
	defer conn.Close()
	return askNATS(a.ctx, conn, c.NATSTimeout).results()
}
