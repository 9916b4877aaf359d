// SPDX-License-Identifier: Apache-2.0
// STA, Sliding Tile Attention (arXiv 2502.04507; FastVideo's released kernels and configuration):
// tokens are grouped into 3D tiles, and every query tile sees the key tiles of a fixed 3D window that
// is centred on it and pushed inside at the borders, so no tile is partly masked. Text stands at the
// end: all queries see it, and it sees everything.
//
// The released code takes three canvases only (30x48x80, 36x48x48, 18x48x80 tokens) with tiles of
// 6x8x8 tokens: `canvas: released`. `canvas: any` (ours) clips tiles at the far edges of the grid.
//
// Which window a head gets: `fixed`, one for all; `oracle`, for each head the candidate with the least
// squared error of the output on sampled rows of this very record. The authors search once, over
// prompts and per step, and reuse the table; on the record itself the search is an upper bound.
// With `density` the window grows or shrinks in proportion: a key tile costs the factor by
// which the window must be scaled to hold it, and the last factor is filled by seeded rows.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

#include "data/random.h"
#include "methods/head_plans.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/kernels/threads.h"
#include "methods/method.h"
#include "methods/orders/registry.h"
#include "methods/static_mask.h"

namespace raingauge {
namespace {

using nlohmann::json;
using Triple = std::array<std::int64_t, 3>;  // frames, rows, columns

// Tiles of a video: how many along each axis, and the tokens of each.
struct Canvas {
  Triple tiles{};
  std::vector<std::int32_t> sizes;  // [tiles], raster order of tiles
  Triple at(std::int64_t tile) const {
    return {tile / (tiles[1] * tiles[2]), tile / tiles[2] % tiles[1], tile % tiles[2]};
  }
};

Canvas canvas_of(const Segment& video, const Triple& tile) {
  const Triple sides{video.frames, video.height, video.width};
  Canvas canvas;
  for (std::size_t a = 0; a < 3; ++a) canvas.tiles[a] = (sides[a] + tile[a] - 1) / tile[a];
  const auto count = canvas.tiles[0] * canvas.tiles[1] * canvas.tiles[2];
  for (std::int64_t i = 0; i < count; ++i) {
    const Triple place = canvas.at(i);
    std::int64_t size = 1;
    for (std::size_t a = 0; a < 3; ++a) {
      size *= std::min(tile[a], sides[a] - place[a] * tile[a]);
    }
    canvas.sizes.push_back(static_cast<std::int32_t>(size));
  }
  return canvas;
}

// The smallest radius whose window around tile `q`, pushed inside [0, count), holds tile `k`.
std::int64_t least_radius(std::int64_t q, std::int64_t k, std::int64_t count) {
  for (std::int64_t radius = 0;; ++radius) {
    const auto high = count - 1 - radius;
    if (radius > high) return radius;  // spans the axis
    if (std::abs(std::clamp(q, radius, high) - k) <= radius) return radius;
  }
}

// Factor by which a window must be scaled to hold the pair: 1 and less is inside. An even side w acts
// as w + 1 (the radius is floor(w / 2)), as in the released code.
double factor(const Canvas& canvas, const Triple& window, const Triple& q, const Triple& k) {
  double largest = 0.0;
  for (std::size_t a = 0; a < 3; ++a) {
    const auto needed = 2 * least_radius(q[a], k[a], canvas.tiles[a]) + 1;
    const auto side = 2 * (window[a] / 2) + 1;
    largest = std::max(largest, static_cast<double>(needed) / static_cast<double>(side));
  }
  return largest;
}

class Sta : public Method {
 public:
  Sta(const json& params, const MethodOptions& options) : options_(options) {
    tile_ = triple(params.at("tile"), 0);
    released_ = params.at("canvas") == "released";
    density_ = asked_density(params);
    seed_ = params.at("seed").get<std::uint64_t>();
    rows_ = params.at("rows").get<int>();
    if (params.at("heads") == "fixed") {
      windows_ = {triple(params.at("window"), 0)};
    } else {
      const json& flat = params.at("candidates");
      if (flat.empty() || flat.size() % 3 != 0) {
        throw ParamError("/candidates",
                         "key 'candidates': got " + flat.dump() +
                             ", allowed: windows one after another, three numbers each");
      }
      for (std::size_t i = 0; i < flat.size(); i += 3) windows_.push_back(triple(flat, i));
    }
  }

  Plan plan(const RecordView& record, State& /*state*/) const override {
    const Segment& video = only_video(record.info->segments, "STA");
    refuse_unknown_canvas(video);
    std::vector<HeadPlan> choices;
    const auto order = std::make_shared<const std::vector<std::int32_t>>(
        tiled_order(video, record.info->segments));
    for (const auto& window : windows_) {
      choices.push_back(with_window(record, video, order, window));
    }
    std::vector<HeadPlan> heads(static_cast<std::size_t>(record.heads()));
    PlanNote note{"window", {}, std::vector<std::string>(heads.size())};
    parallel_for(options_.threads, record.heads(), [&](std::int64_t head, int) {
      const auto best = best_choice(record, head, choices);
      heads[static_cast<std::size_t>(head)] = choices[best];
      const Triple& w = windows_[best];
      note.words[static_cast<std::size_t>(head)] =
          std::to_string(w[0]) + "x" + std::to_string(w[1]) + "x" + std::to_string(w[2]);
    });
    Plan plan = join_heads(heads, record.tokens());
    if (density_) plan.nominal_density = *density_;
    plan.notes = {std::move(note)};
    return plan;
  }

 private:
  static Triple triple(const json& list, std::size_t first) {
    return {list.at(first).get<std::int64_t>(), list.at(first + 1).get<std::int64_t>(),
            list.at(first + 2).get<std::int64_t>()};
  }

  void refuse_unknown_canvas(const Segment& video) const {
    if (!released_) return;
    const Triple sides{video.frames, video.height, video.width};
    const std::array<Triple, 3> known{{{30, 48, 80}, {36, 48, 48}, {18, 48, 80}}};
    if (tile_ == Triple{6, 8, 8} && std::find(known.begin(), known.end(), sides) != known.end()) {
      return;
    }
    throw Unsupported(
        "STA's released code takes 30x48x80, 36x48x48 and 18x48x80 tokens in tiles of "
        "6x8x8 only; `canvas: any` (ours) takes every grid");
  }

  // Tiles in raster order, raster inside a tile, then text, then padding.
  std::vector<std::int32_t> tiled_order(const Segment& video, const Segments& segments) const {
    OrderRequest request;
    request.frames = video.frames;
    request.height = video.height;
    request.width = video.width;
    request.params = {{"window", tile_}};
    auto tokens = make_order("window3d", request).index;
    for (auto& token : tokens) token += static_cast<std::int32_t>(video.start);
    for (const auto role : {Role::text, Role::pad}) {
      const auto more = tokens_of(segments, role);
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
    return tokens;
  }

  HeadPlan with_window(const RecordView& record, const Segment& video, const SharedOrder& order,
                       const Triple& window) const {
    const Canvas canvas = canvas_of(video, tile_);
    std::vector<std::int32_t> offsets = {0};
    for (const auto size : canvas.sizes) offsets.push_back(offsets.back() + size);
    const auto tile_tokens = static_cast<std::int32_t>(tile_[0] * tile_[1] * tile_[2]);
    while (offsets.back() < record.tokens()) {
      offsets.push_back(static_cast<std::int32_t>(
          std::min<std::int64_t>(offsets.back() + tile_tokens, record.tokens())));
    }
    PricedMask mask = priced_mask(offsets, offsets);
    const auto tiles = static_cast<std::int64_t>(canvas.sizes.size());
    for (std::int64_t i = 0; i < tiles; ++i) {
      for (std::int64_t j = 0; j < tiles; ++j) {
        mask.prices[static_cast<std::size_t>(i * mask.columns() + j)] =
            factor(canvas, window, canvas.at(i), canvas.at(j));
      }
    }
    // Text and padding queries see everything; video queries see text, and no padding.
    const auto real = record.tokens() - count_tokens(record.info->segments, Role::pad);
    force_positions(mask, true, false, [&](std::int64_t p) { return p >= video.length; });
    force_positions(mask, false, true,
                    [&](std::int64_t p) { return p >= video.length && p < real; });
    HeadPlan plan;
    plan.q_order = plan.k_order = order;
    plan.q_offsets = plan.k_offsets = offsets;
    if (density_) {
      std::vector<std::uint8_t> valid;
      for (std::size_t p = 0; record.key_valid != nullptr && p < order->size(); ++p) {
        valid.push_back(record.key_valid[(*order)[p]]);
      }
      plan.kept = keep_density(mask, *density_, options_.row_seed, valid, "STA");
    } else {
      plan.kept = keep_at(mask, 1.0);
    }
    plan.forced = forced_part(mask, plan.kept);
    return plan;
  }

  std::size_t best_choice(const RecordView& record, std::int64_t head,
                          const std::vector<HeadPlan>& choices) const {
    if (choices.size() == 1) return 0;
    RowSample sample;
    sample.tokens.resize(static_cast<std::size_t>(record.tokens()));
    std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
    seeded_shuffle(sample.tokens, hash_seed({seed_, 0x57aULL}));
    sample.tokens.resize(std::min(sample.tokens.size(), static_cast<std::size_t>(rows_)));
    std::sort(sample.tokens.begin(), sample.tokens.end());
    RecordView one = record;
    one.q = record.q.slice_heads(head, 1);
    one.k = record.k.slice_heads(head, 1);
    one.v = record.v.slice_heads(head, 1);
    const auto dense = evaluate_rows(one, 0, sample, nullptr, 1);
    std::size_t best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t c = 0; c < choices.size(); ++c) {
      const Plan plan = join_heads({choices[c]}, record.tokens());
      const auto sparse = evaluate_rows(one, 0, sample, &plan, 1);
      double sum = 0.0;
      for (std::size_t i = 0; i < dense.o.size(); ++i) {
        sum += (double{dense.o[i]} - sparse.o[i]) * (double{dense.o[i]} - sparse.o[i]);
      }
      if (sum < least) {
        least = sum;
        best = c;
      }
    }
    return best;
  }

  MethodOptions options_;
  Triple tile_{6, 8, 8};
  std::vector<Triple> windows_;
  bool released_ = false;
  std::optional<double> density_;  // the window is solved for it
  std::uint64_t seed_ = 0;
  int rows_ = 256;
};

std::vector<ParamSpec> params() {
  return {
      {.name = "preset",
       .type = ParamType::choice,
       .default_value = "any",
       .help = "released: the three canvases of the released code; any: every grid (ours)",
       .choices = {"released", "any"}},
      {.name = "tile",
       .type = ParamType::integers,
       .default_value = {6, 8, 8},
       .help = "frames, rows and columns of a tile, in tokens",
       .min = 1,
       .max = 65536,
       .length = 3},
      {.name = "window",
       .type = ParamType::integers,
       .default_value = {3, 3, 3},
       .help = "frames, rows and columns of the window of all heads, in tiles",
       .min = 1,
       .max = 65536,
       .length = 3},
      {.name = "heads",
       .type = ParamType::choice,
       .default_value = "fixed",
       .help = "fixed: `window` for all; oracle: each head's best of `candidates` on this record",
       .choices = {"fixed", "oracle"}},
      {.name = "candidates",
       .type = ParamType::integers,
       .default_value = {3, 1, 10, 1, 5, 7, 3, 3, 3, 1, 6, 5, 1, 3, 10, 3, 6, 1},
       .help = "windows to choose from, three numbers each (default: the released code's for Wan)",
       .min = 1,
       .max = 65536},
      solved_density_param(),
      {.name = "canvas",
       .type = ParamType::choice,
       .default_value = "any",
       .help = "released: refuse other canvases, as the code does; any: clip tiles at the edges",
       .choices = {"released", "any"}},
      {.name = "rows",
       .type = ParamType::integer,
       .default_value = 256,
       .help = "query rows on which heads: oracle compares candidates",
       .min = 1,
       .max = 1 << 20},
      {.name = "seed",
       .type = ParamType::integer,
       .default_value = 0,
       .help = "of those rows",
       .min = 0}};
}

}  // namespace

MethodEntry sta_method() {
  return {{"sta",
           "3D tiles; every query tile sees a fixed window of key tiles around it",
           "Sliding Tile Attention, arXiv 2502.04507, section 3; FastVideo's released code",
           params(),
           {{"released", {{"canvas", "released"}}}, {"any", {{"canvas", "any"}}}},
           "No prediction: the mask follows from positions. released refuses every canvas but the "
           "code's three;\nany (ours) clips tiles at the edges of the grid. heads: oracle is the "
           "authors' search with the record\nitself as its only sample, an upper bound; it has no "
           "term for density, so without `density` it\nprefers large windows. `density` scales "
           "the window, keeping its proportions."},
          [](const json& given, const MethodOptions& options) -> std::unique_ptr<Method> {
            return std::make_unique<Sta>(given, options);
          }};
}

}  // namespace raingauge
