// SPDX-License-Identifier: Apache-2.0
// Every query block sees random key blocks: the floor of prediction.
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

std::unique_ptr<Method> make(const nlohmann::json& params, const MethodOptions& options) {
  BlockRecipe recipe = recipe_from_params(params, options);
  recipe.score = "random";
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry random_method() {
  return {{"random", "random key blocks (a floor)", "", recipe_params()}, make};
}

}  // namespace raingauge
