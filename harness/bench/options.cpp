// SPDX-License-Identifier: Apache-2.0
#include "harness/bench/options.h"

#include <CLI/CLI.hpp>
#include <set>

namespace raingauge::bench {
namespace {

constexpr const char* kExamples = R"(
Every timed function is checked first (attention against the fp32 reference on the same plan); one that
fails is reported as an error and not timed. Times are wall clock. Beside every time:
  gflops           FLOPs counted from the plan / time of attention
  peak_gflops      the same cores' measured peak, taken just before and after
  percent_of_peak  gflops / peak_gflops
  flops bytes      counted from the plan: 4 head_dim a kept pair; rows, kept keys and values, output
  density load1    kept pairs / all pairs; the machine's load average
Sparse rows time plan + prepare + attend (plan_ms, prepare_ms, attend_ms); vs_dense is our dense
attention's time over theirs. Look at load1 before believing anything: this wants an idle machine.

Examples
  raingauge-bench                                   everything; takes many minutes
  raingauge-bench --tokens 8192 --head-dim 128 --block 128 --parts attend
                                                    our kernel at one size, all densities
  raingauge-bench --inputs drizzle --block 128      masks and values of the demo model's own clip
  raingauge-bench --inputs clip.h5:12 --heads 4     record 12 of a capture
  raingauge-bench --threads 1,2 --isa avx2          one and two threads, at a given instruction set
  raingauge-bench --benchmark_filter=attend.*density:0.2
  raingauge-bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
                                                    interleaved repetitions, with their spread
  raingauge-bench --benchmark_out=runs/latency/bench.json --benchmark_out_format=json
                                                    `raingauge report runs/latency` reads bench*.json

Of Google Benchmark's own options: --benchmark_filter=REGEX --benchmark_min_time=SECONDS
--benchmark_repetitions=N --benchmark_list_tests=true --benchmark_out=FILE --benchmark_out_format=json
--benchmark_enable_random_interleaving=true --benchmark_format=console|json|csv)";

const std::set<std::string> kParts = {"attend", "peers", "predict", "pack", "oracle", "rows"};

void describe(CLI::App& app, Options& options) {
  app.footer(kExamples);
  app.add_option(
         "--inputs", options.inputs,
         "random, synthetic (planted structure), drizzle (the demo model), FILE.h5[:RECORD]")
      ->delimiter(',');
  app.add_option("--parts", options.parts, "attend, peers (libtorch), predict, pack, oracle, rows")
      ->delimiter(',')
      ->check(CLI::IsMember(kParts));
  app.add_option("--mask", options.masks,
                 "methods that choose the blocks, without a sink: rainfusion2, random …")
      ->delimiter(',');
  app.add_option("--tokens", options.tokens, "of random and synthetic inputs: multiples of 256")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--head-dim", options.head_dims, "of random and synthetic inputs")
      ->delimiter(',')
      ->check(CLI::Range(8, 256));
  app.add_option("--block", options.blocks, "tokens of a block")
      ->delimiter(',')
      ->check(CLI::Range(16, 65536));
  app.add_option("--density", options.densities, "kept pairs / all pairs; 1 is dense attention")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--threads", options.threads, "0: all cores")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  app.add_option("--heads", options.heads, "heads measured together")->check(CLI::PositiveNumber);
  app.add_option("--rows", options.rows, "query rows of the row evaluator")
      ->check(CLI::PositiveNumber);
  app.add_option("--dtype", options.dtype, "of random and synthetic inputs")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}));
  app.add_option("--isa", options.isa,
                 "amx_bf16, avx512_bf16, avx512, avx2, portable; default: the best here");
  app.add_option("--seed", options.seed, "of random and synthetic inputs");
  for (CLI::Option* option : app.get_options()) option->capture_default_str();
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app{"Latency of the parts of sparse attention on this CPU.", "raingauge-bench"};
  describe(app, options);
  app.parse(argc, argv);
  return options;
}

std::string help_text() {
  Options options;
  CLI::App app{"Latency of the parts of sparse attention on this CPU.", "raingauge-bench"};
  describe(app, options);
  return app.help();
}

}  // namespace raingauge::bench
