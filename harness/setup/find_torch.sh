#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Which torch does this build, or this run of a bundle, use? Prints its folder: the one given, the
# whole set in the cache, the user's own Python's, or the three C++ wheels in the cache. Exit 1 when
# there is none of the wanted version.
# usage: find_torch.sh VERSION [FOLDER]
set -u
version=$1
cache=${RAINGAUGE_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/raingauge}

is_wanted() {
  # 2.11.0 and 2.11.0+cu130, not 2.11.0a0 or 2.11.01.
  [ -e "$1/lib/libtorch_cpu.so" ] &&
    grep -qE "^__version__ = '${version//./\\.}(\+[a-z0-9.]+)?'" "$1/version.py" 2>/dev/null
}

found() {
  is_wanted "$1" && printf '%s\n' "$1"
}

if [ -n "${2:-}" ]; then
  found "$2" && exit 0
  echo "no torch $version in $2" >&2
  exit 1
fi
found "$cache/torch-$version-full/torch" && exit 0
own=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' \
  2>/dev/null)
[ -n "$own" ] && found "$own" && exit 0
found "$cache/torch-$version/torch"
