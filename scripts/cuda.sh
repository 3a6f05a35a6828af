#!/usr/bin/env bash
# Runs a command with what `-tags cuda` needs to build on any Linux with a C compiler:
#
#   scripts/cuda.sh go build -tags cuda ./...
#
# No CUDA toolkit is used, and one that is installed is passed by: our own cuda.h is
# found first. gorgonia.org/cu asks the linker for -lcuda; it gets an archive with
# nothing in it, since vram/cuda/driver has the functions and loads the driver when the
# program runs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

if [ $# -eq 0 ]; then
	echo "usage: scripts/cuda.sh COMMAND [ARGUMENT...], e.g. scripts/cuda.sh go build -tags cuda ./..." >&2
	exit 2
fi
if ! command -v go >/dev/null; then
	echo "cuda: go is not here: install Go, https://go.dev/dl" >&2
	exit 1
fi
read -r -a compiler <<<"$(go env CC)"
if ! command -v "${compiler[0]:-gcc}" >/dev/null; then
	echo "cuda: -tags cuda needs a C compiler, and ${compiler[0]:-gcc} is not here: install gcc or clang, or set CC" >&2
	exit 1
fi

# Beside what is built, where it can be written; git ignores it.
library="$root/bin/no-cuda"
if ! mkdir -p "$library" 2>/dev/null || [ ! -w "$library" ]; then
	library="${TMPDIR:-/tmp}/cairn-no-cuda-$(id -u)"
	mkdir -p -m 700 "$library"
fi
if [ ! -s "$library/libcuda.a" ]; then
	# Written aside and moved: another of these may be running.
	printf '!<arch>\n' >"$library/libcuda.a.$$"
	mv -f "$library/libcuda.a.$$" "$library/libcuda.a"
fi

# The go command does not look into directories that -I names, so what includes a
# header that has changed would not be compiled again: its sum among the flags makes it.
include="$root/vram/cuda/driver/include"
sum=$(cat "$include"/*.h | cksum | cut -d ' ' -f 1)

# Of all flags these come first, so that no directory of a toolkit is ahead of them:
# not those that gorgonia.org/cu names, nor those in the caller's environment.
cpp=$(go env CGO_CPPFLAGS)
ld=$(go env CGO_LDFLAGS)
export CGO_ENABLED=1
export CGO_CPPFLAGS="'-I$include' -DCAIRN_CUDA_HEADER=$sum${cpp:+ $cpp}"
export CGO_LDFLAGS="'-L$library'${ld:+ $ld}"
exec "$@"
