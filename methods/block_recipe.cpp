// SPDX-License-Identifier: Apache-2.0
#include "methods/block_recipe.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

#include "methods/kernels/threads.h"
#include "methods/plan_heads.h"

namespace raingauge {
namespace {

// What the budget needs to know of the blocks of one head.
struct BlockCounts {
  // Tokens per score block as the plan executes them: block x of the scores is block x of the plan,
  // and one beyond the last has none. Only valid keys count.
  std::vector<std::int64_t> row_tokens, column_tokens;
  // A key block without any valid key is no candidate, whatever it holds.
  std::vector<std::uint8_t> row_exists, column_exists;
};

std::int64_t valid_tokens(const Layout& layout, std::int64_t block, const Orders& order,
                          std::int64_t head, const std::uint8_t* key_valid) {
  if (key_valid == nullptr) return layout.size(0, block);
  std::int64_t count = 0;
  for (auto p = layout.begin(0, block); p < layout.end(0, block); ++p) {
    count += key_valid[order.token(head, p)] != 0 ? 1 : 0;
  }
  return count;
}

void count_blocks(const Layout& scored, const Layout& executed, const Orders& order,
                  std::int64_t head, const std::uint8_t* key_valid,
                  std::vector<std::int64_t>& tokens, std::vector<std::uint8_t>& exists) {
  for (std::int64_t block = 0; block < scored.blocks; ++block) {
    tokens.push_back(block < executed.blocks ? valid_tokens(executed, block, order, head, key_valid)
                                             : 0);
    exists.push_back(valid_tokens(scored, block, order, head, key_valid) > 0 ? 1 : 0);
  }
}

BlockCounts block_counts(const Arrangement& arrangement, const TokenOrders& orders,
                         std::int64_t head, const std::uint8_t* key_valid) {
  BlockCounts counts;
  count_blocks(arrangement.score_q, arrangement.q_blocks, orders.q, head, nullptr,
               counts.row_tokens, counts.row_exists);
  count_blocks(arrangement.score_k, arrangement.k_blocks, orders.k, head, key_valid,
               counts.column_tokens, counts.column_exists);
  std::fill(counts.column_exists.end() - arrangement.phantom_key_blocks, counts.column_exists.end(),
            std::uint8_t{1});
  return counts;
}

// Forced pairs of one head before its scores are known.
ForcedBlocks forced_of_head(const BlockRecipe& recipe, const RecipeHead& head) {
  ForcedBlocks forced = forced_blocks(head.arrangement, recipe.forced);
  if (recipe.force) recipe.force(head, forced);
  return forced;
}

ScoreMatrix scores_of_head(const BlockRecipe& recipe, const RecipeHead& head, int threads) {
  const double scale = recipe.head_dim_scale
                           ? 1.0 / std::sqrt(static_cast<double>(head.record.head_dim()))
                           : head.record.info->scale;
  const ScoreEntry& entry = find_score(recipe.score);
  const auto params = complete_params(entry.params, recipe.score_params, nullptr, "/score");
  return entry.score({head.record, head.head, head.orders.q, head.orders.k,
                      head.arrangement.score_q, head.arrangement.score_k, scale, recipe.arithmetic,
                      recipe.seed, params, threads});
}

// Score blocks -> executed blocks: those beyond the last fall off.
KeptRows clip(KeptRows rows, std::int64_t q_blocks, std::int64_t k_blocks) {
  rows.resize(static_cast<std::size_t>(q_blocks));
  for (auto& row : rows) {
    while (!row.empty() && row.back() >= k_blocks) row.pop_back();
  }
  return rows;
}

KeptRows forced_rows(const ForcedBlocks& forced, const std::vector<std::uint8_t>& column_exists,
                     std::int64_t q_blocks, std::int64_t k_blocks) {
  KeptRows rows(static_cast<std::size_t>(forced.rows));
  for (std::int64_t i = 0; i < forced.rows; ++i) {
    for (std::int64_t j = 0; j < forced.columns; ++j) {
      if (forced.at(i, j) && column_exists[static_cast<std::size_t>(j)] != 0) {
        rows[static_cast<std::size_t>(i)].push_back(static_cast<std::int32_t>(j));
      }
    }
  }
  return clip(std::move(rows), q_blocks, k_blocks);
}

KeptRows intersection(const KeptRows& some, const KeptRows& others) {
  KeptRows both(some.size());
  for (std::size_t i = 0; i < some.size(); ++i) {
    std::set_intersection(some[i].begin(), some[i].end(), others[i].begin(), others[i].end(),
                          std::back_inserter(both[i]));
  }
  return both;
}

}  // namespace

std::vector<ParamSpec> recipe_params() {
  return {
      {.name = "block",
       .type = ParamType::integer,
       .default_value = 128,
       .help = "tokens per query and key block",
       .min = 1,
       .max = 65536},
      {.name = "block_q",
       .type = ParamType::integer,
       .default_value = nullptr,
       .help = "tokens per query block (default: block)",
       .min = 1,
       .max = 65536},
      {.name = "block_k",
       .type = ParamType::integer,
       .default_value = nullptr,
       .help = "tokens per key block (default: block)",
       .min = 1,
       .max = 65536},
      {.name = "order",
       .type = ParamType::component,
       .default_value = "raster",
       .help = "token order of the visual tokens",
       .choices = {"orders"}},
      {.name = "frame0",
       .type = ParamType::choice,
       .default_value = "segregated",
       .help =
           "frame 0 in blocks of its own, last, beside text; or moved by the order like any other",
       .choices = {"segregated", "in_place"}},
      {.name = "selector",
       .type = ParamType::component,
       .default_value = "top_k",
       .help = "how many of a row's best blocks are kept",
       .choices = {"selectors"}},
      {.name = "sink",
       .type = ParamType::choice,
       .default_value = "none",
       .help = "frame-0 block pairs kept whatever their score; another_frame and random_blocks are "
               "controls of `both`",
       .choices = {"none", "rows", "cols", "both", "another_frame", "random_blocks"}},
      {.name = "text",
       .type = ParamType::choice,
       .default_value = "both",
       .help = "text block pairs kept whatever their score",
       .choices = {"none", "rows", "cols", "both"}},
      {.name = "budget",
       .type = ParamType::choice,
       .default_value = "inside",
       .help = "forced blocks count toward the density, or come on top as the authors shipped",
       .choices = {"inside", "outside"}},
      {.name = "density",
       .type = ParamType::real,
       .default_value = 0.2,
       .help = "kept (q,k) pairs / all pairs; `sparsity: s` means density 1 - s",
       .min = 0.0,
       .max = 1.0,
       .min_open = true},
      {.name = "seed",
       .type = ParamType::integer,
       .default_value = 0,
       .help = "of orders, scores and controls that draw",
       .min = 0},
  };
}

void take_solved_density(BlockRecipe& recipe, const nlohmann::json& params, double knob) {
  recipe.solve = params.contains("density");
  recipe.density = recipe.solve ? params.at("density").get<double>() : knob;
  recipe.asks_density = recipe.solve;
}

void set_default(std::vector<ParamSpec>& params, const std::string& name, nlohmann::json value) {
  const auto found = std::find_if(params.begin(), params.end(),
                                  [&](const ParamSpec& spec) { return spec.name == name; });
  if (found == params.end()) throw Error("no parameter '" + name + "' to set a default for");
  found->default_value = std::move(value);
}

BlockRecipe recipe_from_params(const nlohmann::json& params, const MethodOptions& options) {
  BlockRecipe recipe;
  const int block = params.at("block").get<int>();
  recipe.arrangement.block_q = params.value("block_q", block);
  recipe.arrangement.block_k = params.value("block_k", block);
  recipe.arrangement.order = params.at("order");
  recipe.arrangement.frame0 =
      params.at("frame0") == "segregated" ? Frame0::segregated : Frame0::in_place;
  recipe.seed = params.at("seed").get<std::uint64_t>();
  recipe.arrangement.seed = recipe.seed;
  recipe.forced.sink = params.at("sink").get<std::string>();
  recipe.forced.text = params.at("text").get<std::string>();
  recipe.forced.seed = recipe.seed;
  recipe.arrangement.pin_middle_frame = recipe.forced.sink == "another_frame";
  recipe.selector = params.at("selector").at("name").get<std::string>();
  recipe.selector_params = params.at("selector").at("params");
  recipe.budget = params.at("budget") == "inside" ? Budget::inside : Budget::outside;
  recipe.density = params.at("density").get<double>();
  recipe.solve = options.match == DensityMatch::measured ||
                 (recipe.budget == Budget::inside && recipe.selector == "top_k") ||
                 recipe.selector == "head_top_k";
  return recipe;
}

Plan run_recipe(const BlockRecipe& recipe, const RecordView& record, const MethodOptions& options) {
  ArrangementSpec spec = recipe.arrangement;
  spec.base_folder = options.base_folder;
  const Arrangement arrangement = arrange(record.info->segments, record.tokens(), spec);
  TokenOrders orders = token_orders(record, arrangement, spec, options.threads);
  const SelectorEntry& selector = find_selector(recipe.selector);
  const auto competes =
      recipe.competes ? recipe.competes(arrangement) : std::vector<std::uint8_t>();
  const auto q_blocks = arrangement.q_blocks.blocks;
  const auto k_blocks = arrangement.k_blocks.blocks;
  // Forced pairs that need no scores are the same for all heads unless orders differ by head.
  const bool same_forced = orders.q.rows == 1 && orders.k.rows == 1;
  std::optional<ForcedBlocks> shared;
  if (same_forced) shared = forced_of_head(recipe, {record, 0, arrangement, orders});

  std::vector<KeptRows> kept(static_cast<std::size_t>(record.heads()));
  std::vector<KeptRows> forced_part(kept.size());
  std::vector<std::string> scored_on(kept.size());
  // Threads share the heads: not every score can share one. A single head has them all.
  const int of_head = record.heads() == 1 ? options.threads : 1;
  parallel_for(options.threads, record.heads(), [&](std::int64_t head, int /*worker*/) {
    const auto h = static_cast<std::size_t>(head);
    const RecipeHead this_head{record, head, arrangement, orders};
    const BlockCounts counts = block_counts(arrangement, orders, head, record.key_valid);
    ForcedBlocks forced = shared ? *shared : forced_of_head(recipe, this_head);
    ScoreMatrix scores = scores_of_head(recipe, this_head, of_head);
    scored_on[h] = scores.computed_on;
    if (recipe.adjust) recipe.adjust(this_head, scores, forced);
    kept[h] =
        clip(select_blocks({scores, forced, counts.row_tokens, counts.column_tokens,
                            counts.row_exists, counts.column_exists, selector,
                            recipe.selector_params, recipe.budget, recipe.density, recipe.solve,
                            options.row_seed, recipe.competes ? &competes : nullptr, of_head}),
             q_blocks, k_blocks);
    forced_part[h] = forced_rows(forced, counts.column_exists, q_blocks, k_blocks);
    if (recipe.finish) {
      recipe.finish(this_head, kept[h]);
      forced_part[h] = intersection(forced_part[h], kept[h]);
    }
  });

  Plan plan;
  plan.heads = record.heads();
  plan.tokens = record.tokens();
  plan.q_order = std::move(orders.q);
  plan.k_order = std::move(orders.k);
  plan.q_blocks = arrangement.q_blocks;
  plan.k_blocks = arrangement.k_blocks;
  plan.lists = make_lists(kept);
  plan.forced = make_lists(forced_part);
  plan.windows = arrangement.windows;
  if (!orders.chosen.empty()) plan.notes.push_back({"order", {}, std::move(orders.chosen)});
  if (!scored_on.front().empty()) plan.notes.push_back({"scored_on", {}, std::move(scored_on)});
  if (recipe.asks_density) plan.nominal_density = recipe.density;
  return plan;
}

}  // namespace raingauge
