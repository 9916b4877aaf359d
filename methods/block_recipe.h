// SPDX-License-Identifier: Apache-2.0
// The composition that most methods are: order, frame 0, blocks, score, selector, forced blocks,
// budget. A named method fills in a recipe; the crossed ablation varies its parts.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "methods/arrangement.h"
#include "methods/forced.h"
#include "methods/method.h"
#include "methods/plan_heads.h"
#include "methods/scores/score.h"
#include "methods/selection.h"

namespace raingauge {

// One head on its way from scores to kept blocks.
struct RecipeHead {
  const RecordView& record;
  std::int64_t head = 0;
  const Arrangement& arrangement;
  const TokenOrders& orders;
};

struct BlockRecipe {
  ArrangementSpec arrangement;
  ForcedSpec forced;
  std::string score = "pooled";
  nlohmann::json score_params = nlohmann::json::object();
  Arithmetic arithmetic = Arithmetic::fp32;
  std::string selector = "top_k";
  nlohmann::json selector_params = nlohmann::json::object();
  Budget budget = Budget::inside;
  double density = 1.0;
  std::uint64_t seed = 0;
  // Whether the density is solved for on pairs, or the selector's nominal limit is taken.
  bool solve = true;
  // False where `density` is no knob of the arm: its plans then ask for none.
  bool asks_density = true;
  bool head_dim_scale = false;  // softmax scale head_dim^-1/2 instead of the record's

  // What a method adds to the parts above; all in score blocks, thread safe. Empty: nothing.
  // More forced pairs, not read from scores.
  std::function<void(const RecipeHead&, ForcedBlocks&)> force;
  // Key blocks that are ranked at all (SelectionRequest::competes).
  std::function<std::vector<std::uint8_t>(const Arrangement&)> competes;
  // The scores of a head changed, pairs forced because of them.
  std::function<void(const RecipeHead&, ScoreMatrix&, ForcedBlocks&)> adjust;
  // The kept blocks of a head (executed ones) thinned out after the budget was spent.
  std::function<void(const RecipeHead&, KeptRows&)> finish;
};

// Parameters shared by every method that is a block recipe: block, order, frame0, selector, sink,
// text, budget, density, seed. A method appends its own and overrides defaults by name.
std::vector<ParamSpec> recipe_params();

// Replaces the default of the parameter called `name`.
void set_default(std::vector<ParamSpec>& params, const std::string& name, nlohmann::json value);

// Reads what recipe_params() declared. An inside budget or measured matching means solving.
BlockRecipe recipe_from_params(const nlohmann::json& params, const MethodOptions& options);

Plan run_recipe(const BlockRecipe& recipe, const RecordView& record, const MethodOptions& options);

// Takes `density` as solved_density_param() declares it; `knob` is the selector's density otherwise.
void take_solved_density(BlockRecipe& recipe, const nlohmann::json& params, double knob);

// A method that is a recipe and nothing else.
class RecipeMethod : public Method {
 public:
  RecipeMethod(BlockRecipe recipe, MethodOptions options)
      : recipe_(std::move(recipe)), options_(std::move(options)) {}
  Plan plan(const RecordView& record, State& /*state*/) const override {
    return run_recipe(recipe_, record, options_);
  }
  std::unique_ptr<DevicePlanner> device_planner(const RecordView& record,
                                                const Device& device) const override;

 private:
  BlockRecipe recipe_;
  MethodOptions options_;
};

}  // namespace raingauge
