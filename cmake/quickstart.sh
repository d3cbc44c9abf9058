#!/bin/sh
# From a fresh machine to results: installs what is missing, builds and runs.
#   sh cmake/quickstart.sh test     all tests
#   sh cmake/quickstart.sh bench    the short benchmark suite, with plots
set -eu
cd "$(dirname "$0")/.."
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

say() { printf '\n== %s\n' "$*"; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# The names of the packages: those every build needs, those the tests or benchmarks need, and those that only add
# contestants and plots to the benchmarks.
choose() {  # tools eigen xsimd gtest benchmark extras
    needed="$1 $2 $3"
    optional=""
    if [ "$what" = test ]; then needed="$needed $4"; else needed="$needed $5" optional=$6; fi
}

install_missing() {
    if command -v apt-get >/dev/null; then
        choose "cmake make g++" libeigen3-dev libxsimd-dev libgtest-dev libbenchmark-dev \
            "libfftw3-dev libopenblas-dev libdnnl-dev gnuplot-nox"
        has() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
        refresh() { as_root apt-get update; }
        add() {
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
        }
    elif command -v dnf >/dev/null; then
        choose "cmake make gcc-c++" eigen3-devel xsimd-devel gtest-devel google-benchmark-devel \
            "fftw-devel openblas-devel onednn-devel gnuplot"
        has() { rpm -q "$1" >/dev/null 2>&1; }
        refresh() { :; }
        add() { as_root dnf install -y "$@"; }
    elif command -v pacman >/dev/null; then
        choose "cmake make gcc" eigen xsimd gtest benchmark "fftw openblas onednn gnuplot"
        has() { pacman -Qq "$1" >/dev/null 2>&1; }
        refresh() { :; }
        add() { as_root pacman -S --needed --noconfirm "$@"; }
    elif command -v brew >/dev/null; then
        choose "cmake" eigen xsimd googletest google-benchmark "fftw openblas onednn gnuplot"
        has() { brew list "$1" >/dev/null 2>&1; }
        refresh() { :; }
        add() { brew install "$@"; }
    else
        echo "No apt-get, dnf, pacman or brew here. heed needs: CMake 3.22, a C++20 compiler, make, Eigen 3.4, xsimd 8 to 14,"
        echo "GoogleTest for the tests; Google Benchmark for the benchmarks (FFTW, OpenBLAS, oneDNN and gnuplot if you like)."
        command -v cmake >/dev/null || exit 1  # with CMake here it may all be here, and the build will tell
        return 0
    fi

    missing="" extras=""
    for package in $needed; do has "$package" || missing="$missing $package"; done
    for package in $optional; do has "$package" || extras="$extras $package"; done
    [ -n "$missing$extras" ] || return 0
    say "installing$missing$extras"
    refresh || echo "the lists of packages could not be renewed, trying with the old ones"
    # shellcheck disable=SC2086
    if [ -n "$missing" ] && ! add $missing; then
        for package in $missing; do has "$package" || echo "not installed: $package"; done
        echo "CMake will look for them elsewhere, or download their sources."
    fi
    for package in $extras; do add "$package" || echo "not installed, and not needed: $package"; done
}

what=${1:-}
case $what in
test)
    install_missing
    exec sh cmake/run_tests.sh build all ''
    ;;
bench)
    install_missing
    say "configuring"
    cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DHEED_BUILD_BENCH=ON -DHEED_BUILD_TESTS=OFF -DHEED_BUILD_EXAMPLES=OFF
    say "building the benchmarks"
    cmake --build build --parallel "$jobs" --target heed_bench
    say "the short suite"
    build/bench/heed_bench --short --benchmark_out=build/bench/short.json --benchmark_out_format=json
    say "plots"
    if command -v gnuplot >/dev/null; then
        sh bench/plot.sh build/bench/short.json build/bench/plots
        ls build/bench/plots
    else
        echo "no gnuplot, no plots; the numbers are in build/bench/short.json"
    fi
    ;;
*)
    sed -n '2,4s/^# *//p' "$0"
    exit 2
    ;;
esac
