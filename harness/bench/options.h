// SPDX-License-Identifier: Apache-2.0
// What `raingauge-bench` measures: its command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace raingauge::bench {

struct Options {
  std::vector<std::string> inputs = {"random", "synthetic"};  // or drizzle, FILE.h5[:RECORD]
  std::vector<std::string> parts = {"attend", "peers", "predict", "pack", "oracle", "rows"};
  std::vector<std::string> masks = {"rainfusion2"};  // methods with a density
  std::vector<std::int64_t> tokens = {8192, 16384, 32768};
  std::vector<std::int64_t> head_dims = {64, 128};
  std::vector<int> blocks = {64, 128};
  std::vector<double> densities = {1.0, 0.5, 0.2, 0.1, 0.05};
  std::vector<int> threads = {0};
  int heads = 1;
  int rows = 512;
  std::string dtype = "bf16";
  std::string isa;
  std::uint64_t seed = 1;
};

// Reads what Google Benchmark left of the command line; throws Error, or CLI::ParseError.
Options parse_options(int argc, char** argv);

std::string help_text();

}  // namespace raingauge::bench
