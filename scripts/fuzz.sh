#!/usr/bin/env bash
# Runs every fuzz target of the module for a while, one after the other.
#
#   scripts/fuzz.sh [TIME]    TIME as for go test -fuzztime; default 60s
#
# Targets are found, not listed here, so that a new one cannot be forgotten.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:-60s}

# `go test -list` prints the targets of a package and then "ok <package> <time>".
list=$(go test -list '^Fuzz' ./...)
targets=$(awk '/^Fuzz/ { names[n++] = $1 }
	$1 == "ok" { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }' <<<"$list")
if [ -z "$targets" ]; then
	echo "fuzz: no target found" >&2
	exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# ended_late: did the run fail only because its time was up? Until Go 1.27 a worker
# that is busy at that moment can make the coordinator report the end of -fuzztime as
# a failure (https://go.dev/issue/75804). A find is told apart by the input that is
# written down for it, and by anything else that a failing target prints.
ended_late() {
	! grep -qE 'Failing input written|panic:|fatal error:|_test\.go:[0-9]+' "$log" &&
		grep -A1 -E '^--- FAIL: Fuzz' "$log" | tail -1 | grep -qE '^ +context deadline exceeded$'
}

while read -r package target; do
	echo "fuzz: $package $target for $duration"
	if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" -fuzzminimizetime 5s "$package" </dev/null 2>&1 | tee "$log"; then
		ended_late || exit 1
		echo "fuzz: $target found nothing; it was still busy when its time was up"
	fi
done <<<"$targets"
