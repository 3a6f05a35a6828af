#!/usr/bin/env bash
# Starts the cluster of docker-compose.yml under another name, network and
# address than `make up`, replays a trace through it from the host, kills a node
# and a NATS server while a second replay runs, brings them back, and takes all
# of it down. Fails on one wrong byte, one failed request, or a start that does not end.
#
# Needs the image (`make image`), bin/cairn, and a container engine on Linux.
# Takes about a minute; every wait is bounded.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=cairn-check
export CAIRN_BIND=127.0.0.77 CAIRN_NET=10.70.71
readonly usual_start=20 wait_limit=180 replay_limit=180
readonly router=http://$CAIRN_BIND:7080
readonly nodes=("$CAIRN_BIND:7070" "$CAIRN_BIND:7071" "$CAIRN_BIND:7072")
readonly services=(nats1 nats2 nats3 node1 node2 node3 router)

if docker compose version >/dev/null 2>&1; then
	compose=(docker compose)
else
	compose=(docker-compose)
fi
work=$(mktemp -d)

say() { echo "compose-check: $*"; }

take_down() {
	local status=$?
	if [ $status -ne 0 ]; then
		say "failed; the last words of every service:"
		"${compose[@]}" ps || true
		"${compose[@]}" logs --no-color --tail 15 || true
	fi
	"${compose[@]}" down -v --timeout 30 >"$work/down" 2>&1 || { cat "$work/down"; status=1; }
	rm -rf "$work"
	exit $status
}

# await SECONDS WHAT COMMAND... runs the command until it succeeds.
await() {
	local limit=$1 what=$2 end=$((SECONDS + $1))
	shift 2
	until "$@" >"$work/await" 2>&1; do
		if [ $SECONDS -ge $end ]; then
			say "$what: not within $limit s:"
			cat "$work/await"
			return 1
		fi
		sleep 0.2
	done
}

# healthy SERVICE... tells whether the engine's own check of each passes.
healthy() {
	local s state
	for s in "$@"; do
		state=$(docker inspect --format '{{.State.Health.Status}}' "$("${compose[@]}" ps -q "$s")")
		[ "$state" = healthy ] || { echo "$s is $state"; return 1; }
	done
}

# members tells whether the router knows three nodes that all answer.
members() {
	local status
	status=$(bin/cairn --json status --router "$router")
	[ "$(grep -c '"uptime_seconds"' <<<"$status")" = 3 ] || { echo "$status"; return 1; }
}

# replay NAME ARG... replays the bundled trace; its result goes to $work/NAME.
replay() {
	local name=$1
	shift
	timeout "$replay_limit" bin/cairn --json replay --router "$router" "${nodes[@]/#/--node=}" \
		--report off --salt "$name" "$@" >"$work/$name" 2>"$work/$name.err"
}

# number NAME FIELD is a figure of a replay's result.
number() { sed -n "s/^  \"$2\": \([0-9.]*\),\{0,1\}$/\1/p" "$work/$1"; }

# judge NAME fails unless the replay read blocks, all of them right, and answered
# every request.
judge() {
	local name=$1
	say "$name: $(number "$name" requests) requests in $(number "$name" seconds) s, $(number "$name" blocks_read) blocks read," \
		"$(number "$name" wrong_bytes) wrong bytes, $(number "$name" failed_requests) requests failed"
	[ "$(number "$name" wrong_bytes)" = 0 ] && [ "$(number "$name" failed_requests)" = 0 ] &&
		[ "$(number "$name" blocks_read)" -gt 0 ]
}

trap take_down EXIT
trap 'exit 130' INT TERM

"${compose[@]}" down -v --timeout 5 >/dev/null 2>&1 # of a run that was killed
began=$(date +%s%N)
"${compose[@]}" up -d >"$work/up" 2>&1 || { cat "$work/up"; exit 1; }
await $wait_limit "the start" healthy "${services[@]}"
took=$((($(date +%s%N) - began) / 1000000))
say "all ${#services[@]} services healthy after $took ms"
# How long that takes is the machine's affair: it is told, and is no failure.
if [ $took -gt $((usual_start * 1000)) ]; then
	say "that is more than the $usual_start s of an idle machine"
fi
await $wait_limit "three members" members

replay calm --limit 200 || { cat "$work/calm.err"; exit 1; }
judge calm

say "replaying again, and killing node2 and nats1 on the way"
replay storm --speed 15 & # its 5.5 minutes in 22 s, however fast the machine
load=$!
sleep 3 # into the middle of the replay
"${compose[@]}" kill node2 >/dev/null 2>&1
sleep 3
"${compose[@]}" kill nats1 >/dev/null 2>&1
if ! kill -0 $load 2>/dev/null; then
	say "the replay was over before the kills: nothing was tested"
	exit 1
fi
wait $load || { tail -3 "$work/storm.err"; exit 1; }
judge storm

"${compose[@]}" start nats1 node2 >/dev/null 2>&1
await $wait_limit "their return" healthy "${services[@]}"
await $wait_limit "three members again" members
say "node2 and nats1 are back"
replay again --limit 200 || { cat "$work/again.err"; exit 1; }
judge again
say "passed in $SECONDS s"
