package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"cairn/wire"
)

// viewProcess is a benchPlacementViewCmd. ask is for one goroutine at a time; sample may
// run beside it.
type viewProcess struct {
	cmd     *exec.Cmd
	began   time.Time
	in      io.WriteCloser
	out     *bufio.Reader
	samples chan viewQuestion
	unasked atomic.Int64 // samples that the pipe had no room for
	written chan error   // of the goroutine that writes samples and questions
}

// samplesWaiting is how many samples may wait for the pipe.
const samplesWaiting = 1024

func startViewProcess(a *app, c *benchPlacementCmd, url, profile string) (*viewProcess, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "placement-view", "--nats", url, "--max-index-bytes", fmt.Sprint(int64(c.MaxIndexBytes))}
	if profile != "" {
		args = append(args, "--profile", profile)
	}
	p := &viewProcess{cmd: exec.Command(exe, args...), samples: make(chan viewQuestion, samplesWaiting), written: make(chan error, 1)}
	setProcessGroup(p.cmd)
	p.cmd.Stderr = a.err
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.write()
	return p, nil
}

// write writes what comes, and closes the pipe when nothing more will.
func (p *viewProcess) write() {
	var failed error
	w := bufio.NewWriter(p.in)
	enc := json.NewEncoder(w)
	for q := range p.samples {
		failed = errors.Join(failed, enc.Encode(q))
		if len(p.samples) == 0 {
			failed = errors.Join(failed, w.Flush())
		}
	}
	p.written <- errors.Join(failed, p.in.Close())
}

// sample has the process wait for a change that was announced at that time. It does not block.
func (p *viewProcess) sample(t wire.Token, at time.Time) {
	select {
	case p.samples <- viewQuestion{Sample: &t, At: at.UnixNano()}:
	default:
		p.unasked.Add(1)
	}
}

// ask waits for the answer to a question.
func (p *viewProcess) ask(q viewQuestion) (r viewAnswer, err error) {
	p.samples <- q
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err == nil {
		err = r.err()
	}
	if err != nil {
		err = fmt.Errorf("ask the router's process: %w", err)
	}
	return r, err
}

// stop has the process end as its input does.
func (p *viewProcess) stop() error {
	close(p.samples)
	return errors.Join(<-p.written, p.cmd.Wait())
}

// kill ends the process as a crash would.
func (p *viewProcess) kill() {
	_ = p.cmd.Process.Kill()
	close(p.samples)
	_ = errors.Join(<-p.written, p.cmd.Wait()) // the pipe is broken, and the process killed
}
