#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs build/bundle into one archive that runs on a machine without these libraries: the program, the
# small libraries that it links, experiments and weights. libtorch (1.2 GB) and libstdc++ are taken
# from the machine that it is carried to, whose glibc must not be older than this one's.
# usage: bundle.sh
set -euo pipefail
source "$(dirname "$0")/common.sh"
limit_mib=64
cd "$project"
version=$(sed -n 's/^project(raingauge VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
name=raingauge-$version-linux-$(uname -m)
stage=build/stage/$name
rm -rf build/stage
mkdir -p "$stage/bin" "$stage/lib" "$stage/harness/setup"

cp build/bundle/harness/raingauge "$stage/bin/"
strip "$stage/bin/raingauge"
patchelf --set-rpath "\$ORIGIN/../lib" "$stage/bin/raingauge"

# Every library that the loader would take, except the compiler's and those of the torch package.
torch_packages=$(dirname "$(find_torch || echo /nonexistent/torch)")
theirs='^(linux-vdso|ld-linux.*|lib(c|m|dl|rt|util|pthread|resolv|anl|nsl|stdc\+\+|gcc_s|cuda|nvidia-.*))\.so'
ldd build/bundle/harness/raingauge | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' |
  while read -r soname path; do
    [[ ! $soname =~ $theirs && $(readlink -f "$path") != "$(readlink -f "$torch_packages")"/* ]] || continue
    cp -L "$path" "$stage/lib/$soname"
    chmod u+w "$stage/lib/$soname"
    patchelf --set-rpath "\$ORIGIN" "$stage/lib/$soname"
  done

project_files LICENSE experiments data methods/kernels/peers |
  grep -vE '\.(cpp|h|cu|cuh|def)$|CMakeLists\.txt$|^experiments/results/' |
  tar -cf - -T - | tar -xf - -C "$stage"
cp harness/setup/find_torch.sh "$stage/harness/setup/"
needs_torch=
! ldd build/bundle/harness/raingauge | grep -q libtorch_cpu || needs_torch=$torch_version
sed "s/@TORCH_VERSION@/$needs_torch/" harness/setup/launcher.sh.in >"$stage/raingauge"
chmod +x "$stage/raingauge"

archive=build/$name.tar.xz
tar -C build/stage --sort=name --owner=0 --group=0 --numeric-owner -cf - "$name" | xz -6 -T0 >"$archive"
rm -rf build/stage
bytes=$(stat -c %s "$archive")
say "$archive: $((bytes / 1048576)) MiB ($bytes bytes); unpack it anywhere and call $name/raingauge"
[ "$bytes" -lt $((limit_mib * 1048576)) ] || fail "the archive is larger than $limit_mib MiB"
