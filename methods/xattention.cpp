// SPDX-License-Identifier: Apache-2.0
// XAttention (arXiv 2503.16428, released xattn): block mass estimated by the softmax over antidiagonal
// sums, then the best blocks of a row until `threshold` of its estimate is reached (the block that
// crosses is kept). Blocks of 128 over the whole sequence, no rule for text, score scale
// head_dim^-1/2; the first key block is always kept (unused slots of their index point to it).
//
//   masked   padding keys take no part (ours)
//   shipped  the released non-causal path: the sequence is padded with zero keys to a multiple of the
//            chunk (2048 tokens or more), and they take part in the softmax and in the selection
#include <algorithm>
#include <bit>

#include "methods/block_recipe.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr int kBlock = 128;

// The released chunk: max(2048, min(max(2048, P), 2^28 / P)), P the power of two at or above n.
std::int64_t chunk_size(std::int64_t tokens) {
  const auto power = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(tokens)));
  constexpr std::int64_t kLeast = 2048;
  return std::max(kLeast, std::min(std::max(kLeast, power), (std::int64_t{1} << 28) / power));
}

class XAttention : public Method {
 public:
  XAttention(BlockRecipe recipe, bool zero_keys, MethodOptions options)
      : recipe_(std::move(recipe)), zero_keys_(zero_keys), options_(std::move(options)) {}

  Plan plan(const RecordView& record, State& /*state*/) const override {
    if (!zero_keys_) return run_recipe(recipe_, record, options_);
    BlockRecipe padded = recipe_;
    const auto chunk = chunk_size(record.tokens());
    const auto all = (record.tokens() + chunk - 1) / chunk * chunk / kBlock;
    padded.arrangement.phantom_key_blocks = all - (record.tokens() + kBlock - 1) / kBlock;
    return run_recipe(padded, record, options_);
  }

 private:
  BlockRecipe recipe_;
  bool zero_keys_;
  MethodOptions options_;
};

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  BlockRecipe recipe;
  recipe.arrangement.whole_sequence = true;
  recipe.arrangement.block_q = recipe.arrangement.block_k = kBlock;
  recipe.arrangement.order = given.at("order");
  recipe.forced.text = "none";
  recipe.budget = Budget::outside;
  recipe.head_dim_scale = true;
  recipe.score = "antidiagonal";
  const bool zero_keys = given.at("padding") == "zero_keys";
  recipe.score_params = {{"stride", given.at("stride")},
                         {"tail", zero_keys ? "zero_keys" : "padded"}};
  recipe.selector = "top_p";
  recipe.selector_params = {{"p", given.at("threshold")}, {"crossing", "in"}};
  take_solved_density(recipe, given, 1.0);
  recipe.force = [](const RecipeHead&, ForcedBlocks& forced) {
    for (std::int64_t i = 0; i < forced.rows; ++i) {
      forced.mask[static_cast<std::size_t>(i * forced.columns)] = 1;
    }
  };
  return std::make_unique<XAttention>(std::move(recipe), zero_keys, options);
}

}  // namespace

MethodEntry xattention_method() {
  return {
      {"xattention",
       "antidiagonal sums estimate block mass; blocks of a row until a share of it is reached",
       "XAttention, arXiv 2503.16428, section 3; released Xattention.py and utils.py",
       {{.name = "preset",
         .type = ParamType::choice,
         .default_value = "masked",
         .help = "sets the other keys; keys given beside it win",
         .choices = {"masked", "shipped"}},
        {.name = "stride",
         .type = ParamType::integer,
         .default_value = 8,
         .help = "tokens of a group: the estimate costs 1 / (2 stride) of dense attention",
         .min = 1,
         .max = kBlock},
        {.name = "threshold",
         .type = ParamType::real,
         .default_value = 0.9,
         .help = "share of a row's estimated mass to reach (HunyuanVideo: 0.9 or 0.95)",
         .min = 0.0,
         .max = 1.0,
         .min_open = true},
        {.name = "padding",
         .type = ParamType::choice,
         .default_value = "masked",
         .help = "padding keys take no part, or are zero keys up to the released chunk",
         .choices = {"masked", "zero_keys"}},
        {.name = "order",
         .type = ParamType::component,
         .default_value = "raster",
         .help = "token order of the visual tokens, in place (the authors have raster)",
         .choices = {"orders"}},
        solved_density_param()},
       {{"masked", {{"padding", "masked"}}}, {"shipped", {{"padding", "zero_keys"}}}},
       "masked leaves padding out; shipped is the released non-causal path, whose zero keys up to "
       "a multiple of\nthe chunk (2048 tokens or more) enter softmax, sums and selection. Top-p "
       "only; the block that crosses is\nkept, and the first key block always. keep_sink and "
       "keep_recent are off in the released call and left out.\nfp32 estimate; the code rounds "
       "the softmax to bf16. `density` solves the threshold."},
      make};
}

}  // namespace raingauge
