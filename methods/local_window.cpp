// SPDX-License-Identifier: Apache-2.0
// Every query block sees the key blocks nearest in block order: a floor that any locality beats.
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

std::unique_ptr<Method> make(const nlohmann::json& params, const MethodOptions& options) {
  BlockRecipe recipe = recipe_from_params(params, options);
  recipe.score = "distance";
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry local_window_method() {
  return {{"local_window", "nearest key blocks in block order (a floor)", "", recipe_params()},
          make};
}

}  // namespace raingauge
