#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Is the C++ formatted as .clang-format says, and free of what .clang-tidy finds?
# usage: lint.sh format|check-format|tidy [FILE...]   (no FILE: all; RAINGAUGE_SINCE=COMMIT: changed since)
set -euo pipefail
source "$(dirname "$0")/common.sh"
action=${1:?usage: lint.sh format|check-format|tidy [FILE...]}
shift
cd "$project"

# sources PATTERN...: all of them, or those changed since a commit.
sources() {
  if [ -z "${RAINGAUGE_SINCE:-}" ]; then
    project_files "$@"
  else
    { git diff --name-only --diff-filter=d "$RAINGAUGE_SINCE" -- "$@"
      git ls-files --others --exclude-standard -- "$@"; } | sort -u
  fi
}

formatted=('*.h' '*.cpp' '*.cu' '*.cuh')
[ $# -eq 0 ] || files=$(printf '%s\n' "$@")
case $action in
  format | check-format)
    options=(-i)
    [ "$action" = format ] || options=(--dry-run -Werror)
    : "${files=$(sources "${formatted[@]}")}"
    [ -n "$files" ] || { say "no files to format"; exit 0; }
    printf '%s\n' "$files" | xargs -d '\n' -n 40 -P "$(nproc)" "clang-format-$clang_version" "${options[@]}"
    say "$action: $(printf '%s\n' "$files" | wc -l) files"
    ;;
  tidy)
    : "${files=$(sources '*.cpp')}"
    [ -e build/release/compile_commands.json ] || fail "no build/release: call \`make build\` first"
    # What this machine does not build (CUDA, libtorch) has no compile command to check it with.
    files=$(printf '%s\n' "$files" | while read -r file; do
      ! grep -qF "\"file\": \"$project/$file\"" build/release/compile_commands.json || echo "$file"
    done)
    [ -n "$files" ] || { say "no files to check"; exit 0; }
    printf '%s\n' "$files" | xargs -d '\n' -n 1 -P "$(jobs_that_fit)" \
      "clang-tidy-$clang_version" -p build/release --quiet --warnings-as-errors='*'
    say "tidy: $(printf '%s\n' "$files" | wc -l) files"
    ;;
  *) fail "no such action: $action (allowed: format, check-format, tidy)" ;;
esac
