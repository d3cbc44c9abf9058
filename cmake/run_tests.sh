#!/bin/sh
# run_tests.sh DIR TARGET LABEL [cmake arguments...]
# Configures DIR, builds TARGET there, runs the tests of LABEL ('' for all) and closes with "N passed, M failed".
# A failed build, a failed test and a run without tests are errors.
set -u
cd "$(dirname "$0")/.."
dir=$1 target=$2 label=$3
shift 3
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# A compiler takes up to 1.5 GiB for the largest tests.
room=$(awk '/^MemAvailable:/ { print int($2 / 1572864) }' /proc/meminfo 2>/dev/null)
limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null)
case $limit in *[!0-9]* | "") ;; *) [ "$((limit / 1610612736))" -ge "${room:-$jobs}" ] || room=$((limit / 1610612736)) ;; esac
[ "${room:-$jobs}" -ge "$jobs" ] || jobs=$((room > 0 ? room : 1))

broken() {
    printf '%s\n0 passed, 1 failed\n' "$1"
    exit 1
}
printf '\n== configuring %s\n' "$dir"
cmake -S . -B "$dir" -DCMAKE_BUILD_TYPE=Release -DHEED_BUILD_TESTS=ON -DHEED_BUILD_EXAMPLES=ON -DHEED_BUILD_BENCH=OFF \
    "$@" || broken "cmake failed"
printf '\n== building %s\n' "$dir"
cmake --build "$dir" --parallel "$jobs" --target "$target" || broken "the build failed"
printf '\n== testing %s\n' "$dir"
junit=$PWD/$dir/junit.xml
rm -f "$junit"
set -- --test-dir "$dir" --parallel "$jobs" --output-on-failure --no-tests=error --output-junit "$junit"
[ -z "$label" ] || set -- "$@" --label-regex "^$label\$"
ctest "$@"
status=$?

count() { sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p" "$junit" 2>/dev/null | head -n 1; }
total=$(count tests) failed=$(count failures) skipped=$(count skipped) disabled=$(count disabled)
failed=$((${failed:-0}))
passed=$((${total:-0} - failed - ${skipped:-0} - ${disabled:-0}))
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1  # what ctest could not run is no pass either
[ "$passed" -gt 0 ] || [ "$failed" -gt 0 ] || failed=1
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
