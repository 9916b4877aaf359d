#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What does this machine lack for a build, and how does it get it? Debian 12 and Ubuntu 24.04.
# Installs only what is missing: a second call runs no package manager and works without a network.
#
# usage: setup.sh build|test|format|lint|bundle...
#
#   RAINGAUGE_CACHE=DIR    where libtorch and the tests' Python packages live, shared by all clones
#                          (default: ${XDG_CACHE_HOME:-~/.cache}/raingauge)
#   RAINGAUGE_TORCH=cpu    the three wheels that C++ needs (1.2 GB)
#                  =full   the whole set, for `import torch` and CUDA tensors (4.7 GB)
#                  =off    no libtorch: the demo DiT and the torch_* kernels are not built
#                  =auto   (default) full for the tests and where an NVIDIA GPU is seen, else cpu
#   RAINGAUGE_SETUP=off    install nothing at all
# shellcheck disable=SC2086,SC2207  # names of packages hold no spaces
set -euo pipefail
source "$(dirname "$0")/common.sh"

# command:package. A command counts wherever it comes from; of a library, the package must be there.
build_commands=(g++:g++ cmake:cmake make:make git:git python3:python3)
build_packages=(libhdf5-dev libyaml-cpp-dev libbenchmark-dev libgtest-dev libgmock-dev libcli11-dev
  nlohmann-json3-dev)
# A build without these is smaller or slower, not broken. OpenCV as its five parts (video: optical
# flow): the package of everything (libopencv-dev) is 87 MB and some 90 packages more.
build_optional_commands=(ninja:ninja-build)
build_optional_packages=(libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev
  libopencv-videoio-dev libopencv-video-dev)
test_optional_commands=(h5dump:hdf5-tools chromium:chromium)
lint_commands=("clang-format-$clang_version:clang-format-$clang_version"
  "clang-tidy-$clang_version:clang-tidy-$clang_version")
format_commands=("clang-format-$clang_version:clang-format-$clang_version")
bundle_commands=(patchelf:patchelf xz:xz-utils)

torch_wheels=("torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)

# missing_commands command:package...: the packages of the commands that are not there.
missing_commands() {
  local pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
  done
}

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      printf '%s\n' "$package"
  done
}

# Fetching wheels needs pip and, on a bare machine, the certificates.
missing_for_pip() {
  python3 -m pip --version >/dev/null 2>&1 || printf '%s\n' python3-pip
  [ -e /etc/ssl/certs/ca-certificates.crt ] || printf '%s\n' ca-certificates
}

# as_root: the words to put before a command that needs root; fails where there are none.
as_root() {
  [ "$(id -u)" = 0 ] && return 0
  command -v sudo >/dev/null || return 1
  # Without a terminal sudo must not wait for a password.
  { sudo -n true 2>/dev/null || [ -t 0 ]; } && echo sudo
}

apt_install() {
  local root
  root=$(as_root) || return 1
  say "installing $*"
  # One broken third-party source must not stop the rest: what matters is whether the install works.
  $root apt-get -q -o Acquire::Retries=2 -o Acquire::http::Timeout=30 update >/dev/null 2>&1 || true
  $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" </dev/null >"$apt_log" 2>&1
}

# not_tried NAME...: those that no earlier call here failed to install.
not_tried() {
  local name
  for name in "$@"; do
    grep -qxF "$name" "$gave_up" 2>/dev/null || printf '%s\n' "$name"
  done
}

go_without() {
  mkdir -p "$(dirname "$gave_up")"
  printf '%s\n' "$@" >>"$gave_up"
  say "going on without $* (optional): $(why_not)"
}

# install_system REQUIRED OPTIONAL (lists in one string each)
install_system() {
  local required=$1 optional=$2
  if [ -z "$required" ]; then
    [ -n "$optional" ] || return 0
    if [ -z "$(not_tried $optional)" ]; then
      say "without" $optional "(could not be installed before; \`make clean\` forgets that)"
      return 0
    fi
    apt_install $optional || go_without $optional
    return 0
  fi
  apt_install $required $optional && return 0
  # One package that the distribution lacks must not stop the others.
  if [ -n "$optional" ] && as_root >/dev/null && apt_install $required; then
    go_without $optional
    return 0
  fi
  fail "missing: $required
$(why_not)
Have them installed, then call this again:
  sudo apt-get update && sudo apt-get install -y --no-install-recommends $required${optional:+ $optional}
On another distribution install the same libraries and set RAINGAUGE_SETUP=off."
}

why_not() {
  if ! command -v apt-get >/dev/null; then
    echo "this machine has no apt-get"
  elif ! as_root >/dev/null; then
    echo "not root, and sudo is missing or wants a password"
  else
    grep -E '^E:' "$apt_log" 2>/dev/null | tail -n 2 || true
    echo "apt-get could not fetch them (no network?)"
  fi
}

# pip_install FOLDER ARGUMENT...: the folder appears whole or not at all.
pip_install() {
  local folder=$1 partial
  shift
  partial=$(mktemp -d "$cache/partial.XXXXXX")
  # The wheels are unpacked beside their place: /tmp may be small.
  if ! TMPDIR=$partial PIP_USER=0 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
    python3 -m pip install --quiet --no-cache-dir --no-compile --progress-bar off \
    --target "$partial/packages" "$@"; then
    rm -rf "$partial"
    return 1
  fi
  mv "$partial/packages" "$folder"
  rm -rf "$partial"
}

# have_torch: the kind asked for. The cache's three wheels do not serve where the whole set is wanted.
have_torch() {
  local folder
  folder=$(find_torch) || return 1
  [ "$torch_kind" = cpu ] || [ "$folder" != "$cache/torch-$torch_version/torch" ]
}

install_torch() {
  have_torch && return 0
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9  # another clone may be fetching it
  have_torch && return 0
  say "fetching libtorch $torch_version ($torch_kind set) into $cache"
  local options=(--no-deps "${torch_wheels[@]}") folder=$cache/torch-$torch_version
  [ "$torch_kind" = full ] && options=("torch==$torch_version") && folder=$folder-full
  rm -rf "$folder"
  pip_install "$folder" "${options[@]}" || fail "could not fetch libtorch: no network, or no wheel for \
this Python ($(python3 --version)) and processor ($(uname -m)).
Give a torch $torch_version in python3, or set RAINGAUGE_TORCH=off to build without the demo DiT and
the torch_* kernels."
  exec 9>&-
}

# The script alone, out of the wheel: report.html is made without it nowhere, all else is.
install_plotly() {
  [ ! -e "$plotly_js" ] || return 0
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9
  if [ ! -e "$plotly_js" ]; then
    say "fetching plotly $plotly_version into $cache"
    local partial
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    if PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download --quiet --no-deps --no-cache-dir \
      --progress-bar off --dest "$partial" "plotly==$plotly_version" &&
      python3 -c 'import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, open(sys.argv[2], "wb") as target:
    target.write(wheel.read("plotly/package_data/plotly.min.js"))' \
        "$partial"/plotly-*.whl "$partial/plotly.min.js"; then
      mkdir -p "$(dirname "$plotly_js")"
      mv "$partial/plotly.min.js" "$plotly_js"
    else
      say "going on without plotly: this build refuses the report format html"
    fi
    rm -rf "$partial"
  fi
  exec 9>&-
}

install_python() {
  [ -z "$(python_for_tests)" ] || return 0
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9
  if [ -z "$(python_for_tests)" ]; then
    say "fetching the tests' Python packages into $cache"
    # Of torch, which accelerate wants, no other version than the one that the library is built for.
    pip_install "$(python_packages)" -r "$project/harness/setup/python.txt" \
      -c <(echo "torch==$torch_version") ||
      fail "could not fetch the tests' Python packages (harness/setup/python.txt)"
  fi
  exec 9>&-
}

stage() {  # adds to required, optional, wheels
  case $1 in
    build)
      required+=($(missing_commands "${build_commands[@]}") $(missing_packages "${build_packages[@]}"))
      optional+=($(missing_commands "${build_optional_commands[@]}")
        $(missing_packages "${build_optional_packages[@]}"))
      [ "$torch_kind" = off ] || have_torch || wheels=yes
      [ -e "$plotly_js" ] || wheels=yes
      ;;
    test)
      optional+=($(missing_commands "${test_optional_commands[@]}"))
      [ -n "$(python_for_tests)" ] || wheels=yes
      ;;
    format) required+=($(missing_commands "${format_commands[@]}")) ;;
    lint) required+=($(missing_commands "${lint_commands[@]}")) ;;
    bundle)
      required+=($(missing_commands "${bundle_commands[@]}"))
      ;;
    *) fail "no such stage: $1 (allowed: build, test, format, lint, bundle)" ;;
  esac
}

[ "${RAINGAUGE_SETUP:-on}" = off ] && exit 0
[ $# -gt 0 ] || fail "usage: setup.sh build|test|format|lint|bundle..."
apt_log=$(mktemp)
gave_up=$project/build/.not_installed
trap 'rm -f "$apt_log"' EXIT
required=() optional=() wheels=
# The tests of data/capture run torch's Python half.
case " $* " in
  *" test "*) [ -n "${RAINGAUGE_TORCH:-}" ] || torch_kind=full ;;
esac
for name in "$@"; do
  stage "$name"
done
[ -z "$wheels" ] || required+=($(missing_for_pip))
install_system "${required[*]}" "${optional[*]}"
for name in "$@"; do
  case $name in
    build)
      [ "$torch_kind" = off ] || install_torch
      install_plotly
      ;;
    test) install_python ;;
  esac
done
