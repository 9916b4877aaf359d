// SPDX-License-Identifier: Apache-2.0
// Run-time choice between the levels compiled into this binary.
#include "methods/kernels/cpu/dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <utility>

#include "data/error.h"

namespace raingauge::cpu {
namespace {

struct Level {
  const LevelOps* ops;
  bool available;
};

#if defined(__x86_64__)
// By CPUID bit, where not every compiler in use has a name for the feature.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 29)) != 0;
}

bool has_avx512_bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1U << 5)) != 0;
}

// Matrix tiles of bf16, with the system's leave: Linux grants a process their 8 KB of registers when
// asked (5.16 and later; documented in its x86/xstate text), and refuses where the CPU has none.
bool has_amx_bf16() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  constexpr unsigned kBf16 = 1U << 22, kTile = 1U << 24;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBf16) != 0 &&
         (edx & kTile) != 0 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// Best first. __builtin_cpu_supports also asks whether the system saves the wide registers.
// Intel cores up to Emerald Rapids start a 512-bit VDPBF16PS every second cycle but two fused
// multiply-adds every cycle (measured: 89 against 179 GFLOP/s), so without AMX fp32 is twice as fast
// there and more exact; AMD's Zen 4 and 5 do twice the bf16 work of fp32. The choice follows the vendor, not a
// timing, so that equal machines give equal bits.
std::vector<Level> find_levels() {
  std::vector<Level> levels;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool bf16 = avx512 && has_avx512_bf16();
  levels.push_back({&amx_bf16_ops(), bf16 && has_amx_bf16()});
  levels.push_back({&avx512_bf16_ops(), bf16});
  levels.push_back({&avx512_ops(), avx512});
  if (__builtin_cpu_is("intel")) {
    std::swap(levels[1], levels[2]);
  }
  levels.push_back({&avx2_ops(), avx2});
#endif
  levels.push_back({&portable_ops(), true});
  return levels;
}

// Asked once: CPUID is slow on virtual machines.
const std::vector<Level>& all_levels() {
  static const std::vector<Level> levels = find_levels();
  return levels;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

}  // namespace

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (const Level& level : all_levels()) {
    if (level.available) {
      names.emplace_back(level.ops->name);
    }
  }
  return names;
}

std::vector<std::string> compiled_levels() {
  std::vector<std::string> names;
  for (const Level& level : all_levels()) {
    names.emplace_back(level.ops->name);
  }
  return names;
}

const LevelOps& level_ops(const std::string& name) {
  for (const Level& level : all_levels()) {
    if (name.empty() ? level.available : level.ops->name == name) {
      if (!level.available) {
        throw Unsupported("cpu: this machine cannot run isa '" + name +
                          "'; it can run: " + join(available_levels()));
      }
      return *level.ops;
    }
  }
  throw Error(
      "cpu: unknown isa '" + name +
      "'; known: amx_bf16, avx512_bf16, avx512, avx2, portable, or empty for the best here");
}

std::size_t scratch_floats(int head_dim) {
  const auto dim = static_cast<std::size_t>((head_dim + kUnit - 1) / kUnit * kUnit);
  const std::size_t rows = kMaxTileRows;
  // Output accumulators, scores, probabilities, and per-row maximum and sum; a group of query rows.
  return rows * dim + rows * kChunkKeys * 2 + rows * 4 + rows * dim;
}

}  // namespace raingauge::cpu
