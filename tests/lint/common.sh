# SPDX-License-Identifier: Apache-2.0
# common.sh - sourced by the lints: enters the source tree and lists its files.
set -u
if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '3,/^set\|^\./{/^#/s/^# \{0,1\}//p}' "$0"
    exit 0
fi
cd "${1:-.}" || exit 2

# list_files REGEX FOLDER...: tracked and new files (without ignored ones) whose path matches.
list_files() {
    local regex=$1
    shift
    { git -c safe.directory='*' ls-files -co --exclude-standard -- "$@" 2>/dev/null ||
        find "$@" -type f -not -path './build/*' 2>/dev/null; } |
        sed 's|^\./||' | grep -E "$regex" | sort -u | while IFS= read -r file; do
        [ -f "$file" ] && echo "$file"
    done
}

compiler_folders="base ir frontend passes codegen tune driver"
