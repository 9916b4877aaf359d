// SPDX-License-Identifier: Apache-2.0
// RainFusion2.0 (arXiv 2512.24086) section 3: tokens reordered into spatial windows, block pairs
// scored by the product of block means (eq. 5-7), the best of every row kept (eq. 8), the first frame
// (3.4) and text dense.
//
// What paper and released code (MindIE-SD, rf_v2 and rf_v3) do differently is a preset each:
//   paper      3D windows (their size is not published; 4x4x8 here), frame 0 moved to the end,
//              top-n of the raw product, forced blocks on top of the budget
//   mindie-v2  8x8 windows inside a frame, frame 0 in front, softmax in the input's dtype,
//              ceil(n * (1 - sparsity)) with every tie kept, forced blocks on top; text protected by
//              pooled index, so that with N_video % 128 != 0 part of the text is not (their bug, kept)
//   mindie-v3  the same masks; it differs in its kernel, and may reuse masks across steps
//   fixed      ours: text and frame 0 in blocks of their own, one image works, the sink counts
//              inside the budget
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

using nlohmann::json;

json mindie_preset() {
  return {{"order", "frame_window"},
          {"frame0", "in_place"},
          {"selector", {{"top_k", {{"ties", "keep_all"}, {"rounding", "authors"}}}}},
          {"sink", "both"},
          {"text", "both"},
          {"budget", "outside"},
          {"score", "faithful"},
          {"block_index", "released"}};
}

std::vector<ParamSpec> params() {
  auto params = recipe_params();
  set_default(params, "order", "frame_window");
  set_default(params, "sink", "both");
  params.insert(params.begin(), {.name = "preset",
                                 .type = ParamType::choice,
                                 .default_value = "fixed",
                                 .help = "sets the other keys; keys given beside it win",
                                 .choices = {"paper", "mindie-v2", "mindie-v3", "fixed"}});
  params.push_back({.name = "score",
                    .type = ParamType::choice,
                    .default_value = "fp32",
                    .help = "score arithmetic: ours, or the authors' operations and dtypes",
                    .choices = {"fp32", "faithful"}});
  params.push_back({.name = "block_index",
                    .type = ParamType::choice,
                    .default_value = "regions",
                    .help = "regions: video, frame 0 and text start blocks of their own; released: "
                            "pooled block x stands for tokens 128x… of [video][text]",
                    .choices = {"regions", "released"}});
  return params;
}

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  BlockRecipe recipe = recipe_from_params(given, options);
  recipe.arithmetic = given.at("score") == "faithful" ? Arithmetic::faithful : Arithmetic::fp32;
  recipe.arrangement.mindie = given.at("block_index") == "released";
  if (recipe.arrangement.mindie && recipe.arrangement.frame0 == Frame0::segregated) {
    throw ParamError("/block_index",
                     "block_index: released keeps frame 0 in front; it needs frame0: "
                     "in_place");
  }
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

}  // namespace

MethodEntry rainfusion2_method() {
  return {{"rainfusion2",
           "block means predict the mask; spatial windows; first frame and text dense",
           "RainFusion2.0, arXiv 2512.24086, section 3",
           params(),
           {{"fixed", json::object()},
            {"paper",
             {{"order", {{"window3d", {{"window", {4, 4, 8}}}}}},
              {"frame0", "segregated"},
              {"sink", "both"},
              {"text", "both"},
              {"budget", "outside"}}},
            {"mindie-v2", mindie_preset()},
            {"mindie-v3", mindie_preset()}}},
          make};
}

}  // namespace raingauge
