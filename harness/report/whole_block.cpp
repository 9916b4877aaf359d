// SPDX-License-Identifier: Apache-2.0
// What a transformer block gains from faster attention, where the rest of the block was timed too.
#include <cmath>

#include "harness/report/run_data.h"

namespace raingauge {
namespace {

using nlohmann::json;

ReportTable block_table() {
  ReportTable table;
  table.id = "block";
  table.title = "One transformer block";
  table.note =
      "Random weights at the model's size, libtorch's operators: time alone, nothing of quality. "
      "Attention counts with every phase but prepare; the dense denominator is the attend of the "
      "fastest dense kernel.";
  table.columns = {
      {"arm", "", false},
      {"kernel", "", false},
      {"capture", "", false},
      {"density", formula_of("density_pairs"), true},
      {"rest ms", "median; everything in the block but attention", true},
      {"dense share", "dense attention / (rest + dense attention)", true},
      {"block ms", "rest + this row's attention", true},
      {"block speed-up", "(rest + dense attention) / block", true},
      {"check ms", "median; the block with libtorch's own dense attention inside, timed whole",
       true}};
  return table;
}

std::vector<Cell> block_row(const json& row, Document& document) {
  Number number;
  number.table = "block";
  number.arm = row.value("arm", "");
  number.kernel = row.value("kernel", "");
  number.scope = capture_name(row);
  number.unit_of_n = "samples";
  const int n = row.at("surroundings_ms").value("n", 0);
  const auto cell = [&](const char* metric, double value) -> Cell {
    if (!std::isfinite(value)) return "n/a";
    number.metric = metric;
    return Cell::of(add_plain(document, number, value, n), 3);
  };
  return {number.arm,
          number.kernel,
          number.scope,
          cell("density_pairs", number_of(row, "density_pairs")),
          cell("surroundings_ms", median_of(row, "surroundings_ms")),
          cell("dense_attention_share", number_of(row, "dense_attention_share")),
          cell("block_ms", number_of(row, "block_ms")),
          cell("block_speedup_vs_dense", number_of(row, "block_speedup_vs_dense")),
          cell("dense_inline_ms", median_of(row, "dense_inline_ms"))};
}

}  // namespace

void add_blocks(const RunData& data, Document& document) {
  ReportTable table = block_table();
  for (const auto& row : data.latency) {
    if (row.value("outcome", "") != "ok" || !row.contains("surroundings_ms")) continue;
    table.rows.push_back(block_row(row, document));
  }
  if (table.rows.empty()) return;
  document.section("latency", "Latency by phase").blocks.emplace_back(std::move(table));
}

}  // namespace raingauge
