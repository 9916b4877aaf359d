// SPDX-License-Identifier: Apache-2.0
// `raingauge parity OURS THEIRS`: an output of `raingauge attend`, or a plan, against what another
// program computed, whatever the layout of its array.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/array_file.h"
#include "data/attention_file.h"
#include "data/error.h"
#include "data/plan_file.h"
#include "harness/commands/commands.h"
#include "harness/commands/distance.h"
#include "harness/rows.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

// An array of another program as float32 in storage order.
struct Foreign {
  std::string where;
  std::vector<std::int64_t> shape;  // without leading ones
  std::vector<float> values;
};

bool is_hdf5(const std::string& path) { return path.ends_with(".h5") || path.ends_with(".hdf5"); }

Foreign read_foreign(const ParityCommand& options) {
  if (is_hdf5(options.theirs)) {
    AttentionFile file = read_attention_file(options.theirs);
    return {options.theirs, {file.heads, file.tokens, file.head_dim}, std::move(file.o)};
  }
  const ArrayFile file = open_arrays(options.theirs);
  const bool only = options.tensor.empty() && file.arrays.size() == 1;
  const StoredArray& array =
      only ? file.arrays.front() : find_array(file, options.tensor.empty() ? "o" : options.tensor);
  if (array.fortran_order) {
    throw Error(options.theirs + ": stored in Fortran order; store numpy.ascontiguousarray(x)");
  }
  Foreign foreign{options.theirs + (array.name.empty() ? "" : ": " + array.name), array.shape, {}};
  while (foreign.shape.size() > 2 && foreign.shape.front() == 1) {
    foreign.shape.erase(foreign.shape.begin());
  }
  foreign.values.reserve(static_cast<std::size_t>(array.elements()));
  constexpr std::int64_t kPiece = 1 << 20;
  for (std::int64_t at = 0; at < array.elements(); at += kPiece) {
    const auto piece = read_elements(file, array, at, std::min(kPiece, array.elements() - at));
    for (const double value : piece) foreign.values.push_back(static_cast<float>(value));
  }
  return foreign;
}

// One way to read the foreign array as [heads, tokens, head_dim].
struct Layout {
  std::string name;
  std::int64_t head_stride, token_stride;
};

std::vector<Layout> layouts_that_fit(const AttentionFile& ours, const Foreign& theirs,
                                     const std::string& wanted) {
  const auto& s = theirs.shape;
  const std::int64_t h = ours.heads, n = ours.tokens, d = ours.head_dim;
  std::vector<Layout> fit;
  if (s == std::vector<std::int64_t>{h, n, d} && wanted != "nhd") fit.push_back({"hnd", n * d, d});
  if (s == std::vector<std::int64_t>{n, h, d} && wanted != "hnd") fit.push_back({"nhd", d, h * d});
  if (s == std::vector<std::int64_t>{n, h * d} && wanted != "hnd") fit.push_back({"nhd", d, h * d});
  if (!fit.empty()) return fit;
  std::string shape;
  for (const auto side : s) shape += (shape.empty() ? "" : ", ") + std::to_string(side);
  throw Error(
      theirs.where + " has shape [" + shape + "]; ours is " + std::to_string(h) + " heads, " +
      std::to_string(n) + " tokens, head_dim " + std::to_string(d) +
      ": allowed are [heads, tokens, head_dim], [tokens, heads, head_dim], [tokens, heads * "
      "head_dim], also with a batch of 1 in front");
}

std::vector<Distance> distances(const AttentionFile& ours, const Foreign& theirs,
                                const Layout& layout) {
  std::vector<Distance> all;
  const auto head_size = static_cast<std::size_t>(ours.tokens * ours.head_dim);
  std::vector<float> head(head_size);
  for (std::int64_t h = 0; h < ours.heads; ++h) {
    for (std::int64_t t = 0; t < ours.tokens; ++t) {
      std::copy_n(theirs.values.data() + h * layout.head_stride + t * layout.token_stride,
                  ours.head_dim, head.begin() + t * ours.head_dim);
    }
    all.push_back(distance(
        std::span(ours.o).subspan(static_cast<std::size_t>(h) * head_size, head_size), head));
  }
  return all;
}

double worst_of(const std::vector<Distance>& all) {
  double worst = 0.0;
  for (const Distance& d : all) {
    if (!(d.rel_l2 <= worst)) worst = d.rel_l2;
    if (std::isnan(worst)) return worst;
  }
  return worst;
}

int compare_outputs(const ParityCommand& options) {
  const AttentionFile ours = read_attention_file(options.ours);
  const Foreign theirs = read_foreign(options);
  std::optional<Layout> chosen;
  std::vector<Distance> best;
  // Square shapes fit two layouts: the right one is that in which the outputs agree better.
  for (const Layout& layout : layouts_that_fit(ours, theirs, options.layout)) {
    auto all = distances(ours, theirs, layout);
    if (chosen && !(worst_of(all) < worst_of(best))) continue;
    chosen = layout;
    best = std::move(all);
  }
  const double worst = worst_of(best);
  const bool equal = worst <= options.tolerance;
  if (options.json) {
    json heads = json::array();
    for (const Distance& d : best) {
      heads.push_back({{"max_abs", number_or_null(d.max_abs)},
                       {"rel_l2", number_or_null(d.rel_l2)},
                       {"cosine", number_or_null(d.cosine)}});
    }
    const json out = {{"parity", equal},
                      {"layout", chosen->name},
                      {"worst_rel_l2", number_or_null(worst)},
                      {"tolerance", options.tolerance},
                      {"heads", heads}};
    std::printf("%s\n", out.dump(1).c_str());
    return equal ? 0 : 2;
  }
  Table table({{"head"}, {"max_abs"}, {"rel_l2"}, {"cosine"}});
  for (std::size_t h = 0; h < best.size(); ++h) {
    table.add_row({std::to_string(h), format_number(best[h].max_abs, 6),
                   format_number(best[h].rel_l2, 6), format_number(best[h].cosine, 6)});
  }
  std::printf("%s\nlayout %s; worst relative L2 distance %g (tolerance %g): %s\n",
              table.text().c_str(), chosen->name.c_str(), worst, options.tolerance,
              equal ? "parity" : "NO parity");
  return equal ? 0 : 2;
}

int compare_masks(const ParityCommand& options, const PlanFile& ours) {
  const Foreign theirs = read_foreign(options);
  const Plan& plan = ours.plan;
  const std::int64_t rows = plan.q_blocks.blocks;
  const std::int64_t columns = plan.k_blocks.blocks;
  const bool shared = theirs.shape == std::vector<std::int64_t>{rows, columns};
  if (!shared && theirs.shape != std::vector<std::int64_t>{plan.heads, rows, columns}) {
    throw Error(theirs.where + ": a mask against this plan is [" + std::to_string(plan.heads) +
                ", " + std::to_string(rows) + ", " + std::to_string(columns) +
                "] or, the same for all heads, without the first");
  }
  json heads = json::array();
  std::int64_t total = 0;
  for (std::int64_t h = 0; h < plan.heads; ++h) {
    const float* mask = theirs.values.data() + (shared ? 0 : h) * rows * columns;
    std::int64_t only_ours = 0;
    std::int64_t only_theirs = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      std::vector<char> kept(static_cast<std::size_t>(columns), 0);
      for (std::int64_t c = 0; c < plan.lists.count(h, i); ++c) {
        kept[static_cast<std::size_t>(plan.lists.begin(h, i)[c])] = 1;
      }
      for (std::int64_t j = 0; j < columns; ++j) {
        const bool other = mask[i * columns + j] != 0.0F;
        only_ours += kept[static_cast<std::size_t>(j)] != 0 && !other ? 1 : 0;
        only_theirs += kept[static_cast<std::size_t>(j)] == 0 && other ? 1 : 0;
      }
    }
    total += only_ours + only_theirs;
    heads.push_back({{"head", ours.heads[static_cast<std::size_t>(h)]},
                     {"only_ours", only_ours},
                     {"only_theirs", only_theirs}});
  }
  const double share =
      static_cast<double>(total) / static_cast<double>(plan.heads * rows * columns);
  if (options.json) {
    const json out = {
        {"parity", total == 0}, {"hamming", total}, {"share", share}, {"heads", heads}};
    std::printf("%s\n", out.dump(1).c_str());
  } else {
    Table table({{"head"}, {"only ours"}, {"only theirs"}});
    for (const json& head : heads) {
      table.add_row({head["head"].dump(), head["only_ours"].dump(), head["only_theirs"].dump()});
    }
    std::printf("%s\n%lld of %lld block pairs differ (%.4f %%): %s\n", table.text().c_str(),
                static_cast<long long>(total), static_cast<long long>(plan.heads * rows * columns),
                100.0 * share, total == 0 ? "parity" : "NO parity");
  }
  return total == 0 ? 0 : 2;
}

}  // namespace

int parity_command(const ParityCommand& options) {
  std::optional<PlanFile> plan;
  try {
    plan = read_plan(options.ours);
  } catch (const InvalidPlan&) {
    throw;
  } catch (const Error&) {
    // No plan: then an output, whose reader says what is wrong with the file.
  }
  return plan ? compare_masks(options, *plan) : compare_outputs(options);
}

}  // namespace raingauge
