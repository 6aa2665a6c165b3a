#!/bin/bash
# Fuzzes with coverage: mk/fuzz.sh [TARGET...]; FUZZ_SECONDS each (600). Stable Rust: the compiler's own instrumentation, which
# needs no flag of a nightly, and libFuzzer from the crate libfuzzer-sys. What is found new goes to target/fuzz/TARGET,
# what fails to target/fuzz/failed. The seeds in tests/fuzz/seeds are read, not written; FUZZ_MERGE=1 adds what covers more.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-600}
targets=("$@")
((${#targets[@]})) || targets=(request names wire daemon calls)
host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/target/fuzz
mkdir -p "$out/failed"

flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
flags+=" -Clink-arg=-rdynamic"
# With --target, build scripts and macros are left alone. The C library is instrumented too, and loaded by the target `names`.
export CARGO_TARGET_DIR=$out/build
RUSTFLAGS=$flags cargo build --release --locked --target "$host" --manifest-path tests/fuzz/engine/Cargo.toml
RUSTFLAGS=$flags cargo build --release --locked --target "$host" -p netmap-xdp-compat-c
built=$out/build/$host/release
export NETMAP_FUZZ_LIBRARY=$built/libnetmap_xdp.so
# The engine is to be fuzzed with the rest, in this process.
export NETMAP_XDP_ENGINE=embedded

# In a network namespace of its own where that is permitted: no port of a target is an interface, and none becomes one.
apart=()
unshare -n true 2>/dev/null && apart=(unshare -n)

status=0
for target in "${targets[@]}"; do
	mkdir -p "$out/$target"
	echo "== $target: $seconds s"
	"${apart[@]}" "$built/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
		-artifact_prefix="$out/failed/$target-" "$out/$target" "tests/fuzz/seeds/$target" \
		2>"$out/$target.log" || status=1
	tail -n 12 "$out/$target.log"
	if [[ ${FUZZ_MERGE-} == 1 ]]; then
		"${apart[@]}" "$built/$target" -merge=1 -max_len=512 "tests/fuzz/seeds/$target" "$out/$target" 2>/dev/null
	fi
done
exit "$status"
