// SPDX-License-Identifier: Apache-2.0
// MindIE-SD's ada_bsa (sparse_block_estimate.h and sparse_flash_attn_ada_bsa.py; no paper): XAttention's
// antidiagonal estimate with a cap on the blocks of a row. The first and the last key block leave the
// ranking and are kept for every query; ragged keys at the end (fewer than a stride) are not seen.
// Blocks of 128 over the whole sequence, no rule for text. Their sums are fp16, ours fp32.
//
// `density` is their row cap 1 - sparsity, `cdf_threshold` their share of mass: the authors have cap 1
// and threshold 1, which is dense. Under `match: density` the cap (threshold 1) or the threshold is
// solved for.
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr int kBlock = 128;

class AdaBsa : public Method {
 public:
  AdaBsa(BlockRecipe recipe, MethodOptions options)
      : recipe_(std::move(recipe)), options_(std::move(options)) {}

  Plan plan(const RecordView& record, State& /*state*/) const override {
    BlockRecipe sized = recipe_;
    sized.selector_params["columns"] = (record.tokens() + kBlock - 1) / kBlock;
    return run_recipe(sized, record, options_);
  }

 private:
  BlockRecipe recipe_;
  MethodOptions options_;
};

void keep_first_and_last(const RecipeHead& /*head*/, ForcedBlocks& forced) {
  for (std::int64_t i = 0; i < forced.rows; ++i) {
    forced.mask[static_cast<std::size_t>(i * forced.columns)] = 1;
    forced.mask[static_cast<std::size_t>((i + 1) * forced.columns - 1)] = 1;
  }
}

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  BlockRecipe recipe;
  recipe.arrangement.whole_sequence = true;
  recipe.arrangement.block_q = recipe.arrangement.block_k = kBlock;
  recipe.arrangement.order = given.at("order");
  recipe.forced.text = "none";
  recipe.budget = Budget::outside;
  recipe.score = "antidiagonal";
  recipe.score_params = {{"stride", given.at("stride")}, {"tail", "dropped"}};
  recipe.selector = "guarded_mass";
  recipe.selector_params = {{"cdf_threshold", given.at("cdf_threshold")}};
  recipe.density = given.at("density").get<double>();
  recipe.solve = options.match == DensityMatch::measured;
  recipe.force = keep_first_and_last;
  const bool keep_sink = given.at("keep_sink").get<bool>();
  recipe.competes = [keep_sink](const Arrangement& arrangement) {
    std::vector<std::uint8_t> ranked(static_cast<std::size_t>(arrangement.score_k.blocks), 1);
    ranked.back() = 0;
    if (keep_sink) ranked.front() = 0;
    return ranked;
  };
  return std::make_unique<AdaBsa>(std::move(recipe), options);
}

}  // namespace

MethodEntry ada_bsa_method() {
  return {
      {"ada_bsa",
       "antidiagonal estimate; blocks of a row to a share of mass, to a cap, or both",
       "MindIE-SD ada_bsa: sparse_block_estimate.h, sparse_flash_attn_ada_bsa.py",
       {{.name = "stride",
         .type = ParamType::integer,
         .default_value = 8,
         .help = "tokens of a group",
         .min = 1,
         .max = kBlock},
        {.name = "cdf_threshold",
         .type = ParamType::real,
         .default_value = 1.0,
         .help = "share of a row's estimated mass to reach; 1 leaves the cap alone",
         .min = 0.0,
         .max = 1.0,
         .min_open = true},
        {.name = "density",
         .type = ParamType::real,
         .default_value = 1.0,
         .help = "cap on a row: int(n * density) blocks (their `sparsity: s` is density 1 - s)",
         .min = 0.0,
         .max = 1.0,
         .min_open = true},
        {.name = "keep_sink",
         .type = ParamType::boolean,
         .default_value = true,
         .help = "the first key block leaves the ranking (it is kept either way)"},
        {.name = "order",
         .type = ParamType::component,
         .default_value = "raster",
         .help = "token order of the visual tokens, in place (the authors have raster)",
         .choices = {"orders"}}},
       {},
       "The kernel is the reference, not its CPU test: the last key block (and with keep_sink the "
       "first) leaves the\nranking and is kept, keys past the last whole stride are not seen, the "
       "cap applies from 10 blocks on, and\nscores within 1e-5 of the guard stay. cdf_threshold 1 "
       "with a density is top-k with two blocks on top;\nbelow 1 with density 1 it is top-p: "
       "never use both for a comparison. Sums are fp32 here, fp16 there."},
      make};
}

}  // namespace raingauge
