#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests of one build folder.
# usage: test.sh FOLDER [ctest option]...
set -euo pipefail
source "$(dirname "$0")/common.sh"
folder=${1:?usage: test.sh FOLDER [ctest option]...}
shift
jobs=$(jobs_that_fit)
# Tests that measure time want cores of their own; more than four at once gains little.
[ "$jobs" -le 4 ] || jobs=4
exec ctest --test-dir "$project/$folder" --parallel "$jobs" --timeout 900 --no-tests=error \
  --output-on-failure "$@"
