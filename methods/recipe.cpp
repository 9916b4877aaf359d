// SPDX-License-Identifier: Apache-2.0
// No method of anybody: any order, score, selector and forced blocks put together, for the crossed
// ablation.
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

std::unique_ptr<Method> make(const nlohmann::json& given, const MethodOptions& options) {
  BlockRecipe recipe = recipe_from_params(given, options);
  recipe.score = given.at("score").at("name").get<std::string>();
  recipe.score_params = given.at("score").at("params");
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry recipe_method() {
  auto params = recipe_params();
  params.push_back({.name = "score",
                    .type = ParamType::component,
                    .default_value = "pooled",
                    .help = "what a block pair is worth",
                    .choices = {"scores"}});
  return {{"recipe", "any order x score x selector x forced blocks, put together", "",
           std::move(params)},
          make};
}

}  // namespace raingauge
