package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/cluster"
	"cairn/internal/doctor"
)

// natsFacts are what a NATS cluster says of itself.
type natsFacts struct {
	err             error // of connecting
	url, version    string
	cluster         string // its name; empty for a single server
	servers         int    // that are known
	rtt             time.Duration
	store, maxStore int64 // bytes; a limit below 0 is none
	streams         int
	replicas        int

	// offset is how far the server's clock is ahead of ours, give or take give; known
	// where Cairn's streams are there.
	offset, give time.Duration
	known        bool
}

// askNATS asks the server that answers. What it does not say stays zero.
func askNATS(ctx context.Context, conn *cluster.Conn, limit time.Duration) natsFacts {
	f := natsFacts{
		url: conn.NC.ConnectedUrlRedacted(), version: conn.NC.ConnectedServerVersion(), cluster: conn.NC.ConnectedClusterName(),
		servers: len(conn.NC.Servers()), replicas: conn.Replicas, maxStore: -1,
	}
	f.rtt, f.err = leastRTT(limit, conn.NC.RTT)
	if f.err != nil {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if info, err := conn.JS.AccountInfo(ctx); err == nil {
		f.store, f.maxStore, f.streams = int64(info.Store), info.Limits.MaxStore, info.Streams
	}
	before := time.Now()
	if s, err := conn.JS.Stream(ctx, cluster.StreamPlace); err == nil {
		took := time.Since(before)
		if at := s.CachedInfo().TimeStamp; !at.IsZero() {
			f.offset, f.give, f.known = at.Sub(before.Add(took/2)), took/2, true
		}
	}
	return f
}

// leastRTT is the shortest of a few round trips within a time, and the first error.
func leastRTT(limit time.Duration, rtt func() (time.Duration, error)) (time.Duration, error) {
	const tries = 5
	var all []time.Duration
	for began := time.Now(); len(all) == 0 || len(all) < tries && time.Since(began) < limit; {
		d, err := rtt()
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	return slices.Min(all), nil
}

const (
	// slowRTT is a round trip that writes of names feel: each waits for one or two.
	slowRTT = 5 * time.Millisecond
	// maxOffset is how far clocks may differ before names that end do so visibly
	// early or late.
	maxOffset = time.Second
	// leastStore is what snapshots of the coherence log may take, and some.
	leastStore = cluster.DefaultSnapshotBytes + 256<<20
)

// results judges the facts.
func (f natsFacts) results() []doctor.Result {
	nats := doctor.Result{Group: doctor.Network, Name: "NATS"}
	if f.err != nil {
		// Without the name of the package, and what it says to those who ask no doctor.
		found, _, _ := strings.Cut(strings.TrimPrefix(f.err.Error(), "cluster: "), "; check that ")
		nats.Level, nats.Found = doctor.Bad, found
		switch {
		case errors.Is(f.err, cluster.ErrNoJetStream):
			nats.Advice = "start the server with `-js`, and allow JetStream to the account"
		case errors.Is(f.err, cluster.ErrUnreachable):
			nats.Advice = "start the server, or correct --nats, or let it through a firewall; without --nats the node starts one of its own"
		default:
			nats.Advice = "correct --nats and what goes with it (docs/nats.md)"
		}
		return []doctor.Result{nats}
	}
	nats.Found = fmt.Sprintf("%s, version %s, round trip %v", f.url, f.version, f.rtt.Round(time.Microsecond))
	nats.Values = map[string]int64{"rtt_us": f.rtt.Microseconds()}
	if f.rtt > slowRTT {
		nats.Level, nats.Advice = doctor.Warn, "each durable write and strict read of a name waits for a round trip or two: use a NATS that is nearer"
	}
	list := []doctor.Result{nats, f.jetStream()}
	if f.known {
		offset := doctor.Result{Group: doctor.System, Name: "clock of NATS", Found: fmt.Sprintf("%v from ours, give or take %v",
			f.offset.Round(time.Millisecond), max(f.give, time.Millisecond).Round(time.Millisecond)), Values: map[string]int64{"offset_us": f.offset.Microseconds()}}
		if f.offset.Abs()-f.give > maxOffset {
			offset.Level, offset.Advice = doctor.Warn, "names with an end would end early or late by as much: synchronise both machines"
		}
		list = append(list, offset)
	}
	return list
}

func (f natsFacts) jetStream() doctor.Result {
	r := doctor.Result{Group: doctor.Network, Name: "JetStream", Values: map[string]int64{"store_bytes": f.store, "max_store_bytes": f.maxStore}}
	where := "a single server"
	if f.cluster != "" {
		where = fmt.Sprintf("cluster %s", f.cluster)
	}
	stored, copies := bytesText(f.store), "once"
	if f.maxStore >= 0 {
		stored += " of " + bytesText(f.maxStore)
	}
	if f.replicas > 1 {
		copies = fmt.Sprintf("%d times", f.replicas)
	}
	r.Found = fmt.Sprintf("%s with %d streams, %s stored; kept %s", where, f.streams, stored, copies)
	switch {
	case f.maxStore >= 0 && f.maxStore-f.store < leastStore && f.streams == 0:
		r.Level, r.Advice = doctor.Warn, fmt.Sprintf("snapshots of the coherence log want %s: raise the account's or the server's limit (max_file_store)", bytesText(leastStore))
	case f.replicas > 1 && f.cluster == "":
		r.Level, r.Advice = doctor.Bad, "a single server cannot keep streams more than once: leave --nats-replicas out, or use a NATS cluster"
	case f.replicas == 1 && f.cluster != "":
		r.Level, r.Advice = doctor.Warn, "streams that are kept once are away with their server: `--nats-replicas 3`"
	}
	return r
}
