module cairn

go 1.26.8

// Every dependency has its reason beside it; the second list is what those need.
require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0 // latencies with exact percentiles: replay, bench
	github.com/alecthomas/kong v1.17.0 // the command line: flags, environment, help
	github.com/anishathalye/porcupine v1.3.1 // internal/sim: is a history linearizable
	github.com/cockroachdb/datadriven v1.0.2 // tests: the protocol as scripts with golden output
	github.com/dustin/go-humanize v1.1.0 // sizes as people write them: 64KiB
	github.com/goccy/go-yaml v1.19.2 // the configuration file, with errors that show the line
	github.com/google/go-cmp v0.7.0 // tests: differences that can be read
	github.com/hashicorp/golang-lru/v2 v2.0.7 // the order of use in hostcache
	github.com/jotaen/kong-completion v0.0.4 // completion of commands in a shell
	github.com/nats-io/nats-server/v2 v2.15.2 // the embedded NATS server
	github.com/nats-io/nats.go v1.55.0 // NATS and JetStream: membership, events, names, routes
	github.com/redis/go-redis/v9 v9.23.0 // tests: the client that most engines use, against resp
	github.com/rogpeppe/go-internal v1.16.0 // tests: testscript for the commands
	github.com/schollz/progressbar/v3 v3.19.1 // progress of replay and bench on a terminal
	github.com/zeebo/xxh3 v1.1.0 // checksum of every block and record
	golang.org/x/sys v0.49.0 // memfd, madvise, preadv, fallocate: what package syscall lacks
	gorgonia.org/cu v0.9.6 // CUDA's driver API, with -tags cuda only; vram/cuda/driver makes it start without a driver
	pgregory.net/rapid v1.3.0 // tests: sequence against a model, with failures made small
)

require (
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/google/uuid v1.1.1 // indirect
	github.com/hashicorp/errwrap v1.1.0 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/klauspost/cpuid/v2 v2.4.0 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/posener/complete v1.2.3 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/riywo/loginshell v0.0.0-20200815045211-7d26008be1ab // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/term v0.47.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	golang.org/x/tools v0.42.0 // indirect
)
