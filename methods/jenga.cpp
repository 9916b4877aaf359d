// SPDX-License-Identifier: Apache-2.0
// Jenga's AttenCarve (arXiv 2505.16864, released attention_block_triton_diffres.py): tokens along a
// Gilbert curve, block means, and per row the larger of top-k and top-p; blocks that touch on the grid
// and text are kept whatever their score. Its four ingredients are switches: `order`, `mass` (the
// top-p part), `adjacency`, `text`. Progressive resolution and step skipping are other accelerations
// and not part of it.
//
//   fixed     HunyuanVideo's rule on any number of tokens: the last block may be ragged (ours)
//   hunyuan   3D Gilbert; n = N_video / 128 must be whole (their reshape raises otherwise);
//             k = int((1 - r) n); rates 0.75 then 0.85 at half of the steps, p 0.3 ("Base")
//   wan       Wan 1.3B: Gilbert curve per frame; tail block padded with zeros, its mean still over 128;
//             the first n / 21 blocks keep each other; dense while r <= 0.25; p 0.9
// -turbo, -flash and wan-14b differ in their rates alone. The ramp of r over Wan's first steps is the
// switch `ramp`; presets contain no warm-up.
#include <algorithm>
#include <cmath>

#include "methods/adjacency.h"
#include "methods/block_recipe.h"

namespace raingauge {
namespace {

using nlohmann::json;

struct Settings {
  std::vector<double> drop_rates, remain_rates, step_rates;
  int total_steps = 50;
  bool ramp = false, mass = true, adjacency = true, first_frame = false;
  double dense_up_to = 0.0;
  std::string tail = "ragged";

  // Wan: the first tenth of the steps climbs to the rate.
  double drop_rate(int step) const {
    const double rate = drop_rates.at(stage(step, drop_rates.size()));
    const double climb = total_steps > 1 ? 10.0 * step / (total_steps - 1.0) : 1.0;
    return ramp ? std::min(rate, climb * rate) : rate;
  }
  double remain_rate(int step) const {
    return mass ? remain_rates.at(stage(step, remain_rates.size())) : 0.0;
  }

 private:
  std::size_t stage(int step, std::size_t stages) const {
    std::size_t now = 0;
    while (now + 1 < stages && now < step_rates.size() &&
           step >= static_cast<int>(step_rates[now] * total_steps)) {
      ++now;
    }
    return now;
  }
};

std::int64_t visual_tokens(const Segments& segments) {
  std::int64_t count = 0;
  for (const auto& segment : segments) count += segment.visual() ? segment.length : 0;
  return count;
}

// A block padded with zeros up to `block` tokens: its mean is smaller by size / block.
void shrink_padded_means(const Layout& q_blocks, const Layout& k_blocks, int block,
                         ScoreMatrix& scores) {
  for (std::int64_t i = 0; i < scores.rows; ++i) {
    const double row = static_cast<double>(q_blocks.size(0, i)) / block;
    for (std::int64_t j = 0; j < scores.columns; ++j) {
      const double column = static_cast<double>(k_blocks.size(0, j)) / block;
      auto& value = scores.values[static_cast<std::size_t>(i * scores.columns + j)];
      value = static_cast<float>(value * row * column);
    }
  }
}

class Jenga : public Method {
 public:
  Jenga(BlockRecipe recipe, Settings settings, MethodOptions options)
      : recipe_(std::move(recipe)), settings_(std::move(settings)), options_(std::move(options)) {}

  Plan plan(const RecordView& record, State& /*state*/) const override {
    const int block = recipe_.arrangement.block_q;
    const auto tokens = visual_tokens(record.info->segments);
    if (settings_.tail == "refuse" && tokens % block != 0) {
      throw Unsupported(
          "Jenga's HunyuanVideo code raises unless the video tokens divide into blocks of " +
          std::to_string(block) + "; got " + std::to_string(tokens) + " (" +
          describe(record.info->segments) + "); preset `fixed` handles it");
    }
    const int step = record.info->site.step;
    const double rate = settings_.drop_rate(step);
    if (!recipe_.solve && rate <= settings_.dense_up_to) {
      return dense_plan(record.heads(), record.tokens(), block);
    }
    const auto blocks = (tokens + block - 1) / block;
    BlockRecipe recipe = recipe_;
    recipe.selector_params = {
        {"k", static_cast<std::int64_t>((1.0 - rate) * static_cast<double>(blocks))},
        {"p", settings_.remain_rate(step)}};
    return run_recipe(recipe, record, options_);
  }

 private:
  BlockRecipe recipe_;
  Settings settings_;
  MethodOptions options_;
};

Settings read_settings(const json& given) {
  Settings settings;
  settings.drop_rates = given.at("sa_drop_rates").get<std::vector<double>>();
  settings.remain_rates = given.at("p_remain_rates").get<std::vector<double>>();
  settings.step_rates = given.at("step_rates").get<std::vector<double>>();
  settings.total_steps = given.at("total_steps").get<int>();
  settings.ramp = given.at("ramp").get<bool>();
  settings.mass = given.at("mass").get<bool>();
  settings.adjacency = given.at("adjacency").get<bool>();
  settings.first_frame = given.at("first_frame").get<bool>();
  settings.dense_up_to = given.at("dense_up_to").get<double>();
  settings.tail = given.at("tail").get<std::string>();
  if (settings.drop_rates.empty() || settings.remain_rates.empty()) {
    throw ParamError(settings.drop_rates.empty() ? "/sa_drop_rates" : "/p_remain_rates",
                     "give at least one rate");
  }
  return settings;
}

std::int64_t visual_blocks(const std::vector<BlockRole>& roles) {
  return std::count_if(roles.begin(), roles.end(), [](BlockRole role) {
    return role == BlockRole::visual || role == BlockRole::pinned_frame;
  });
}

void force_what_is_near(const Settings& settings, const RecipeHead& head, ForcedBlocks& forced) {
  const auto& arrangement = head.arrangement;
  if (settings.adjacency) {
    force_neighbours(head.record.info->segments, head.head, head.orders.q, head.orders.k,
                     arrangement.score_q, arrangement.score_k, forced);
  }
  if (!settings.first_frame) return;
  constexpr std::int64_t kWanFrames = 21;  // their constant, whatever the number of frames
  const auto rows = visual_blocks(arrangement.q_roles) / kWanFrames;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < rows; ++j) {
      forced.mask[static_cast<std::size_t>(i * forced.columns + j)] = 1;
    }
  }
}

std::unique_ptr<Method> make(const json& given, const MethodOptions& options) {
  const Settings settings = read_settings(given);
  BlockRecipe recipe;
  recipe.arrangement.block_q = recipe.arrangement.block_k = given.at("block").get<int>();
  recipe.arrangement.order = given.at("order");
  recipe.arrangement.frame0 = Frame0::in_place;
  const bool text = given.at("text").get<bool>();
  recipe.forced.text = text ? "both" : "none";
  recipe.budget = Budget::outside;
  recipe.head_dim_scale = true;
  recipe.selector = "top_k_or_p";
  take_solved_density(recipe, given, 1.0);
  recipe.force = [settings](const RecipeHead& head, ForcedBlocks& forced) {
    force_what_is_near(settings, head, forced);
  };
  if (text) {  // text is kept anyway: it takes no part in softmax and counts
    recipe.competes = [](const Arrangement& arrangement) {
      std::vector<std::uint8_t> ranked;
      for (const auto role : arrangement.k_roles) ranked.push_back(role != BlockRole::text ? 1 : 0);
      return ranked;
    };
  }
  if (settings.tail == "zero_padded") {
    const int block = recipe.arrangement.block_q;
    recipe.adjust = [block](const RecipeHead& head, ScoreMatrix& scores, ForcedBlocks&) {
      shrink_padded_means(head.arrangement.score_q, head.arrangement.score_k, block, scores);
    };
  }
  return std::make_unique<Jenga>(std::move(recipe), settings, options);
}

std::vector<ParamSpec> params() {
  const auto rates = [](const char* name, json value, const char* help) {
    return ParamSpec{.name = name,
                     .type = ParamType::reals,
                     .default_value = std::move(value),
                     .help = help,
                     .min = 0.0,
                     .max = 1.0};
  };
  const auto flag = [](const char* name, bool value, const char* help) {
    return ParamSpec{
        .name = name, .type = ParamType::boolean, .default_value = value, .help = help};
  };
  return {
      {.name = "preset",
       .type = ParamType::choice,
       .default_value = "fixed",
       .help = "sets the other keys; keys given beside it win",
       .choices = {"fixed", "hunyuan", "hunyuan-turbo", "hunyuan-flash", "wan", "wan-14b"}},
      rates("sa_drop_rates", {0.75, 0.85},
            "share of a row's blocks that top-k drops, one value a stage"),
      rates("p_remain_rates", json::array({0.3}),
            "probability that the top-p part reaches, one value or one a stage"),
      rates("step_rates", {0.5, 1.0}, "where stages end, as shares of total_steps"),
      {.name = "total_steps",
       .type = ParamType::integer,
       .default_value = 50,
       .help = "denoising steps of the schedule, to find a record's stage",
       .min = 1},
      flag("ramp", false, "drop rates climb over the first tenth of the steps (Wan)"),
      {.name = "dense_up_to",
       .type = ParamType::real,
       .default_value = 0.0,
       .help = "drop rates up to this attend densely",
       .min = 0.0,
       .max = 1.0},
      {.name = "order",
       .type = ParamType::component,
       .default_value = "gilbert",
       .help = "ingredient 1: token order of the visual tokens",
       .choices = {"orders"}},
      flag("mass", true, "ingredient 2: the top-p part; without it top-k alone"),
      flag("adjacency", true, "ingredient 3: keep blocks that touch on the grid"),
      flag("text", true, "ingredient 4: text rows and columns kept, outside softmax and counts"),
      flag("first_frame", false, "the first n / 21 blocks keep each other (Wan)"),
      {.name = "tail",
       .type = ParamType::choice,
       .default_value = "ragged",
       .help = "last video block: mean of its tokens, of its tokens and zeros, or refused",
       .choices = {"ragged", "zero_padded", "refuse"}},
      {.name = "block",
       .type = ParamType::integer,
       .default_value = 128,
       .help = "tokens per block (the authors have 128)",
       .min = 1,
       .max = 65536},
      solved_density_param()};
}

json hunyuan(json drop, double p) {
  return {{"order", "gilbert"},
          {"sa_drop_rates", std::move(drop)},
          {"p_remain_rates", json::array({p})},
          {"tail", "refuse"}};
}

json wan(json drop, double p) {
  return {{"order", "gilbert_sliced"},
          {"sa_drop_rates", std::move(drop)},
          {"p_remain_rates", json::array({p})},
          {"tail", "zero_padded"},
          {"first_frame", true},
          {"dense_up_to", 0.25},
          {"step_rates", {0.52, 1.0}}};
}

}  // namespace

MethodEntry jenga_method() {
  return {
      {"jenga",
       "Gilbert order; larger of top-k and top-p on block means; touching blocks and text kept",
       "Jenga, arXiv 2505.16864, section 3.1; released attention_block_triton_diffres.py",
       params(),
       {{"fixed", json::object()},
        {"hunyuan", hunyuan({0.75, 0.85}, 0.3)},
        {"hunyuan-turbo", hunyuan({0.7, 0.8}, 0.3)},
        {"hunyuan-flash", hunyuan({0.8, 0.95}, 0.5)},
        {"wan", wan({0.75, 0.85}, 0.9)},
        {"wan-14b", wan({0.7, 0.8}, 0.8)}},
       "hunyuan and wan are the released rules of the two models; fixed (ours) takes any number of "
       "tokens.\nThe four ingredients are switches: order, mass, adjacency, text. Progressive "
       "resolution, step skipping and\ntext amplification are other accelerations and left out. "
       "Score scale head_dim^-1/2, softmax over video blocks.\n`density` scales k and p by one "
       "common factor (the authors' setting is the factor 1); adjacency and text\ncount, and are "
       "infeasible below their own density. With `mass: false` it solves the drop rate alone."},
      make};
}

}  // namespace raingauge
