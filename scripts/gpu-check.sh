#!/usr/bin/env bash
# Checks a machine with a GPU: the conformance suites on the device, ten thousand random moves, memory
# shared between processes, and figures against the driver alone. The machine needs NVIDIA's
# driver and neither Go nor a CUDA toolkit.
#
#   scripts/gpu-check.sh build [DIR]     here, where Go and a C compiler are: DIR (bin/gpu-check)
#                                        gets all that the other machine needs
#   DIR/gpu-check.sh run                 there: all of it, in less than ten minutes
#   DIR/gpu-check.sh run --fake-driver   anywhere: the same on the fake driver, which shows that the check
#                                        itself works and NOTHING about a GPU
#
# run ends with 0 when everything passed, and else says what did not. The whole output is in
# gpu-check.log in the current folder, or where GPU_CHECK_LOG says.
set -euo pipefail
readonly limit=570 # seconds
say() { echo "gpu-check: $*"; }

build() {
	cd "$(dirname "${BASH_SOURCE[0]}")/.."
	local dir=${1:-bin/gpu-check}
	mkdir -p "$dir/fake"
	scripts/cuda.sh go test -c -tags cuda -o "$dir/vram-cuda.test" ./vram/cuda
	# As package fakedriver builds it, for a machine without a compiler.
	"${CC:-cc}" -shared -fPIC -O2 -pthread -fvisibility=hidden -Wl,-soname,libcuda.so.1 \
		-o "$dir/fake/libcuda.so.1" vram/cuda/fakedriver/src/*.c
	cp scripts/gpu-check.sh "$dir/gpu-check.sh"
	git describe --always --dirty >"$dir/commit" 2>/dev/null || echo unknown >"$dir/commit"
	say "$dir holds $(du -sh "$dir" | cut -f1): carry it to the machine and run $dir/gpu-check.sh run"
}

run() {
	local dir log=${GPU_CHECK_LOG:-gpu-check.log} what="the machine's own driver" status=0 began=$SECONDS
	dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
	[ -x "$dir/vram-cuda.test" ] || { say "no test binary beside this script: run 'scripts/gpu-check.sh build' first, then the copy in bin/gpu-check" >&2; exit 2; }
	unset CAIRN_CUDA_DRIVER CAIRN_REQUIRE_GPU
	case ${1:-} in
	"")
		export CAIRN_REQUIRE_GPU=1 # without a device, or with a fake one, the tests fail; they do not skip
		find_driver
		;;
	--fake-driver)
		export CAIRN_CUDA_DRIVER="$dir/fake/libcuda.so.1"
		what="THE FAKE DRIVER: nothing below was seen on a GPU"
		;;
	*) usage ;;
	esac
	say "commit $(cat "$dir/commit"), $(uname -srm), $(nproc) processors, on $what"
	if [ -z "${CAIRN_CUDA_DRIVER:-}" ]; then
		nvidia-smi --query-gpu=name,driver_version,memory.total,pcie.link.gen.max,pcie.link.width.max --format=csv 2>/dev/null ||
			say "nvidia-smi is not here or does not answer"
	fi
	timeout --kill-after=10s $limit "$dir/vram-cuda.test" -test.v -test.timeout=${limit}s >"$log" 2>&1 </dev/null || status=$?
	summary "$log" "$what" $((SECONDS - began)) $status
	exit $status
}

# find_driver adds where some clusters and WSL mount the driver, if the loader does not know of one.
find_driver() {
	local dir libraries
	libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true)
	if grep -q 'libcuda\.so\.1' <<<"$libraries"; then return; fi
	for dir in /usr/lib/wsl/lib /usr/local/nvidia/lib64 /run/opengl-driver/lib; do
		[ -e "$dir/libcuda.so.1" ] || continue
		export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir PATH=$PATH:/usr/lib/wsl/lib:/usr/local/nvidia/bin
		say "the driver is looked for in $LD_LIBRARY_PATH"
		return
	done
}

# summary LOG WHAT SECONDS STATUS
summary() {
	local log=$1
	grep -hE 'driver [0-9]+: \{Ordinal|libcuda.* lacks ' "$log" | sed 's/^ *//' | cut -c1-400 || true
	echo; say "figures (GB/s are 10^9 bytes a second)"
	grep -hE '^(figure|fake driver, no evidence of anything): ' "$log" || say "none were measured"
	echo; say "tests"
	grep -hE '^--- (PASS|FAIL|SKIP)' "$log" | sort | sed 's/^/  /' || say "none ended"
	# Why tests were skipped: the reason stands on the line before.
	grep -hE -B1 '^ *--- SKIP' "$log" | sed -nE 's/^ *[a-z_]+_?test\.go:[0-9]+: /  skipped: /p; s/^ *[a-z]+\.go:[0-9]+: /  skipped: /p' | sort | uniq -c || true
	grep -hE 'random_test.go.*operations' "$log" | sed 's/^ */  /' || true
	if [ "$4" -ne 0 ]; then
		echo; say "what failed"
		# The last two: the machine's C library or processor is not the binary's. Why tests were skipped is said above.
		grep -hE '^ *--- FAIL|_test\.go:[0-9]+: |^vram/cuda: |panic:|^engine: |GLIBC_|^timeout: ' "$log" | grep -v ': needs the fake driver$' | head -60 || true
		[ "$4" -ne 124 ] || say "it did not end within $limit s"
	fi
	echo
	say "$(grep -cE '^ *--- PASS' "$log") passed, $(grep -cE '^ *--- FAIL' "$log") failed, $(grep -cE '^ *--- SKIP' "$log") skipped in $3 s, on $2"
	if [ "$4" -eq 0 ]; then say PASSED; else say "FAILED (exit code $4); all of it is in $log"; fi
	if [ "$4" -ne 0 ] && grep -qE '^vram/cuda: (0 devices|.*no CUDA driver|.*CUDA_ERROR_NO_DEVICE)' "$log"; then no_gpu; fi
}

# no_gpu says what to do where nothing was checked since there is nothing to check.
no_gpu() {
	cat >&2 <<-'END'

		gpu-check: this machine shows no GPU with a driver that can be used, so nothing was checked.
		  With a GPU:     install NVIDIA's driver (CUDA 11 or newer) until nvidia-smi shows the GPU,
		                  and try again.
		  In a container: give it the GPU, docker run --gpus all.
		  Without a GPU:  gpu-check.sh run --fake-driver, or make gpu-check FAKE=1, shows that the check
		                  itself works, and nothing about a GPU.
	END
}

usage() {
	sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
	exit 2
}

case ${1:-} in
build) build "${2:-}" ;;
run) run "${2:-}" ;;
*) usage ;;
esac
