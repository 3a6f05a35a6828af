#!/usr/bin/env bash
# Builds the binary with GPUs as `make cuda` does, with no CUDA toolkit, and checks that
# it starts where there is no driver, says so in one line, and serves from emulated GPU
# memory; and that with the fake driver it serves from that. Needs a C compiler and no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
node=
trap 'if [ -n "$node" ]; then kill -KILL "$node" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
say() { echo "cuda-binary-check: $*"; }
fail() {
	say "$*"
	[ ! -e "$work/log" ] || tail -20 "$work/log"
	exit 1
}

# The same flags as `make cuda`.
scripts/cuda.sh go build -trimpath -tags cuda -ldflags '-s -w' -o "$work/cairn" ./cmd/cairn
cairn=$work/cairn
version=$("$cairn" version)
[[ $version == *'GPUs by CUDA'* ]] || fail "it has no GPU support: $version"
[[ $version != *emulated* ]] || fail "it says that GPU memory is emulated: $version"
say "$(stat -c %s "$cairn") bytes"
head -c 100000 /dev/urandom >"$work/block"

# serves NAME FLAGS... runs a node, which has to keep a block, and stops it. What it
# says is in the log then.
serves() {
	local name=$1 addr status=0
	shift
	: >"$work/log"
	"$cairn" node --id check --data "$work/$name" --listen 127.0.0.1:0 --nats-listen 127.0.0.1:0 \
		--host 64MiB --vram 16MiB --disk 256MiB --segment 16MiB "$@" 2>"$work/log" &
	node=$!
	for ((i = 0; ; i++)); do
		addr=$(sed -n 's/^cairn: node check serves \([0-9.:]*\).*/\1/p' "$work/log")
		[ -z "$addr" ] || break
		kill -0 $node 2>/dev/null || fail "the node has ended"
		[ $i -lt 3000 ] || fail "the node does not serve within 30 s"
		sleep 0.01
	done
	"$cairn" put --node "$addr" check/block "$work/block" >/dev/null || fail "no SET"
	for ((i = 0; i < 4; i++)); do # often enough for GPU memory
		"$cairn" get --node "$addr" check/block >"$work/got" || fail "no GET"
		cmp "$work/block" "$work/got" || fail "wrong bytes"
	done
	kill -TERM $node
	timeout 60 tail --pid=$node -f /dev/null || fail "the node does not stop within 60 s"
	wait $node || status=$?
	node=
	[ $status -eq 0 ] || fail "the node ended with exit code $status"
	rm -rf "${work:?}/$name"
}
# says N TEXT: the log has so many lines with the text. What it warns of beside GPUs is not
# looked at: on a machine that stands still for a second a node misses heartbeats of NATS.
says() {
	local n
	n=$(grep -c "$2" "$work/log" || true)
	[ "$n" -eq "$1" ] || fail "$n lines say '$2', want $1"
}

libraries=$(ldconfig -p 2>/dev/null || true) # by itself: grep -q ends at the first, which ends ldconfig
if grep -q 'libcuda\.so\.1' <<<"$libraries"; then
	say "not run: a start without a driver, as this machine has one"
else
	serves without
	says 1 'no GPU is used: GPU memory is emulated in host memory'
	says 1 'level=WARN.*GPU'
	say "without a driver: $(grep -o 'msg="no GPU is used[^"]*" .*' "$work/log")"
fi

read -r -a compiler <<<"${CC:-$(go env CC)}"
"${compiler[@]}" -shared -fPIC -O2 -pthread -fvisibility=hidden -Wl,-soname,libcuda.so.1 \
	-o "$work/libcuda.so.1" vram/cuda/fakedriver/src/*.c
serves fake --gpu-driver "$work/libcuda.so.1"
says 1 'msg="GPU memory".*device="fake driver, GPU 0".*bytes=16777216'
says 1 'msg="host memory is page-locked"'
says 0 'level=WARN.*GPU'
say "with the fake driver: $(grep -o 'msg="GPU memory" .*' "$work/log")"
say "passed"
