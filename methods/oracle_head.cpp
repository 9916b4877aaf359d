// SPDX-License-Identifier: Apache-2.0
// The best block pairs of a head by true softmax mass, freely allocated over rows: the ceiling of any
// block mask of this layout.
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

std::unique_ptr<Method> make(const nlohmann::json& params, const MethodOptions& options) {
  BlockRecipe recipe = recipe_from_params(params, options);
  recipe.score = "exact";
  recipe.selector = "head_top_k";
  recipe.selector_params = nlohmann::json::object();
  recipe.solve = true;
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry oracle_head_method() {
  return {
      {"oracle_head", "best block pairs of a head by true mass (a ceiling)", "", recipe_params()},
      make};
}

}  // namespace raingauge
