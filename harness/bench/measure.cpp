// SPDX-License-Identifier: Apache-2.0
#include "harness/bench/measure.h"

#include <algorithm>
#include <exception>

#include "methods/kernels/cpu/peak.h"

namespace raingauge::bench {

bool Session::passes(benchmark::State& state, const std::string& key,
                     const std::function<void()>& check) {
  const auto [entry, first] = checked_.try_emplace(key);
  if (first) {
    try {
      check();
    } catch (const std::exception& error) {
      entry->second = error.what();
    }
  }
  if (!entry->second.empty()) fail(state, entry->second);
  return entry->second.empty();
}

void Session::fail(benchmark::State& state, const std::string& reason) {
  failed_ = true;
  state.SkipWithError(reason.c_str());
}

KernelArena& Session::arena(Input& input) {
  if (!arena_ || arena_label_ != input.label()) {
    arena_.reset();
    arena_ = make_arena(input.view(), {});
    arena_label_ = input.label();
  }
  return *arena_;
}

void Session::remember_dense(const std::string& input, int threads, const DenseTime& time) {
  dense_[{input, threads}] = time;
}

const DenseTime* Session::dense(const std::string& input, int threads) const {
  const auto found = dense_.find({input, threads});
  return found == dense_.end() ? nullptr : &found->second;
}

PeakControl::PeakControl(const Session& session, int threads, DType dtype)
    : options_{.threads = threads, .isa = session.options().isa},
      dtype_(dtype),
      before_(cpu::measure_peak(options_, dtype).gflops) {}

void PeakControl::report(benchmark::State& state, const AttentionWork& work, double seconds) {
  const double peak = std::max(before_, cpu::measure_peak(options_, dtype_).gflops);
  state.counters["peak_gflops"] = peak;
  state.counters["load1"] = load_average_1();
  if (work.bytes > 0.0) state.counters["bytes"] = work.bytes;
  if (work.flops <= 0.0 || seconds <= 0.0) return;
  const double gflops = work.flops / seconds * 1e-9;
  state.counters["flops"] = work.flops;
  state.counters["gflops"] = gflops;
  state.counters["percent_of_peak"] = 100.0 * gflops / peak;
}

void add_benchmark(Session& session, const std::string& name, const Body& body) {
  const auto guarded = [body, &session](benchmark::State& state) {
    try {
      body(state);
    } catch (const std::exception& error) {
      session.fail(state, error.what());
    }
  };
  benchmark::RegisterBenchmark(name.c_str(), guarded)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace raingauge::bench
