#!/bin/bash
# Runs every test of the workspace in the debug profile, then adds up: cargo prints one result per test binary.
# The sum goes to the last line, or to the file that NMX_SUMMARY names. In CI a skipped test is a failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export NMX_SKIPS=$work/skips
: >"$NMX_SKIPS"

# First, so that no test has to wait for the cdylib and the tools.
cargo build --workspace --locked || exit 1
timeout --kill-after=10 "${TEST_TIMEOUT:-1500}" \
	cargo test --workspace --locked --no-fail-fast </dev/null 2>&1 | tee "$work/log"
status=${PIPESTATUS[0]}
((status == 124 || status == 137)) && echo "the tests took longer than ${TEST_TIMEOUT:-1500} s and were stopped"

# Of each `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, the number before a word.
sum() {
	sed -n "s/^test result: .* \([0-9][0-9]*\) $1.*/\1/p" "$work/log" | awk '{ n += $1 } END { print n + 0 }'
}
noted=$(wc -l <"$NMX_SKIPS")
passed=$(($(sum passed) - noted))
failed=$(sum failed)
skipped=$(($(sum ignored) + noted))

if ((noted)); then
	echo
	cat "$NMX_SKIPS"
fi
# A binary that did not compile, crashed or hung has no result line.
((status != 0 && failed == 0)) && failed=1
((passed == 0 && status == 0)) && { echo "no test ran"; failed=1; }
[[ ${CI-} == true ]] && ((skipped)) && { echo "a skip is a failure in CI"; status=1; }
((failed)) && status=1

line="$passed passed, $failed failed, $skipped skipped"
if [[ -n ${NMX_SUMMARY-} ]]; then
	echo "$line" >"$NMX_SUMMARY"
else
	echo "$line"
fi
exit "$status"
