package doctor

import (
	"strconv"

	"github.com/dustin/go-humanize"
)

// Plan is the node that is to run: what the advice is about. Sizes are bytes.
type Plan struct {
	// Host is the host tier, Emulated the GPU memory that is emulated in host
	// memory, Other what NATS in the same process may take.
	Host, Emulated, Other int64
	// Prefault: memory is taken at the start.
	Prefault bool
	// GPU is the name of the GPU that is used, empty for none. Register shows n
	// bytes of host memory to its driver and takes them back; nil without a GPU.
	GPU      string
	Register func(n int) error

	// Data is the data directory, which need not exist; Size the most that is
	// kept there, 0 for no blocks, Streams what an embedded NATS may store
	// besides; Files the most files that are open at a time for it.
	Data    string
	Size    int64
	Streams int64
	Files   int
	// Sample is how much is written and read to measure the disk, 0 for nothing.
	Sample Sample
	// DiskRate is what routers take the disk to deliver, in bytes a second.
	DiskRate int64

	// Connections is the most connections of clients and peers.
	Connections int
	// Listen are the addresses that have to be free, by the flag that sets them.
	Listen map[string]string
	// Taken tells who holds an address that is taken, with advice, as far as it
	// knows; who is empty where it does not.
	Taken func(flag, addr string) (who, advice string, level Level)
	// Advertise is where others are told to reach the node; NATS are the servers
	// named, none for an embedded one.
	Advertise string
	NATS      []string
}

// programBytes is what a node takes beside its tiers: the directory, the index of
// what others hold, connections. A guess for a node with millions of blocks.
const programBytes = 256 << 20

// memory is what the node comes to when its tiers are full.
func (p Plan) memory() int64 { return p.Host + p.Emulated + p.Other + programBytes }

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// flagBytes is a size to put behind a flag: whole units, rounded down.
func flagBytes(n int64) string {
	const mib, gib = 1 << 20, 1 << 30
	if n >= 8*gib {
		return strconv.FormatInt(n/gib, 10) + "GiB"
	}
	return strconv.FormatInt(max(n/mib, 1), 10) + "MiB"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
