# SPDX-License-Identifier: Apache-2.0
# common.sh - sourced by the scripts: enters the repository, times stages, builds presets.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
script=$(basename "$0")
jobs=$(nproc)

say() {
    echo "$script: $*"
}

# stage NAME COMMAND...: runs a command and prints how long it took.
stage() {
    local name=$1 start=$SECONDS status
    shift
    "$@"
    status=$?
    say "$name: $((SECONDS - start)) s$([ $status = 0 ] || echo ' (failed)')"
    return $status
}

# build PRESET [CMAKE-OPTION...] [-- TARGET...]: configures and builds; output only when it fails.
build() {
    local preset=$1 log=build/$1.log options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# = 0 ] || shift
    mkdir -p build
    {
        cmake --preset "$preset" ${options[@]+"${options[@]}"} &&
            cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"}
    } >"$log" 2>&1 || {
        grep -v '^\[[0-9]*/[0-9]*\] [BL]' "$log"
        return 1
    }
}
