// SPDX-License-Identifier: Apache-2.0
// Every query block keeps its best key blocks by true softmax mass: the ceiling of a predictor that
// spends the same on every row.
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

std::unique_ptr<Method> make(const nlohmann::json& params, const MethodOptions& options) {
  BlockRecipe recipe = recipe_from_params(params, options);
  recipe.score = "exact";
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry oracle_row_method() {
  return {
      {"oracle_row", "best key blocks of every row by true mass (a ceiling)", "", recipe_params()},
      make};
}

}  // namespace raingauge
