// SPDX-License-Identifier: Apache-2.0
// What every benchmark here shares: the check before, the peak beside, the counters after.
#pragma once

#include <benchmark/benchmark.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "data/plan.h"
#include "harness/bench/inputs.h"
#include "harness/bench/options.h"
#include "harness/latency.h"
#include "harness/roofline.h"

namespace raingauge::bench {

// Our own dense attention on the same input with as many threads, once it has been timed in this run.
struct DenseTime {
  double seconds = 0.0;
  double flops = 0.0;
};

// State of one run of the program.
class Session {
 public:
  explicit Session(const Options& options) : options_(options) {}
  const Options& options() const { return options_; }

  // Runs `check` once for each key; it throws when what is to be timed is wrong. False: the benchmark
  // has been marked as failed, with the reason.
  bool passes(benchmark::State& state, const std::string& key, const std::function<void()>& check);

  // Output memory for an input; the last one is kept.
  KernelArena& arena(Input& input);

  void remember_dense(const std::string& input, int threads, const DenseTime& time);
  const DenseTime* dense(const std::string& input, int threads) const;

  // Marks the benchmark, and the whole run, as failed.
  void fail(benchmark::State& state, const std::string& reason);
  bool failed() const { return failed_; }

 private:
  Options options_;
  std::map<std::string, std::string> checked_;  // key -> why it failed, empty when it passed
  std::string arena_label_;
  std::unique_ptr<KernelArena> arena_;
  std::map<std::pair<std::string, int>, DenseTime> dense_;
  bool failed_ = false;
};

// The peak of the cores around one benchmark: create before the loop, ask after it.
class PeakControl {
 public:
  PeakControl(const Session& session, int threads, DType dtype);
  // gflops, peak_gflops, percent_of_peak, flops, bytes, load1. `seconds`: of one iteration's
  // arithmetic. No FLOPs: the rates are left out.
  void report(benchmark::State& state, const AttentionWork& work, double seconds);

 private:
  KernelOptions options_;
  DType dtype_;
  double before_ = 0.0;
};

// Seconds that `work` takes.
template <class Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

using Body = std::function<void(benchmark::State& state)>;

// Registers `body` under a name made of parts; it times itself (manual time, milliseconds). What it
// throws becomes the benchmark's error.
void add_benchmark(Session& session, const std::string& name, const Body& body);

// Registered by part; each takes every input, and lives until the session ends.
void add_attention(Session& session, const std::vector<std::shared_ptr<Input>>& inputs);
void add_peers(Session& session, const std::vector<std::shared_ptr<Input>>& inputs);
void add_prediction(Session& session, const std::vector<std::shared_ptr<Input>>& inputs);
void add_packing(Session& session, const std::vector<std::shared_ptr<Input>>& inputs);
void add_oracle(Session& session, const std::vector<std::shared_ptr<Input>>& inputs);
void add_rows(Session& session, const std::vector<std::shared_ptr<Input>>& inputs);

}  // namespace raingauge::bench
