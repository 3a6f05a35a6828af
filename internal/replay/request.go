package replay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cairn/block"
)

// worker plays one request at a time.
type worker struct {
	*run
	// buffer holds one batch of blocks, or one block to put.
	buffer []byte
}

// outcome is what a request has found.
type outcome struct {
	local, peer int
}

// serve plays j to its end. Its error ends the whole run.
func (w *worker) serve(ctx context.Context, j *job) error {
	defer w.order.finish(j)
	if await(ctx, j.after) != nil {
		return nil // the run is ending, with its own reason
	}
	began := time.Now()
	var avoid []string
	for attempt := 1; ; attempt++ {
		node, found, err := w.attempt(ctx, j, avoid)
		if err == nil {
			w.collect.finished(j, found)
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		w.cfg.Logger.Debug("request goes to another node", "request", j.index, "node", node, "attempt", attempt, "error", err)
		exhausted := attempt > w.cfg.Reroutes
		if exhausted {
			last := w.collect.lastSuccess()
			if last.After(began) {
				w.collect.failed(j)
				return nil
			}
			if since := time.Since(last); since >= w.cfg.GiveUp {
				return fmt.Errorf("replay: %w for %v, the last error is: %w", ErrClusterDown, since.Round(time.Millisecond), err)
			}
		}
		if node != "" && !exhausted {
			avoid = append(avoid, node)
			continue
		}
		avoid = avoid[:0]
		if sleep(ctx, w.cfg.RetryWait) != nil {
			return nil
		}
	}
}

// attempt plays j at the node that the cluster chooses; node is its name, empty
// when there was none.
func (w *worker) attempt(ctx context.Context, j *job, avoid []string) (node string, found outcome, err error) {
	if len(j.keys) == 0 {
		return "", outcome{}, nil
	}
	var done func()
	err = w.op(ctx, opRoute, 1, func(ctx context.Context) (err error) {
		node, done, err = w.cluster.Route(ctx, j.keys, j.request.Input, avoid)
		if err == nil && slices.Contains(avoid, node) {
			err = fmt.Errorf("%s was chosen though it is to be avoided", node)
			node = ""
		}
		return err
	})
	if done != nil {
		defer done()
	}
	if err != nil {
		return "", outcome{}, err
	}
	n, err := w.cluster.Node(node)
	if err != nil {
		w.collect.error(opRoute, err)
		return node, outcome{}, err
	}
	prefix, local, err := w.match(ctx, j, n)
	if err != nil {
		return node, outcome{}, err
	}
	read, err := w.read(ctx, j, node, n, prefix)
	if err != nil {
		return node, outcome{}, err
	}
	for i := range read {
		switch {
		case j.mine[i]:
		case i < local:
			found.local++
		default:
			found.peer++
		}
	}
	return node, found, w.put(ctx, j, n, read)
}

// match finds the prefix that the cluster has, after waiting for earlier requests
// that are about to make it longer.
func (w *worker) match(ctx context.Context, j *job, n Node) (prefix, local int, err error) {
	for {
		err = w.op(ctx, opMatch, 1, func(ctx context.Context) (err error) {
			prefix, local, err = n.Match(ctx, j.keys)
			if err == nil && (local < 0 || local > prefix || prefix > len(j.keys)) {
				err = fmt.Errorf("match of %d blocks answered %d, %d of them local", len(j.keys), prefix, local)
			}
			return err
		})
		if err != nil {
			return 0, 0, err
		}
		wait := w.order.claim(j, j.keys[prefix:])
		if len(wait) == 0 {
			return prefix, local, nil
		}
		if err := await(ctx, wait); err != nil {
			return 0, 0, err
		}
	}
}

// read reads the leading blocks and checks them, up to the first that is missing
// or wrong: an engine cannot use what comes after a gap.
func (w *worker) read(ctx context.Context, j *job, name string, n Node, prefix int) (read int, err error) {
	for read < prefix {
		keys := j.keys[read:min(read+w.cfg.ReadBatch, prefix)]
		lengths := slices.Repeat([]int{-1}, len(keys)) // -1: the node sends none
		var found []bool
		err := w.op(ctx, opRead, len(keys), func(ctx context.Context) (err error) {
			found, err = n.Read(ctx, keys, func(i int, d block.Descriptor) []byte {
				lengths[i] = int(d.Length)
				if lengths[i] != w.cfg.BlockBytes {
					return nil
				}
				return w.slot(i)
			})
			if err == nil && len(found) != len(keys) {
				err = fmt.Errorf("read of %d blocks answered %d", len(keys), len(found))
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		good := w.check(keys, lengths, found, name)
		read += good
		if good < len(keys) {
			w.collect.gaps.Add(1)
			break
		}
	}
	return read, nil
}

func (w *worker) slot(i int) []byte {
	return w.buffer[i*w.cfg.BlockBytes:][:w.cfg.BlockBytes:w.cfg.BlockBytes]
}

// check verifies what a batch brought and returns how many leading blocks are right.
func (w *worker) check(keys []block.Key, lengths []int, found []bool, node string) (good int) {
	whole := true
	for i, k := range keys {
		wrong, first := 0, 0
		switch length := lengths[i]; {
		case length >= 0 && length != w.cfg.BlockBytes:
			wrong = w.cfg.BlockBytes
		case found[i]:
			w.collect.blocksRead.Add(1)
			w.collect.bytesRead.Add(int64(w.cfg.BlockBytes))
			wrong, first = Check(w.slot(i), k)
		}
		if wrong > 0 {
			w.collect.wrong(WrongBlock{Key: k, Node: node, Length: lengths[i], Bytes: wrong, First: first})
		}
		whole = whole && found[i] && wrong == 0
		if whole {
			good++
		}
	}
	return good
}

// put puts all blocks of j but the first have.
func (w *worker) put(ctx context.Context, j *job, n Node, have int) error {
	for i := have; i < len(j.keys); i++ {
		key := j.keys[i]
		var parent block.Key
		if i > 0 {
			parent = j.keys[i-1]
		}
		data := w.slot(0)
		Fill(data, key)
		stored := false
		err := w.op(ctx, opPut, 1, func(ctx context.Context) (err error) {
			stored, err = n.Put(ctx, key, parent, data)
			return err
		})
		if err != nil {
			j.mine[i] = true // perhaps: whether it was stored is not known
			return err
		}
		w.collect.put(stored, stored && w.order.put(key), len(data))
		j.mine[i] = j.mine[i] || stored
	}
	return nil
}

// op runs one operation under its time limit, and counts it.
func (w *worker) op(ctx context.Context, kind operation, blocks int, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, w.cfg.OpTimeout)
	defer cancel()
	began := time.Now()
	err := do(limited)
	if err != nil {
		if ctx.Err() == nil { // else the run is ending, and the error is not the cluster's
			w.collect.error(kind, err)
		}
		return fmt.Errorf("replay: %s: %w", kind, err)
	}
	w.collect.took(kind, time.Since(began), blocks)
	return nil
}
