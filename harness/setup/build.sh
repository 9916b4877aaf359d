#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Configures and builds one preset of CMakePresets.json with what this machine has: Ninja or make, as
# many compilers as its memory carries.
# usage: build.sh [--configure-only] PRESET [CMake option]...
#   RAINGAUGE_JOBS=N   compilers at once
set -euo pipefail
source "$(dirname "$0")/common.sh"
build=yes
[ "${1:-}" != --configure-only ] || { build=no; shift; }
preset=${1:?usage: build.sh [--configure-only] PRESET [CMake option]...}
shift
cd "$project"
folder=build/$preset
[ "$preset" != ci ] || folder=build/release

# A folder stays with the generator that made it; a new one gets Ninja where there is Ninja.
generator=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$folder/CMakeCache.txt" 2>/dev/null || true)
if [ -z "$generator" ]; then
  command -v ninja >/dev/null && generator=Ninja || generator="Unix Makefiles"
fi
options=("$@")
[ "$torch_kind" != off ] || options+=(-DRAINGAUGE_WITH_TORCH=OFF)
[ -z "${RAINGAUGE_TORCH_DIR:-}" ] || options+=("-DRAINGAUGE_TORCH_DIR=$RAINGAUGE_TORCH_DIR")

[ ! -e "$plotly_js" ] || options+=("-DRAINGAUGE_PLOTLY_JS=$plotly_js")

unset MAKEFLAGS MFLAGS MAKELEVEL  # called from make, yet not one of its jobs
jobs=${RAINGAUGE_JOBS:-$(jobs_that_fit)}
say "$folder ($generator, $jobs at once)"
cmake --preset "$preset" -G "$generator" "${options[@]}"
[ "$build" = no ] || cmake --build "$folder" --parallel "$jobs"
