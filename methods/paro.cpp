// SPDX-License-Identifier: Apache-2.0
// PAROAttention (arXiv 2506.16054): every head attends in the axis order that suits it, under a mask of
// block masses cut off at the density asked for (blocks of 64, head-wide threshold).
//
// With `calibration` the mask is static, as the authors have it: order and masses come from other
// captures (`raingauge calibrate --arm '{method: paro}'`). Without, both come from the record itself:
// the oracle plan, the ceiling of the static one. Their quantisation is not part of it. Their blocks
// run over [text][video] and the mixed blocks at the seams are always on; here text has blocks of its
// own, always on (`text`).
#include "methods/block_recipe.h"
#include "methods/paro_calibration.h"

namespace raingauge {
namespace {

using nlohmann::json;

json order_of(const json& given) {
  if (!given.at("reorder").get<bool>()) {
    return {{"name", "raster"}, {"params", json::object()}};
  }
  json params = json::object();
  for (const auto& spec : axis_params()) {
    if (given.contains(spec.name)) params[spec.name] = given.at(spec.name);
  }
  return {{"name", "paro"}, {"params", params}};
}

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  BlockRecipe recipe;
  recipe.arrangement.block_q = recipe.arrangement.block_k = given.at("block").get<int>();
  recipe.arrangement.frame0 = Frame0::in_place;
  recipe.arrangement.order = order_of(given);
  recipe.forced.text = given.at("text").get<bool>() ? "both" : "none";
  recipe.selector = "head_top_k";
  recipe.density = given.at("density").get<double>();
  if (!given.contains("calibration")) {
    recipe.score = "exact";
    return std::make_unique<RecipeMethod>(std::move(recipe), options);
  }
  const auto path =
      calibration_path(given.at("calibration").get<std::string>(), options.base_folder);
  shared_calibration(path);   // a file that is missing or broken is an error here and now
  recipe.score = "distance";  // replaced
  recipe.adjust = [path](const RecipeHead& head, ScoreMatrix& scores, ForcedBlocks&) {
    scores.values =
        calibrated_mass(path, *head.record.info, head.head, scores.rows, scores.columns);
    scores.probabilities = true;
  };
  return std::make_unique<RecipeMethod>(std::move(recipe), options);
}

std::vector<ParamSpec> params() {
  std::vector<ParamSpec> specs = {
      {.name = "block",
       .type = ParamType::integer,
       .default_value = 64,
       .help = "tokens per query and key block",
       .min = 1,
       .max = 65536},
      {.name = "density",
       .type = ParamType::real,
       .default_value = 0.5,
       .help = "kept (q,k) pairs / all pairs: where the masses of a head are cut off",
       .min = 0.0,
       .max = 1.0,
       .min_open = true},
      {.name = "reorder",
       .type = ParamType::boolean,
       .default_value = true,
       .help = "axis order by head; off: raster for all"},
      {.name = "text",
       .type = ParamType::boolean,
       .default_value = true,
       .help = "text rows and columns kept whatever their mass"},
      {.name = "step_groups",
       .type = ParamType::choice,
       .default_value = "half",
       .help = "calibration: a mask for each step of the first half and one for the rest (theirs), "
               "one for each step, or one for all",
       .choices = {"half", "each", "shared"}}};
  for (auto& spec : axis_params()) specs.push_back(std::move(spec));
  return specs;
}

}  // namespace

MethodEntry paro_method() {
  return {
      {"paro",
       "an axis order for every head and a mask of block masses, static from a calibration or "
       "oracle",
       "PAROAttention, arXiv 2506.16054, sections 3 and 4; released permute plans",
       params(),
       {},
       "With `calibration` it is the static plan of the authors, without it an oracle that looks "
       "at "
       "the record itself\n(order and masses: a ceiling, and its plan time is that of dense "
       "attention). Not published: alpha and the\nsign of the sparsity term; here alpha 0.5 and "
       "1 - M_sparse, both statistics are in the calibration file.\nSteps: a mask for each step of "
       "the first half and one for the rest. INT8 / INT4 is not part of it."},
      make,
      [](const json& params, const MethodOptions& options) {
        return make_paro_calibrator(params, options, true);
      }};
}

}  // namespace raingauge
