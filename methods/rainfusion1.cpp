// SPDX-License-Identifier: Apache-2.0
// RainFusion v1 (arXiv 2505.21036): heads are classified online by how much softmax mass a band keeps
// on two small samples of Q and K, and each class runs its own fixed mask. Block order of the released
// code: [frames 1 … F-1 | text | frame 0]; text and frame 0 are the protected tail, kept on both sides.
//
//   rf1-prod   the released two-way code: local (a temporal head: the same place in all frames) when
//              the first sample keeps more than 0.95 or more than the second, else global (a spatial
//              head). Local tokens are arranged (h w f). Rounding as released: the bandwidth to two
//              digits, the band down to whole blocks, so that even b = 1 leaves corners out.
//   rf1-paper  the paper's three-way decision (recall >= alpha; its alpha and sampling stride are not
//              published): temporal, else spatial, else textural, which attends a checkerboard of keys.
//   rf1-plus   the same with the smallest bandwidth of {0.125, 0.25, 0.5} whose recall reaches alpha
//              (the paper's "RainFusion+"); heads then differ in density.
//
// Samples (released code; the paper leaves them open): local = frame 1 against itself, global = every
// (F-1)-th token of frames 1 … F-1; each H*W tokens, band |i - j| <= b * H*W, softmax scale d^-1/2.
// `match: density` widens the band, or the checkerboard, of each head until the density is met.
#include <algorithm>
#include <cmath>
#include <map>

#include "methods/head_plans.h"
#include "methods/kernels/threads.h"
#include "methods/method.h"
#include "methods/rainfusion1_sampling.h"
#include "methods/static_mask.h"

namespace raingauge {
namespace {

using nlohmann::json;
using rf1::band_recall;
using rf1::checkerboard;
using rf1::Parts;
using rf1::parts_of;
using rf1::Tokens;

enum class Kind { local, global, textural };

// Python's round(x, 2) for x in [0, 1].
double two_digits(double x) { return std::nearbyint(x * 100.0) / 100.0; }

class RainFusion1 : public Method {
 public:
  RainFusion1(const json& params, const MethodOptions& options) : options_(options) {
    density_ = params.at("density").get<double>();
    block_ = params.at("block").get<int>();
    decision_ = params.at("decision").get<std::string>();
    alpha_ = params.at("alpha").get<double>();
    stride_ = params.at("stride").get<int>();
    shipped_rounding_ = params.at("rounding") == "shipped";
    adaptive_ = params.at("bandwidth") == "adaptive";
  }

  Plan plan(const RecordView& record, State& /*state*/) const override {
    if (adaptive_ && options_.match == DensityMatch::measured) {
      throw Unsupported(
          "rainfusion1 with bandwidth: adaptive chooses each head's density by recall; at a "
          "density "
          "given from outside it is preset rf1-paper");
    }
    const Parts parts = parts_of(record.info->segments);
    std::vector<Decision> decisions(static_cast<std::size_t>(record.heads()));
    parallel_for(options_.threads, record.heads(), [&](std::int64_t head, int) {
      decisions[static_cast<std::size_t>(head)] = decide(record, head, parts);
    });
    // A mask depends on the grid, the kind and the bandwidth alone: heads share it.
    std::map<std::pair<Kind, double>, HeadPlan> masks;
    std::vector<HeadPlan> heads;
    PlanNote kind{"kind", {}, {}}, local{"recall_local", {}, {}}, global{"recall_global", {}, {}};
    PlanNote width{"bandwidth", {}, {}};
    for (const Decision& decision : decisions) {
      static const char* const names[] = {"local", "global", "textural"};
      const std::pair key{decision.kind, decision.bandwidth};
      auto found = masks.find(key);
      if (found == masks.end()) found = masks.emplace(key, mask_of(parts, record, decision)).first;
      heads.push_back(found->second);
      kind.words.emplace_back(names[static_cast<int>(decision.kind)]);
      local.numbers.push_back(decision.local);
      global.numbers.push_back(decision.global);
      width.numbers.push_back(decision.kind == Kind::textural ? std::nan("") : decision.bandwidth);
    }
    Plan plan = join_heads(heads, record.tokens());
    if (!adaptive_) plan.nominal_density = density_;
    plan.notes = {std::move(kind), std::move(local), std::move(global), std::move(width)};
    return plan;
  }

  bool dense_at_full_budget() const override { return !shipped_rounding_ && !adaptive_; }

 private:
  struct Decision {
    Kind kind = Kind::global;
    double bandwidth = 0.0;
    double local = 0.0, global = 0.0;
  };
  std::vector<double> bandwidths() const {
    if (adaptive_) return {0.125, 0.25, 0.5};
    const double b = 1.0 - std::sqrt(1.0 - density_);
    return {shipped_rounding_ ? two_digits(b) : b};
  }

  HeadPlan mask_of(const Parts& parts, const RecordView& record, const Decision& decision) const {
    if (decision.kind == Kind::textural) return textural(parts, record);
    const Tokens& grid = decision.kind == Kind::local ? parts.patch_major : parts.raster;
    return band(parts, record, grid, decision.kind, decision.bandwidth);
  }

  // Tokens of frame 1; every (F-1)-th token of frames 1 … F-1.
  Decision decide(const RecordView& record, std::int64_t head, const Parts& parts) const {
    const auto n = parts.frame_size;
    const Tokens one(parts.raster.begin(), parts.raster.begin() + n);
    Tokens spread;
    for (std::int64_t i = 0; i < parts.rest(); i += parts.frames - 1) {
      spread.push_back(parts.raster[static_cast<std::size_t>(i)]);
    }
    Decision decision;
    for (const double b : bandwidths()) {
      const auto half = static_cast<std::int64_t>(b * static_cast<double>(n));
      decision.bandwidth = b;
      decision.local = band_recall(record, head, one, half);
      decision.global = band_recall(record, head, spread, half);
      if (decision_ == "two_way") {
        constexpr double kSure = 0.95;  // of the released code
        const bool is_local = decision.local > kSure || decision.local > decision.global;
        decision.kind = is_local ? Kind::local : Kind::global;
        return decision;
      }
      decision.kind = decision.local >= alpha_    ? Kind::local
                      : decision.global >= alpha_ ? Kind::global
                                                  : Kind::textural;
      if (decision.kind != Kind::textural) return decision;
    }
    return decision;
  }

  // Reach of the band in blocks, as a knob on the block distance.
  double reach(const Parts& parts, Kind kind, double b) const {
    const auto later = parts.frames - 1;
    const auto n = static_cast<double>(parts.frame_size);
    const auto block = static_cast<std::int64_t>(block_);
    if (!shipped_rounding_) return b * static_cast<double>(parts.rest());  // positions
    const auto positions =
        kind == Kind::local
            ? static_cast<std::int64_t>(b * n) / block * later * block
            : static_cast<std::int64_t>(b * static_cast<double>(parts.rest())) / block * block;
    if (positions < block) {
      throw Unsupported("RainFusion v1: a band of " + std::to_string(b) +
                        " of the tokens rounds down to no block in the released code; blocks of " +
                        std::to_string(block) + " are too large for this grid");
    }
    return static_cast<double>(positions / block - 1);
  }

  // Video in `grid` order, then the tail; each starts a block.
  HeadPlan band(const Parts& parts, const RecordView& record, const Tokens& grid, Kind kind,
                double b) const {
    HeadPlan plan;
    Tokens order = grid;
    order.insert(order.end(), parts.tail.begin(), parts.tail.end());
    PricedMask mask = priced_mask(offsets_of(parts), offsets_of(parts));
    for (std::int64_t i = 0; i < mask.rows(); ++i) {
      for (std::int64_t j = 0; j < mask.columns(); ++j) {
        const auto distance = shipped_rounding_ ? std::abs(i - j) : least_distance(mask, i, j);
        mask.prices[static_cast<std::size_t>(i * mask.columns() + j)] =
            static_cast<double>(distance);
      }
    }
    protect_tail(parts, mask, true);
    finish(plan, mask, record, order, order, [&] { return reach(parts, kind, b); });
    return plan;
  }

  HeadPlan textural(const Parts& parts, const RecordView& record) const {
    HeadPlan plan;
    Tokens q_order = parts.raster;
    q_order.insert(q_order.end(), parts.tail.begin(), parts.tail.end());
    const bool solve = options_.match == DensityMatch::measured;
    const int stride = solve ? std::max(1, static_cast<int>(std::ceil(1.0 / density_))) : stride_;
    std::size_t on_board = 0;
    Tokens k_order = checkerboard(parts, stride, &on_board);
    k_order.insert(k_order.end(), parts.tail.begin(), parts.tail.end());
    auto k_offsets = offsets_of(parts, {static_cast<std::int64_t>(on_board)});
    PricedMask mask = priced_mask(offsets_of(parts), std::move(k_offsets));
    for (std::int64_t i = 0; i < mask.rows(); ++i) {
      for (std::int64_t j = 0; j < mask.columns(); ++j) {
        const auto begin = static_cast<std::size_t>(mask.k_offsets[static_cast<std::size_t>(j)]);
        mask.prices[static_cast<std::size_t>(i * mask.columns() + j)] =
            begin < on_board ? 0.0 : 1.0;
      }
    }
    protect_tail(parts, mask, true);
    finish(plan, mask, record, q_order, k_order, [] { return 0.0; });
    return plan;
  }

  std::vector<std::int32_t> offsets_of(const Parts& parts,
                                       std::vector<std::int64_t> cuts = {}) const {
    std::vector<std::int32_t> offsets;
    std::sort(cuts.begin(), cuts.end());
    cuts.push_back(parts.rest());
    cuts.push_back(parts.rest() + static_cast<std::int64_t>(parts.tail.size()));
    std::int64_t begin = 0;
    for (const auto end : cuts) {
      for (auto p = begin; p < end; p += block_) offsets.push_back(static_cast<std::int32_t>(p));
      begin = end;
    }
    offsets.push_back(static_cast<std::int32_t>(begin));
    return offsets;
  }

  static void protect_tail(const Parts& parts, PricedMask& mask, bool rows) {
    force_positions(mask, rows, true, [&](std::int64_t p) { return p >= parts.rest(); });
  }

  template <typename Knob>
  void finish(HeadPlan& plan, const PricedMask& mask, const RecordView& record,
              const Tokens& q_order, const Tokens& k_order, const Knob& knob) const {
    plan.q_order = std::make_shared<const Tokens>(q_order);
    plan.k_order = q_order == k_order ? plan.q_order : std::make_shared<const Tokens>(k_order);
    plan.q_offsets = mask.q_offsets;
    plan.k_offsets = mask.k_offsets;
    if (options_.match == DensityMatch::measured) {
      std::vector<std::uint8_t> valid;
      for (std::size_t p = 0; record.key_valid != nullptr && p < k_order.size(); ++p) {
        valid.push_back(record.key_valid[k_order[p]]);
      }
      plan.kept = keep_density(mask, density_, options_.row_seed, valid, "RainFusion v1");
    } else {
      plan.kept = keep_at(mask, knob());
    }
    plan.forced = forced_part(mask, plan.kept);
  }

  MethodOptions options_;
  double density_ = 0.36, alpha_ = 0.9;
  int block_ = 128, stride_ = 2;
  std::string decision_;
  bool shipped_rounding_ = true, adaptive_ = false;
};

std::vector<ParamSpec> params() {
  return {{.name = "preset",
           .type = ParamType::choice,
           .default_value = "rf1-prod",
           .help = "released two-way code, the paper's three-way decision, or RainFusion+",
           .choices = {"rf1-prod", "rf1-paper", "rf1-plus"}},
          {.name = "density",
           .type = ParamType::real,
           .default_value = 0.36,
           .help = "1 - the authors' sparsity; the band has half-width 1 - sqrt(sparsity)",
           .min = 0.0,
           .max = 1.0,
           .min_open = true},
          {.name = "block",
           .type = ParamType::integer,
           .default_value = 128,
           .help = "tokens per block, also the multiple that the band is rounded down to",
           .min = 1,
           .max = 65536},
          {.name = "decision",
           .type = ParamType::choice,
           .default_value = "two_way",
           .help = "two_way: local > 0.95 or above global; three_way: recall >= alpha",
           .choices = {"two_way", "three_way"}},
          {.name = "alpha",
           .type = ParamType::real,
           .default_value = 0.9,
           .help = "recall that makes a head temporal, else spatial (three_way; not published)",
           .min = 0.0,
           .max = 1.0},
          {.name = "stride",
           .type = ParamType::integer,
           .default_value = 2,
           .help = "of the checkerboard of textural heads: 1 in `stride` keys (three_way)",
           .min = 1,
           .max = 64},
          {.name = "bandwidth",
           .type = ParamType::choice,
           .default_value = "from_density",
           .help = "from_density, or adaptive: the smallest of 0.125, 0.25, 0.5 that reaches alpha",
           .choices = {"from_density", "adaptive"}},
          {.name = "rounding",
           .type = ParamType::choice,
           .default_value = "shipped",
           .help = "shipped: bands of whole blocks, rounded down; exact: the cover of the band",
           .choices = {"shipped", "exact"}}};
}

}  // namespace

MethodEntry rainfusion1_method() {
  return {
      {"rainfusion1",
       "heads are local, global or textural by sampled recall; a fixed mask each",
       "RainFusion, arXiv 2505.21036, section 3; released two-way code (rf1-prod)",
       params(),
       {{"rf1-prod", json::object()},
        {"rf1-paper", {{"decision", "three_way"}, {"density", 0.4375}, {"rounding", "exact"}}},
        {"rf1-plus",
         {{"decision", "three_way"}, {"bandwidth", "adaptive"}, {"rounding", "exact"}}}},
       "rf1-prod is the released code: two kinds of head, local first, thresholds 0.95 and "
       "local > global,\nbands of whole blocks rounded down (b = 1 is not dense; local heads get "
       "less than global ones).\nrf1-paper is the paper's three-way rule with bands of 1/4 to "
       "each side; its alpha and its sampling\nare not published: alpha 0.9 and the code's "
       "samples are used. rf1-plus (the paper's RainFusion+)\nchooses the bandwidth per head, "
       "so match: density refuses it. Neither preset has dense steps\n(paper: the first 10 %; "
       "released default: 37.5 %): dense_steps is a key of its own.\nOne image is refused: the "
       "method is defined on frames."},
      [](const json& given, const MethodOptions& options) -> std::unique_ptr<Method> {
        return std::make_unique<RainFusion1>(given, options);
      }};
}

}  // namespace raingauge
