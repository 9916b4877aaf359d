#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The Python of the tests: python3 with the packages of python.txt and, where the whole set of it was
# fetched, torch. `make test` installs them.
# usage: python.sh ARGUMENT...   (those of python3)
set -euo pipefail
source "$(dirname "$0")/common.sh"
path=$(python_for_tests)
# Without a network the user's own Python may serve most of the tests.
[ -n "$path" ] || ! python3 -c 'import h5py, numpy, pytest' 2>/dev/null || path=.
[ -n "$path" ] || fail "h5py, numpy or pytest missing: call \`make test\` once, or install them"
[ "$path" != . ] || path=
torch=$cache/torch-$torch_version-full
# First: packages may have brought a torch of their own, and the library is built for this one.
[ ! -d "$torch" ] || path=$torch${path:+:$path}
[ -z "$path" ] || export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH}
exec python3 "$@"
