#!/bin/bash
# The demo: two network namespaces joined by a veth pair, and packets between our Rust pkt-gen and plain C netmap programs
# that find /dev/netmap under LD_PRELOAD. One netmapd serves them all.
#
#   (a) a million packets of mixed sizes each way, paced, each one verified by its receiver
#   (b) flat out for some seconds each way, smallest packets: rates, and drops by reason
#
# The last line is `demo: ok sent=N received=N lost=0 tx=X.XX rx=Y.YY Mpps` (sent and received of (a), the best rates of
# (b)), or `demo: FAILED why`. Every wait is bounded; namespaces and processes are gone at the end, however it ends.
#
# DEMO_COUNT packets each way (1000000), DEMO_RATE packets per second (100000), DEMO_SECONDS of each run flat out (3).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

count=${DEMO_COUNT:-1000000}
rate=${DEMO_RATE:-100000}
seconds=${DEMO_SECONDS:-3}
sizes=60,1514
# A veth pair queues 256 packets; larger bursts than that would be lost there.
burst=64
# A receiver that the scheduler keeps waiting for a while must not run out of slots: 160 ms at the default rate.
export NETMAP_XDP_SLOTS=${NETMAP_XDP_SLOTS:-16384}
# No run may take longer than this.
limit=$((count * 3 / rate + 30))
# A receiver that hears nothing for so long has heard all there will be.
idle=5

netmapd=$PWD/target/release/netmapd
pkt_gen=$PWD/target/release/pkt-gen
preload=$PWD/target/release/libnetmap_xdp.so
nm_recv=$PWD/build/nm-recv
nm_send=$PWD/build/nm-send

# Names as the tests use them, so that what a killed demo leaves behind is swept by them.
left=nmx-$$-left
right=nmx-$$-right
work=$(mktemp -d)
# A netmapd of the demo's own: programs start one when nobody answers, and that one would stay for a while.
export NETMAP_XDP_SOCKET=$work/netmapd.sock NETMAP_XDP_ENGINE=${NETMAP_XDP_ENGINE:-daemon}
daemon=
pids=()
ended=0
total_sent=0
total_received=0
best_tx=0
best_rx=0

cleanup() {
	local status=$? pid
	trap - EXIT INT TERM HUP
	# Namespaces first lose their processes: `ip netns pids` names only ours, since the namespaces are ours.
	for pid in "${pids[@]}" $(ip netns pids "$left" 2>/dev/null) $(ip netns pids "$right" 2>/dev/null); do
		kill -9 "$pid" 2>/dev/null
	done
	[[ -n $daemon ]] && kill "$daemon" 2>/dev/null
	wait 2>/dev/null
	ip netns del "$left" 2>/dev/null
	ip netns del "$right" 2>/dev/null
	rm -rf "$work"
	((ended)) || { echo "demo: FAILED stopped before its end"; status=1; }
	exit "$status"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

# Prints why, with what the programs said, and ends.
fail() {
	local log
	for log in "$work"/*.err "$work"/*.out; do
		[[ -s $log ]] || continue
		echo "--- ${log##*/}"
		tail -n 20 "$log"
	done
	ended=1
	echo "demo: FAILED $*"
	exit 1
}

say() { echo "demo: $*"; }

# field FILE NAME: the value of the last NAME=value.
field() { grep -o "\b$2=[0-9.]*" "$1" 2>/dev/null | tail -n 1 | cut -d = -f 2; }

# best A B: the larger of two decimal numbers.
best() { awk -v a="$1" -v b="${2:-0}" 'BEGIN { print (a + 0 > b + 0) ? a : b }'; }

make_line() {
	local ns
	for ns in "$left" "$right"; do
		ip netns add "$ns" || fail "cannot create a network namespace"
		# Neighbour discovery would disturb the count.
		ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 2>/dev/null
	done
	ip -n "$left" link add veth0 numtxqueues 1 numrxqueues 1 type veth \
		peer name veth1 netns "$right" numtxqueues 1 numrxqueues 1 || fail "cannot create a veth pair"
	ip netns exec "$left" ethtool -K veth0 tx off >/dev/null
	ip netns exec "$right" ethtool -K veth1 tx off >/dev/null
	ip -n "$left" link set veth0 up
	ip -n "$right" link set veth1 up
}

device() { if [[ $1 == "$left" ]]; then echo veth0; else echo veth1; fi; }

# has_xdp NAMESPACE: whether a netmap program has its device bound.
has_xdp() { ip -n "$1" -d -j link show dev "$(device "$1")" 2>/dev/null | grep -q '"xdp":{"mode"'; }

# wait_xdp NAMESPACE on|off PID: until the program is there or gone, while PID lives, 10 s at most.
wait_xdp() {
	local ns=$1 want=$2 pid=${3-} tries=200 now
	while ((tries--)); do
		now=off
		has_xdp "$ns" && now=on
		[[ $now == "$want" ]] && return 0
		[[ -z $pid ]] || kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.05
	done
	return 1
}

# Starts netmapd and waits until it listens, unless the engine is to live in the programs.
start_netmapd() {
	local tries=200
	[[ $NETMAP_XDP_ENGINE == embedded ]] && return
	"$netmapd" --foreground --socket "$NETMAP_XDP_SOCKET" >/dev/null 2>"$work/netmapd.err" </dev/null &
	daemon=$!
	while ((tries--)); do
		grep -qs listens "$work/netmapd.err" && return
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.05
	done
	fail "netmapd did not start"
}

# wait_ready PID: until the receiver says that its port is open, while PID lives, 10 s at most. The XDP program tells less: it is
# there before the sockets are, and netmapd may still have that of the run before.
wait_ready() {
	local tries=200
	while ((tries--)); do
		grep -qsE ': ready|queues?, ' "$work/receiver.err" && return 0
		kill -0 "$1" 2>/dev/null || return 1
		sleep 0.05
	done
	return 1
}

# start NAME NAMESPACE COMMAND...: in the background, output to $work/NAME.out and .err; its process id goes to `started`.
start() {
	local name=$1 ns=$2
	shift 2
	ip netns exec "$ns" timeout -k 2 "$limit" "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
	started=$!
	pids+=("$started")
}

# finish PID: waits for it (its own time limit bounds that); returns its status.
finish() {
	local status pid rest=()
	wait "$1"
	status=$?
	for pid in "${pids[@]}"; do
		[[ $pid == "$1" ]] || rest+=("$pid")
	done
	pids=("${rest[@]}")
	return "$status"
}

# run TITLE SENDER-NAMESPACE RECEIVER-NAMESPACE SENDER... -- RECEIVER...: both at once, the receiver first.
run() {
	local title=$1 from=$2 to=$3 sender=() receiver sending receiving
	shift 3
	while [[ $1 != -- ]]; do
		sender+=("$1")
		shift
	done
	shift
	receiver=("$@")
	rm -f "$work"/{sender,receiver}.{out,err}
	say "$title"
	start receiver "$to" "${receiver[@]}"
	receiving=$started
	wait_ready "$receiving" || fail "$title: the receiver did not get ready"
	start sender "$from" "${sender[@]}"
	sending=$started
	finish "$sending"
	sender_status=$?
	finish "$receiving"
	receiver_status=$?
	((sender_status != 124 && receiver_status != 124)) || fail "$title: not done after $limit s"
	((sender_status == 0)) || fail "$title: the sender ended with status $sender_status"
}

# verified ...: a run of which every packet must arrive, in order and intact.
verified() {
	local title=$1 sent received lost
	run "$@"
	sent=$(field "$work/sender.out" sent)
	received=$(field "$work/receiver.out" received)
	lost=$(field "$work/receiver.out" lost)
	say "  $(tail -n 1 "$work/sender.out")"
	say "  $(tail -n 1 "$work/receiver.out")"
	[[ $sent == "$count" ]] || fail "$title: sent ${sent:-nothing} of $count"
	[[ $received == "$count" && $lost == 0 ]] || fail "$title: received ${received:-nothing} of $count, lost ${lost:-unknown}"
	((receiver_status == 0)) || fail "$title: the receiver found faults"
	total_sent=$((total_sent + sent))
	total_received=$((total_received + received))
}

# counters NAMESPACE: what the kernel counted at a device, as name=value.
counters() {
	local dev
	dev=$(device "$1")
	ip -n "$1" -s -j link show dev "$dev" | sed -n 's/.*"stats64":{"rx":{\([^}]*\)},"tx":{\([^}]*\)}.*/\1\n\2/p' |
		awk -F , 'BEGIN { side[1] = "rx"; side[2] = "tx" }
			{ for (i = 1; i <= NF; i++) { gsub(/"/, "", $i); sub(/:/, "=", $i); print side[NR] "_" $i } }'
	ip netns exec "$1" ethtool -S "$dev" 2>/dev/null | sed -n 's/^ *\([a-z_0-9]*\): \([0-9]*\)$/\1=\2/p' | grep -v ifindex
}

# grown BEFORE AFTER: the counters that moved, in one line.
grown() {
	awk -F = 'NR == FNR { before[$1] = $2; next } $2 - before[$1] > 0 { printf " %s=%d", $1, $2 - before[$1] }' "$1" "$2"
}

# flat_out ...: a run as fast as it goes; what does not arrive is told.
flat_out() {
	local title=$1 from=$2 to=$3 tx rx
	counters "$from" >"$work/from.before"
	counters "$to" >"$work/to.before"
	run "$@"
	counters "$from" >"$work/from.after"
	counters "$to" >"$work/to.after"
	((receiver_status == 0)) || fail "$title: the receiver ended with status $receiver_status"
	tx=$(field "$work/sender.out" mpps)
	rx=$(field "$work/receiver.out" mpps)
	[[ -n $tx && -n $rx ]] || fail "$title: no rates were told"
	say "  $(tail -n 1 "$work/sender.out")"
	say "  $(tail -n 1 "$work/receiver.out")"
	say "  kernel, sender's $(device "$from"):$(grown "$work/from.before" "$work/from.after")"
	say "  kernel, receiver's $(device "$to"):$(grown "$work/to.before" "$work/to.after")"
	best_tx=$(best "$best_tx" "$tx")
	best_rx=$(best "$best_rx" "$rx")
}

((EUID == 0)) || fail "needs root, for network namespaces and XDP"
for file in "$netmapd" "$pkt_gen" "$preload" "$nm_recv" "$nm_send"; do
	[[ -e $file ]] || fail "$file was not built; run: make build"
done
# env(1) and not the shell sets the preload, so that it reaches the C program alone.
c_recv=(env "LD_PRELOAD=$preload" "$nm_recv" -i netmap:veth1)
c_send=(env "LD_PRELOAD=$preload" "$nm_send" -i netmap:veth1)
rust=("$pkt_gen" -i netmap:veth0)

say "Linux $(uname -r), $(nproc) CPUs; veth0 in one namespace, veth1 in another"
make_line
start_netmapd

verified "Rust pkt-gen -> C nm-recv (preloaded): $count packets of 60 to 1514 bytes at $rate/s, verified" "$left" "$right" \
	"${rust[@]}" -f tx --machine --verify --sizes "${sizes/,/..}" -n "$count" -R "$rate" -b "$burst" -- \
	"${c_recv[@]}" -n "$count" -V -t "$idle"
verified "C nm-send (preloaded) -> Rust pkt-gen: the same" "$right" "$left" \
	"${c_send[@]}" -n "$count" -R "$rate" -b "$burst" -l "$sizes" -V -- \
	"${rust[@]}" -f rx --verify -n "$count" --idle "$idle"

flat_out "Rust pkt-gen -> C nm-recv: flat out, $seconds s of 60 bytes" "$left" "$right" \
	"${rust[@]}" -f tx --machine --time "$seconds" -- \
	"${c_recv[@]}" -T "$seconds"
flat_out "C nm-send -> Rust pkt-gen: the same" "$right" "$left" \
	"${c_send[@]}" -T "$seconds" -l 60,60 -- \
	"${rust[@]}" -f rx --machine --time "$seconds"

for ns in "$left" "$right"; do
	wait_xdp "$ns" off || fail "an XDP program was left on $(device "$ns")"
done
lost=$((total_sent - total_received))
ended=1
printf 'demo: ok sent=%d received=%d lost=%d tx=%.2f rx=%.2f Mpps\n' \
	"$total_sent" "$total_received" "$lost" "$best_tx" "$best_rx"
