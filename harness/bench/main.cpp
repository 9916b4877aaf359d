// SPDX-License-Identifier: Apache-2.0
// raingauge-bench: Google Benchmark over the parts of sparse attention on this CPU.
#include <benchmark/benchmark.h>

#include <CLI/Error.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>

#include "harness/bench/measure.h"
#include "harness/manifest.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/peak.h"

namespace {

using namespace raingauge;

void print_help() { std::printf("%s\n", bench::help_text().c_str()); }

void describe_run(const bench::Options& options, const std::string& command) {
  const auto machine = describe_machine();
  benchmark::AddCustomContext("raingauge_command", command);
  benchmark::AddCustomContext("raingauge_commit", git_commit());
  benchmark::AddCustomContext("cpu", machine.at("cpu").get<std::string>());
  benchmark::AddCustomContext("usable_cores", machine.at("usable").dump());
  benchmark::AddCustomContext("compiler", describe_build().at("compiler").get<std::string>());
  benchmark::AddCustomContext("flags", RAINGAUGE_BENCH_FLAGS);
  benchmark::AddCustomContext("isa", std::string(cpu::level_ops(options.isa).name));
  std::string named;
  for (const DType dtype : {parse_dtype(options.dtype), DType::f32}) {
    const auto peak = cpu::measure_peak({.threads = 1, .isa = options.isa}, dtype, 200.0);
    if (peak.arithmetic == named) continue;
    named = peak.arithmetic;
    benchmark::AddCustomContext("peak of one thread, " + named,
                                std::to_string(peak.gflops) + " GFLOP/s");
  }
}

void register_parts(bench::Session& session,
                    const std::vector<std::shared_ptr<bench::Input>>& inputs) {
  const auto wanted = [&](const char* part) {
    const auto& parts = session.options().parts;
    return std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  if (wanted("attend")) bench::add_attention(session, inputs);
  if (wanted("peers")) bench::add_peers(session, inputs);
  if (wanted("predict")) bench::add_prediction(session, inputs);
  if (wanted("pack")) bench::add_packing(session, inputs);
  if (wanted("oracle")) bench::add_oracle(session, inputs);
  if (wanted("rows")) bench::add_rows(session, inputs);
}

int run(int argc, char** argv) {
  const std::string command = shell_line({argv, argv + argc});
  benchmark::Initialize(&argc, argv, print_help);
  const bench::Options options = bench::parse_options(argc, argv);
  bench::Session session(options);
  const auto inputs = bench::make_inputs(options);
  register_parts(session, inputs);
  describe_run(options, command);
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  if (session.failed()) return 2;
  return ran == 0 ? 3 : 0;  // as `raingauge`: 2 something is wrong, 3 nothing matched
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const CLI::Error& error) {
    std::fprintf(stderr, "raingauge-bench: %s (see --help)\n", error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "raingauge-bench: %s\n", error.what());
  }
  return 1;
}
