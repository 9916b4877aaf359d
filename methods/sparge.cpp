// SPDX-License-Identifier: Apache-2.0
// SpargeAttn (arXiv 2502.18137, released spas_sage_attn): block means predict the mask, but only blocks
// whose tokens resemble each other are predicted; all others are computed. As released: blocks cut
// over the whole sequence, 128 queries x 64 keys, no rule for text, score scale head_dim^-1/2, K
// smoothed, top-k (int(topk * n) in fp32) or top-p (the block that crosses is not taken).
//
// What paper and released code do differently is a preset each:
//   topk   the recommended call: topk 0.5, gate -0.1 (only the ragged last blocks fail it)
//   cdf    the other call: cdfthreshd 0.98, gate 0.6
//   sm90   topk with the blocks of Hopper's kernel, 64 x 128
//   paper  Hilbert order (3.7; ours is the generalised curve), similarity mean(X X^T) / |max(X X^T)|,
//          top-p; their thresholds are tuned per head, the ones here are the released defaults
#include <cmath>

#include "methods/block_recipe.h"
#include "methods/pv_skip.h"
#include "methods/self_similarity.h"

namespace raingauge {
namespace {

using nlohmann::json;

struct Gate {
  double threshold = -0.1;
  SimilarityMeasure measure = SimilarityMeasure::cosine;
  bool smooth_k = true;
  bool sink = false;
  int block_q = 128, block_k = 64;
};

// Ragged last blocks too: the released kernel divides padding rows 0 / 0, and a NaN is not above the
// gate.
std::vector<std::uint8_t> untrusted(const std::vector<double>& similarity, const Layout& layout,
                                    const Gate& gate, int block) {
  std::vector<std::uint8_t> flags;
  for (std::size_t b = 0; b < similarity.size(); ++b) {
    const bool passes = similarity[b] > gate.threshold;  // false for NaN
    const bool ragged = layout.size(0, static_cast<std::int64_t>(b)) != block;
    flags.push_back(!passes || ragged ? 1 : 0);
  }
  return flags;
}

// Key blocks that fail the gate leave the softmax and are kept for everybody; query blocks that fail
// see everything.
void apply_gate(const Gate& gate, const RecipeHead& head, ScoreMatrix& scores,
                ForcedBlocks& forced) {
  const auto& record = head.record;
  const auto& q_layout = head.arrangement.score_q;
  const auto& k_layout = head.arrangement.score_k;
  const auto centre =
      gate.smooth_k ? token_mean(record.k, head.head, record.key_valid) : std::vector<float>();
  const auto rows =
      untrusted(self_similarity(record.q, head.head, head.orders.q, q_layout, gate.measure),
                q_layout, gate, gate.block_q);
  const auto columns =
      untrusted(self_similarity(record.k, head.head, head.orders.k, k_layout, gate.measure,
                                gate.smooth_k ? centre.data() : nullptr, record.key_valid),
                k_layout, gate, gate.block_k);
  for (std::int64_t i = 0; i < scores.rows; ++i) {
    for (std::int64_t j = 0; j < scores.columns; ++j) {
      const auto at = static_cast<std::size_t>(i * scores.columns + j);
      const bool column_fails = columns[static_cast<std::size_t>(j)] != 0;
      if (column_fails) scores.values[at] = -INFINITY;
      if (column_fails || rows[static_cast<std::size_t>(i)] != 0 || (gate.sink && j == 0)) {
        forced.mask[at] = 1;
      }
    }
  }
}

std::vector<ParamSpec> params() {
  return {
      {.name = "preset",
       .type = ParamType::choice,
       .default_value = "topk",
       .help = "sets the other keys; keys given beside it win",
       .choices = {"topk", "cdf", "sm90", "paper"}},
      {.name = "block_q",
       .type = ParamType::integer,
       .default_value = 128,
       .help = "tokens per query block",
       .min = 1,
       .max = 65536},
      {.name = "block_k",
       .type = ParamType::integer,
       .default_value = 64,
       .help = "tokens per key block",
       .min = 1,
       .max = 65536},
      {.name = "topk",
       .type = ParamType::real,
       .default_value = nullptr,
       .help = "share of a row's key blocks kept (0.5 when cdfthreshd is not given either)",
       .min = 0.0,
       .max = 1.0,
       .min_open = true},
      {.name = "cdfthreshd",
       .type = ParamType::real,
       .default_value = nullptr,
       .help = "keep blocks while their summed probability is no more than this",
       .min = 0.0,
       .max = 1.0,
       .min_open = true},
      {.name = "simthreshd1",
       .type = ParamType::real,
       .default_value = -0.1,
       .help = "self-similarity above which a block is predicted (not computed outright)",
       .min = -1.0,
       .max = 1.0},
      {.name = "similarity",
       .type = ParamType::choice,
       .default_value = "cosine",
       .help = "mean cosine of token pairs (released), or mean(X X^T) / |max(X X^T)| (paper)",
       .choices = {"cosine", "mean_over_max"}},
      {.name = "smooth_k",
       .type = ParamType::boolean,
       .default_value = true,
       .help = "take the mean key off all keys before their similarity is judged"},
      {.name = "attention_sink",
       .type = ParamType::boolean,
       .default_value = false,
       .help = "keep the first key block for every query"},
      {.name = "pvthreshd",
       .type = ParamType::real,
       .default_value = nullptr,
       .help = "second filter, in bits: pairs whose P V the kernel skips leave the lists (their "
               "Q K^T is still paid, and they are not counted in density); not given: off, as "
               "the released 50 is in effect",
       .min = 0.0},
      {.name = "order",
       .type = ParamType::component,
       .default_value = "raster",
       .help = "token order of the visual tokens, in place",
       .choices = {"orders"}},
      solved_density_param()};
}

// `cdfthreshd` given: top-p, whatever a preset says of topk.
void take_selector(BlockRecipe& recipe, const json& given) {
  const bool has_topk = given.contains("topk");
  if (has_topk && given.contains("cdfthreshd")) {
    throw ParamError("/cdfthreshd",
                     "give topk or cdfthreshd, not both: one is top-k, the other top-p");
  }
  if (given.contains("cdfthreshd")) {
    recipe.selector = "top_p";
    recipe.selector_params = {{"p", given.at("cdfthreshd")}, {"crossing", "out"}, {"at_least", 1}};
    take_solved_density(recipe, given, 1.0);
    return;
  }
  recipe.selector = "top_k";
  recipe.selector_params = {{"ties", "lowest_index"}, {"rounding", "floor_f32"}, {"at_least", 1}};
  take_solved_density(recipe, given, given.value("topk", 0.5));
  recipe.asks_density = true;  // topk is a density
}

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  BlockRecipe recipe;
  recipe.arrangement.whole_sequence = true;
  recipe.arrangement.block_q = given.at("block_q").get<int>();
  recipe.arrangement.block_k = given.at("block_k").get<int>();
  recipe.arrangement.order = given.at("order");
  recipe.forced.text = "none";
  recipe.budget = Budget::outside;
  recipe.head_dim_scale = true;
  take_selector(recipe, given);
  Gate gate;
  gate.threshold = given.at("simthreshd1").get<double>();
  gate.measure = given.at("similarity") == "cosine" ? SimilarityMeasure::cosine
                                                    : SimilarityMeasure::mean_over_max;
  gate.smooth_k = given.at("smooth_k").get<bool>();
  gate.sink = given.at("attention_sink").get<bool>();
  gate.block_q = recipe.arrangement.block_q;
  gate.block_k = recipe.arrangement.block_k;
  recipe.score_params = {{"smooth_k", gate.smooth_k}};
  recipe.adjust = [gate](const RecipeHead& head, ScoreMatrix& scores, ForcedBlocks& forced) {
    apply_gate(gate, head, scores, forced);
  };
  if (given.contains("pvthreshd")) {
    const double bits = given.at("pvthreshd").get<double>();
    recipe.finish = [bits](const RecipeHead& head, KeptRows& kept) {
      const PlanBlocks blocks{head.orders.q, head.orders.k, head.arrangement.q_blocks,
                              head.arrangement.k_blocks};
      skip_pv(head.record, head.head, blocks, bits, kept);
    };
  }
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry sparge_method() {
  return {
      {"sparge",
       "block means predict the mask of blocks whose tokens are alike; the rest is computed",
       "SpargeAttn, arXiv 2502.18137, sections 3.2-3.4; released utils.py and core.py",
       params(),
       {{"topk", {{"simthreshd1", -0.1}}},
        {"cdf", {{"cdfthreshd", 0.98}, {"simthreshd1", 0.6}}},
        {"sm90", {{"block_q", 64}, {"block_k", 128}, {"simthreshd1", -0.1}}},
        {"paper",
         {{"order", "gilbert"},
          {"similarity", "mean_over_max"},
          {"cdfthreshd", 0.98},
          {"simthreshd1", 0.6}}}},
       "`topk` makes it top-k (int(topk * n) in fp32), `cdfthreshd` top-p (the block that crosses "
       "is not taken).\ntopk, cdf and sm90 are released calls; paper adds the Hilbert order of "
       "3.7, "
       "which the released code lacks\n(here the generalised curve), and the similarity of its "
       "text. As released: blocks cut over the whole\nsequence, no rule for text, ragged last "
       "blocks dense, score scale head_dim^-1/2. Scores are fp32; the code\nrounds means to the "
       "input's dtype and its Gram matrix to fp16. Quantisation is not part of it.\n`density` "
       "solves topk or cdfthreshd; the gate stays, and what it forces counts."},
      make};
}

}  // namespace raingauge
