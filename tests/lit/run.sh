#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - runs the RUN: lines of one test file, as LLVM's lit does, and nothing more of lit than this:
#
#   RUN: command    after any comment sign; lines run in order until one fails; a line that ends in a
#                   backslash goes on in the next RUN: line; a pipe fails when any part of it fails
#   REQUIRES: gpu   skipped (exit 77) unless GPU tests are on
#   REQUIRES: unsanitized   skipped in builds with sanitizers
#   %s file   %S its folder   %t a scratch path of this test   %kerf the compiler   %% a percent sign
#
# On PATH: kerf, FileCheck, not, count, and from this folder expect-diags and golden.
set -u

usage() {
    cat <<'TEXT'
usage: tests/lit/run.sh [--tools DIR] [--build DIR] FILE

Runs one test file. --tools is where FileCheck lies (default /usr/lib/llvm-22/bin), --build a build
folder holding bin/kerf (default build/dev). KF_BLESS=1 rewrites expected files (see golden).
TEXT
}

here=$(cd "$(dirname "$0")" && pwd)
tools=/usr/lib/llvm-22/bin
build=$here/../../build/dev
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --tools) tools=$2 && shift 2 ;;
    --build) build=$2 && shift 2 ;;
    -*) usage >&2 && exit 2 ;;
    *) break ;;
    esac
done
[ $# = 1 ] && [ -f "$1" ] || { usage >&2 && exit 2; }
build=$(cd "$build" && pwd) || exit 2
folder=$(cd "$(dirname "$1")" && pwd)
file=$folder/$(basename "$1")

if grep -q 'REQUIRES: *gpu' "$file" && [ "${KF_GPU_TESTS:-0}" != 1 ]; then
    echo "skipped: needs a GPU"
    exit 77
fi
if grep -q 'REQUIRES: *unsanitized' "$file" && [ -n "${KF_SANITIZE:-}" ]; then
    echo "skipped: a sanitized build"
    exit 77
fi
[ -x "$build/bin/kerf" ] || { echo "run.sh: no $build/bin/kerf" >&2 && exit 1; }

scratch=$build/tests/lit/$(echo "${file#"$(dirname "$here")"/}" | tr -c 'A-Za-z0-9._\n-' _).dir
rm -rf "$scratch" && mkdir -p "$scratch" || exit 1
cd "$scratch" || exit 1

# One line per command: continuation lines joined, substitutions done by awk so that any path is safe.
commands=$(awk -v s="$file" -v S="$folder" -v t="$scratch/t" -v kerf="$build/bin/kerf" '
    function expand(text,    out, p, c) {
        out = ""
        while ((p = index(text, "%")) > 0) {
            out = out substr(text, 1, p - 1)
            text = substr(text, p + 1)
            c = substr(text, 1, 1)
            if (substr(text, 1, 4) == "kerf") { out = out kerf; text = substr(text, 5) }
            else if (c == "s") { out = out s; text = substr(text, 2) }
            else if (c == "S") { out = out S; text = substr(text, 2) }
            else if (c == "t") { out = out t; text = substr(text, 2) }
            else if (c == "%") { out = out "%"; text = substr(text, 2) }
            else out = out "%"
        }
        return out text
    }
    /RUN:/ {
        sub(/^.*RUN:[ \t]*/, "")
        line = pending $0
        if (line ~ /\\$/) { pending = substr(line, 1, length(line) - 1); next }
        pending = ""
        print expand(line)
    }' "$file")
[ -n "$commands" ] || { echo "run.sh: no RUN: line in $file" >&2 && exit 1; }

export KF_BUILD_DIR=$build
export PATH="$build/bin:$here:$tools:$PATH"
while IFS= read -r command; do
    bash -o pipefail -c "$command" </dev/null
    status=$?
    if [ $status != 0 ]; then
        printf 'RUN: %s\nfailed with status %d; scratch files: %s\n' "$command" $status "$scratch" >&2
        exit 1
    fi
done <<<"$commands"
rm -rf "$scratch"
