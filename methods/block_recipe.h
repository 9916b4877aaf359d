// SPDX-License-Identifier: Apache-2.0
// The composition that most methods are: order, frame 0, blocks, score, selector, forced blocks,
// budget. A named method fills in a recipe; the crossed ablation varies its parts.
#pragma once

#include <string>
#include <vector>

#include "methods/arrangement.h"
#include "methods/forced.h"
#include "methods/method.h"
#include "methods/scores/score.h"
#include "methods/selection.h"

namespace raingauge {

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
};

// Parameters shared by every method that is a block recipe: block, order, frame0, selector, sink,
// text, budget, density, seed. A method appends its own and overrides defaults by name.
std::vector<ParamSpec> recipe_params();

// Replaces the default of the parameter called `name`.
void set_default(std::vector<ParamSpec>& params, const std::string& name, nlohmann::json value);

// Reads what recipe_params() declared. An inside budget or measured matching means solving.
BlockRecipe recipe_from_params(const nlohmann::json& params, const MethodOptions& options);

Plan run_recipe(const BlockRecipe& recipe, const RecordView& record, const MethodOptions& options);

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
