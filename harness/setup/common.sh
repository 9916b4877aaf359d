# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# What the set-up scripts share: places, pinned versions, and how they speak. Sourced, not run.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${RAINGAUGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/raingauge}
torch_version=2.11.0
plotly_version=6.5.0
clang_version=14  # of clang-format and clang-tidy: another version formats differently

say() { printf 'raingauge: %s\n' "$*"; }

fail() {
  printf 'raingauge: error: %s\n' "$*" >&2
  exit 1
}

plotly_js=$cache/plotly-$plotly_version/plotly.min.js

find_torch() { "$project/harness/setup/find_torch.sh" "$torch_version" "${RAINGAUGE_TORCH_DIR:-}"; }

torch_kind=${RAINGAUGE_TORCH:-auto}
case $torch_kind in
  auto) [ -e /dev/nvidiactl ] && torch_kind=full || torch_kind=cpu ;;
  cpu | full | off) ;;
  *) fail "RAINGAUGE_TORCH=$torch_kind (allowed: auto, cpu, full, off)" ;;
esac

# Where the tests' Python packages go: one folder for each set of pins and version of Python.
python_packages() {
  printf '%s/python-%s-%s\n' "$cache" \
    "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" \
    "$(cksum <"$project/harness/setup/python.txt" | cut -d ' ' -f 1)"
}

# What PYTHONPATH makes the tests' packages importable: the cached folder, "." where the user's own
# Python has them, nothing where they are missing.
python_for_tests() {
  local folder
  folder=$(python_packages)
  if [ -d "$folder" ]; then
    printf '%s\n' "$folder"
  elif python3 -c 'import h5py, numpy, pytest, diffusers, transformers' 2>/dev/null; then
    printf '.\n'
  fi
}

# project_files PATTERN...: files that git tracks, and new ones that it does not ignore.
project_files() {
  local file
  git -c safe.directory='*' -C "$project" ls-files --cached --others --exclude-standard --deduplicate \
    -- "$@" |
    while read -r file; do  # one deleted but not yet committed is still listed
      [ ! -e "$project/$file" ] || printf '%s\n' "$file"
    done
}

# How many compilers at once: one a core, and 2 GB of memory for each (a file that includes libtorch
# takes that much).
jobs_that_fit() {
  local cores megabytes limit
  cores=$(nproc)
  megabytes=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)  # a container's share
  if [ "$limit" != max ] && [ $((limit / 1048576)) -lt "$megabytes" ]; then
    megabytes=$((limit / 1048576))
  fi
  local fit=$((megabytes / 2048))
  [ "$fit" -lt "$cores" ] || fit=$cores
  [ "$fit" -ge 1 ] || fit=1
  echo "$fit"
}
