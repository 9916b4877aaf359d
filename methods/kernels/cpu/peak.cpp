// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cpu/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/threads.h"

namespace raingauge::cpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

MeasuredPeak measure_peak(const KernelOptions& options, DType dtype, double milliseconds) {
  const LevelOps& ops = level_ops(options.isa);
  const int threads = resolve_threads(options.threads);
  const Products products = dtype == DType::bf16 ? ops.bf16 : Products::floats;
  MeasuredPeak peak;
  constexpr std::string_view kNames[] = {" fp32", " bf16 pairs", " bf16 tiles"};
  peak.arithmetic = std::string(ops.name).append(kNames[static_cast<int>(products)]);
  constexpr std::int64_t kRounds = 1'000'000;  // about two milliseconds: far above a thread's start
  constexpr int kLeastAttempts = 5;
  constexpr std::size_t kApart = 16;  // doubles between two threads' results: a line of their own
  std::vector<double> flops(static_cast<std::size_t>(threads) * kApart);
  const auto begin = Clock::now();
  for (int attempt = 0; attempt < kLeastAttempts || seconds_since(begin) * 1e3 < milliseconds;
       ++attempt) {
    const auto start = Clock::now();
    parallel_for(threads, threads, [&](std::int64_t item, int) {
      flops[static_cast<std::size_t>(item) * kApart] = ops.spin(products, kRounds);
    });
    const double seconds = seconds_since(start);
    double total = 0.0;
    for (const double part : flops) total += part;
    peak.gflops = std::max(peak.gflops, total / seconds * 1e-9);
  }
  return peak;
}

}  // namespace raingauge::cpu
