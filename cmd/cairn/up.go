package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"cairn/cluster"
)

// upCmd is a cluster on one machine: NATS and the router in this process, each
// node in a process of its own, so that one can be killed and seen to return.
type upCmd struct {
	Nodes     int           `help:"Number of nodes." default:"3"`
	Data      string        `help:"Directory of all data." default:"cairn-data" type:"path"`
	Port      int           `help:"Data port of the first node; the others follow. 0 takes free ones." default:"7070"`
	Router    string        `help:"Address of the router's HTTP interface and status page." default:"127.0.0.1:7080"`
	Lease     time.Duration `help:"How long a node stays a member without a sign of life." default:"5s"`
	Host      size          `help:"Host memory of each node." default:"1GiB"`
	Eviction  string        `help:"Which block leaves host or GPU memory for another: ${enum}." enum:"lru,hazard" default:"lru"`
	Disk      size          `help:"Disk of each node." default:"8GiB"`
	VRAM      vramSize      `name:"vram" help:"GPU memory of each node; see cairn node." default:"256MiB"`
	GPU       []string      `name:"gpu" help:"Device of each node's GPU memory; see cairn node. Of several each node takes the next, and then the first again." default:"auto"`
	GPUDriver string        `name:"gpu-driver" help:"CUDA driver to load; see cairn node." type:"path" placeholder:"FILE"`
	Class     []size        `name:"classes" help:"Sizes of slots; see cairn node." placeholder:"SIZE"`
	Device    deviceFlags   `embed:"" group:"limits"`
	Pressure  pressureFlags `embed:"" group:"limits"`
	Cost      costFlags     `embed:"" group:"cost"`
	natsServer
}

func (c *upCmd) Run(a *app) error {
	if err := c.validate(); err != nil {
		return usageError{err}
	}
	u, err := c.start(a)
	if err != nil {
		return err
	}
	u.describe(a)
	<-a.ctx.Done()
	fmt.Fprintln(a.err, "cairn: stopping; a second Ctrl-C ends at once")
	return u.stop()
}

// upCluster is a running cluster on this machine.
type upCluster struct {
	a      *app
	cfg    upCmd
	exe    string
	nats   *cluster.Server
	conn   *cluster.Conn
	router *runningRouter
	leash  *os.File // its end tells the nodes that this process is gone
	held   *os.File

	// stopping is closed when nodes that end are meant to.
	stopping chan struct{}
	nodes    sync.WaitGroup

	// mu guards procs and errs.
	mu    sync.Mutex
	procs map[string]*os.Process
	errs  []error
}

// start brings everything up and waits until all nodes are members. On failure
// it takes down what it has started.
func (c upCmd) start(a *app) (_ *upCluster, err error) {
	if c.Nodes < 1 || c.Nodes > maxUpNodes {
		return nil, usage("--nodes %d: want 1 to %d", c.Nodes, maxUpNodes)
	}
	if c.Port != 0 && c.Port+c.Nodes > 65536 {
		return nil, usage("--port %d: too high for %d nodes", c.Port, c.Nodes)
	}
	if err := c.portsFree(); err != nil {
		return nil, err
	}
	u := &upCluster{a: a, cfg: c, stopping: make(chan struct{}), procs: map[string]*os.Process{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.stop())
		}
	}()
	if u.exe, err = os.Executable(); err != nil {
		return nil, err
	}
	if u.leash, u.held, err = os.Pipe(); err != nil {
		return nil, err
	}
	if u.conn, u.nats, err = (natsClient{}).connect(a.ctx, a, c.natsServer, c.Data, "up"); err != nil {
		return nil, err
	}
	if u.router, err = startRouter(a, u.conn, c.Router, c.Cost); err != nil {
		return nil, err
	}
	failed := make(chan error, c.Nodes)
	for i := range c.Nodes {
		u.nodes.Go(func() { u.keep(i, failed) })
	}
	return u, u.awaitMembers(failed)
}

// validate reports what the nodes would refuse of what the user says.
func (c upCmd) validate() error {
	errs := []error{leaseProblem(c.Lease), c.Device.validate(), c.Pressure.validate()}
	for _, name := range c.GPU {
		errs = append(errs, gpuFlags{GPU: name, GPUDriver: c.GPUDriver}.validate(gpus()))
	}
	return errors.Join(errs...)
}

// maxUpNodes bounds the processes of one machine.
const maxUpNodes = 64

// portsFree tells of a port in use before anything is started.
func (c upCmd) portsFree() error {
	for i := range c.Nodes {
		if c.Port == 0 {
			return nil
		}
		l, err := net.Listen("tcp", c.nodeAddr(i))
		if err != nil {
			return fmt.Errorf("--port: %w (is a cluster running already? give it another port)", err)
		}
		l.Close()
	}
	return nil
}

func (c upCmd) nodeAddr(i int) string {
	port := 0
	if c.Port != 0 {
		port = c.Port + i
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// keep runs node i, and runs it again when it ends unasked.
func (u *upCluster) keep(i int, failed chan<- error) {
	id := fmt.Sprintf("n%d", i+1)
	started := false
	for {
		err := u.runNode(i, id)
		select {
		case <-u.stopping:
			if err != nil {
				u.mu.Lock()
				u.errs = append(u.errs, fmt.Errorf("node %s: %w", id, err))
				u.mu.Unlock()
			}
			return
		default:
		}
		var exit *exec.ExitError
		if !started || !errors.As(err, &exit) {
			started = true
			if !errors.As(err, &exit) || exit.Exited() { // it refused to start; a signal is no refusal
				failed <- fmt.Errorf("node %s: %w", id, err)
				return
			}
		}
		u.a.log.Warn("a node has ended; starting it again", "node", id, "err", err)
		select {
		case <-time.After(restartPause):
		case <-u.stopping:
			return
		}
	}
}

// restartPause is the time between the end of a node and its next start.
const restartPause = time.Second

func (u *upCluster) runNode(i int, id string) error {
	args := append(u.cfg.nodeArgs(i, id), "--nats", u.nats.ClientURL(), "--stop-fd", "3", "--log-level", "warn")
	cmd := exec.Command(u.exe, args...)
	cmd.Stderr = u.a.err
	cmd.ExtraFiles = []*os.File{u.leash}
	setProcessGroup(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	u.mu.Lock()
	u.procs[id] = cmd.Process
	u.mu.Unlock()
	err := cmd.Wait()
	u.mu.Lock()
	delete(u.procs, id)
	u.mu.Unlock()
	return err
}

// nodeArgs are the arguments of node i.
func (c upCmd) nodeArgs(i int, id string) []string {
	args := []string{
		"node", "--id", id, "--data", filepath.Join(c.Data, id), "--listen", c.nodeAddr(i),
		"--lease", c.Lease.String(), "--host", bytesArg(c.Host), "--disk", bytesArg(c.Disk), "--vram", c.VRAM.arg(),
	}
	if len(c.GPU) > 0 {
		args = append(args, "--gpu", c.GPU[i%len(c.GPU)])
	}
	if c.GPUDriver != "" {
		args = append(args, "--gpu-driver", c.GPUDriver)
	}
	if c.Eviction != "" {
		args = append(args, "--eviction", c.Eviction)
	}
	args = append(args, flagArgs(c.Cost)...) // nodes answer CAIRN.ROUTE as the router does
	args = append(args, flagArgs(c.Device)...)
	args = append(args, flagArgs(c.Pressure)...)
	for _, s := range c.Class {
		args = append(args, "--classes", bytesArg(s))
	}
	return args
}

// flagArgs is a struct of flags again, as another process takes them; those that are not
// set are left out, and have that process's defaults.
func flagArgs(flags any) []string {
	var args []string
	v := reflect.ValueOf(flags)
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if value.IsZero() {
			continue
		}
		text := fmt.Sprint(value.Interface())
		if s, ok := value.Interface().(size); ok {
			text = bytesArg(s)
		}
		args = append(args, "--"+cmp.Or(field.Tag.Get("name"), flagName(field.Name))+"="+text)
	}
	return args
}

// flagName is the name that a flag has by its field's: AuditEvery is audit-every.
func flagName(field string) string {
	var b strings.Builder
	for i, r := range field {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func bytesArg(s size) string { return strconv.FormatInt(int64(s), 10) }

// awaitMembers waits until every node has joined and the router knows what each
// holds.
func (u *upCluster) awaitMembers(failed <-chan error) error {
	ctx, cancel := context.WithTimeout(u.a.ctx, startWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(u.router.view.Members()) < u.cfg.Nodes {
		select {
		case err := <-failed:
			return err
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d nodes joined: %w", len(u.router.view.Members()), u.cfg.Nodes, ctx.Err())
		}
	}
	return u.router.view.Ready(ctx)
}

// addrs are the data addresses of the nodes.
func (u *upCluster) addrs() []string {
	var list []string
	for _, m := range u.router.view.Members() {
		list = append(list, m.Addr)
	}
	return list
}

func (u *upCluster) describe(a *app) {
	fmt.Fprintf(a.err, "cairn: %d nodes are up, data in %s\n", u.cfg.Nodes, u.cfg.Data)
	for _, m := range u.router.view.Members() {
		fmt.Fprintf(a.err, "  node %-6s %s  (redis-cli -p %s)\n", m.ID, m.Addr, portOf(m.Addr))
	}
	fmt.Fprintf(a.err, "  router      http://%s/\n  NATS        %s  (nats -s %[2]s sub 'cairn.>')\n", u.router.addr, u.nats.ClientURL())
	fmt.Fprintln(a.err, "Ctrl-C stops.")
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// stop ends the nodes in good order, then the router and NATS.
func (u *upCluster) stop() error {
	close(u.stopping)
	if u.held != nil {
		u.held.Close() // the nodes see the end of their leash
	}
	u.nodes.Wait()
	if u.leash != nil {
		u.leash.Close()
	}
	errs := u.errs
	if u.router != nil {
		errs = append(errs, u.router.stop())
	}
	if u.conn != nil {
		errs = append(errs, u.conn.Close())
	}
	if u.nats != nil {
		errs = append(errs, u.nats.Close())
	}
	return errors.Join(errs...)
}
