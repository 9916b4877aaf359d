// SPDX-License-Identifier: Apache-2.0
// SVG, Sparse VideoGen (arXiv 2502.01776; released code of Wan, HunyuanVideo and CogVideoX): a head is
// spatial (it attends frames nearby) or temporal (it attends the same place in other frames). A
// temporal head's tokens are arranged patch by patch, so that both kinds run one band. The kind is
// chosen for each record from a few query rows: the smaller squared error of the output under two
// fixed masks. The band's width follows from the density by a formula that leaves the corners out, so
// the density achieved is above the one asked for; `match: density` widens the band until it is met.
//
// Kept from the released code: the masks that classify are wider than the one that runs and do not
// follow the density; rows are drawn from the first 10,000 tokens (of the record, where it has fewer;
// there the code raises); wan's sink is the columns k < H*W of the arranged video, for a temporal head
// a few patches over all frames and not frame 0; cogvideox decides `temporal` for all heads as soon as
// a text row is drawn, because its temporal mask leaves that row empty. Where a record under preset
// `wan` has text, whose model has none in self-attention, its rows and columns are kept.
#include <algorithm>
#include <cmath>
#include <map>

#include "data/random.h"
#include "methods/head_plans.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/kernels/threads.h"
#include "methods/method.h"
#include "methods/svg_masks.h"

namespace raingauge {
namespace {

using nlohmann::json;
using svg::Model;
using svg::Sequence;

// Query tokens drawn for one record, and how often each was drawn.
struct DrawnRows {
  RowSample sample;
  std::vector<double> weights;
  bool hits_text = false;
};

// The two kinds of head, as plans of one head.
struct Kinds {
  HeadPlan spatial, temporal;
};

HeadPlan head_plan(const SharedOrder& order, const PricedMask& mask, KeptRows kept) {
  HeadPlan plan;
  plan.q_order = plan.k_order = order;
  plan.q_offsets = mask.q_offsets;
  plan.k_offsets = mask.k_offsets;
  plan.forced = forced_part(mask, kept);
  plan.kept = std::move(kept);
  return plan;
}

// Mean squared difference of the outputs of the drawn rows.
double squared_error(const RowResults& a, const RowResults& b, const std::vector<double>& weights) {
  double sum = 0.0;
  double count = 0.0;
  const auto dim = static_cast<std::size_t>(a.head_dim);
  for (std::size_t row = 0; row < weights.size(); ++row) {
    for (std::size_t c = row * dim; c < (row + 1) * dim; ++c) {
      const double difference = double{a.o[c]} - double{b.o[c]};
      sum += weights[row] * difference * difference;
    }
    count += weights[row] * static_cast<double>(dim);
  }
  return sum / count;
}

class Svg : public Method {
 public:
  Svg(const json& params, const MethodOptions& options) : options_(options) {
    const auto preset = params.at("preset").get<std::string>();
    model_ = preset == "wan" ? Model::wan : preset == "hunyuan" ? Model::hunyuan : Model::cogvideox;
    density_ = params.at("density").get<double>();
    block_ = params.at("block").get<int>();
    rows_ = params.at("rows").get<int>();
    seed_ = params.at("seed").get<std::uint64_t>();
    profile_executed_ = params.at("profile") == "executed";
  }

  Plan plan(const RecordView& record, State& /*state*/) const override {
    const Sequence sequence = svg::sequence_of(record.info->segments, model_);
    const Kinds kinds = executed(sequence, record);
    const Kinds profile = profile_executed_ ? kinds : profiles(sequence);
    const DrawnRows rows = draw(sequence, record.info->site);
    std::vector<HeadPlan> heads(static_cast<std::size_t>(record.heads()));
    PlanNote kind{"kind", {}, std::vector<std::string>(heads.size())};
    PlanNote spatial{"mse_spatial", std::vector<double>(heads.size()), {}};
    PlanNote temporal{"mse_temporal", std::vector<double>(heads.size()), {}};
    parallel_for(options_.threads, record.heads(), [&](std::int64_t head, int) {
      const auto h = static_cast<std::size_t>(head);
      bool is_temporal = model_ == Model::cogvideox && rows.hits_text;
      spatial.numbers[h] = temporal.numbers[h] = std::nan("");
      if (!is_temporal) {
        const auto errors = judge(record, head, rows, profile);
        spatial.numbers[h] = errors.first;
        temporal.numbers[h] = errors.second;
        is_temporal = errors.second < errors.first;  // a tie is spatial
      }
      kind.words[h] = is_temporal ? "temporal" : "spatial";
      heads[h] = is_temporal ? kinds.temporal : kinds.spatial;
    });
    Plan plan = join_heads(heads, record.tokens());
    plan.nominal_density = density_;
    plan.notes = {std::move(kind), std::move(spatial), std::move(temporal)};
    return plan;
  }

  // The formula counts text twice and spends the rest on a band without its corners.
  bool dense_at_full_budget() const override { return model_ == Model::wan; }

 private:
  Kinds executed(const Sequence& sequence, const RecordView& record) const {
    const bool pad_valid = sequence.pad == 0 || record.key_valid == nullptr ||
                           record.key_valid[sequence.spatial.back()] != 0;
    const PricedMask mask = svg::executed_mask(sequence, block_, pad_valid);
    const auto make = [&](const std::vector<std::int32_t>& order) {
      KeptRows kept;
      if (options_.match == DensityMatch::measured) {
        std::vector<std::uint8_t> valid;
        for (std::size_t p = 0; record.key_valid != nullptr && p < order.size(); ++p) {
          valid.push_back(record.key_valid[order[p]]);
        }
        kept = keep_density(mask, density_, options_.row_seed, valid, "SVG");
      } else {
        kept = keep_at(mask, svg::knob_of(sequence, svg::band_width(sequence, density_)));
      }
      return head_plan(std::make_shared<const std::vector<std::int32_t>>(order), mask,
                       std::move(kept));
    };
    return {make(sequence.spatial), make(sequence.temporal)};
  }

  static Kinds profiles(const Sequence& sequence) {
    const auto make = [&](const std::vector<std::int32_t>& order, bool temporal) {
      const PricedMask mask = svg::profile_mask(sequence, temporal);
      return head_plan(std::make_shared<const std::vector<std::int32_t>>(order), mask,
                       keep_at(mask, 0.0));
    };
    return {make(sequence.spatial, false), make(sequence.temporal, true)};
  }

  DrawnRows draw(const Sequence& sequence, const Site& site) const {
    constexpr std::int64_t kFirstTokens = 10000;  // sample_mse_max_row of wan and hunyuan
    const auto limit =
        model_ == Model::cogvideox ? sequence.tokens() : std::min(sequence.tokens(), kFirstTokens);
    DrawnRows rows;
    std::map<std::int32_t, double> drawn;
    for (int i = 0; i < rows_; ++i) {
      const auto bits =
          hash_seed({seed_, static_cast<std::uint64_t>(site.step),
                     static_cast<std::uint64_t>(site.layer), static_cast<std::uint64_t>(i)});
      const auto position =
          static_cast<std::int64_t>(below(bits, static_cast<std::uint64_t>(limit)));
      rows.hits_text = rows.hits_text || sequence.in_text(position);
      drawn[sequence.spatial[static_cast<std::size_t>(position)]] += 1.0;
    }
    for (const auto& [token, weight] : drawn) {
      rows.sample.tokens.push_back(token);
      rows.weights.push_back(weight);
    }
    return rows;
  }

  // Squared errors under the spatial and the temporal profile, softmax scale d^-1/2 as in the code.
  static std::pair<double, double> judge(const RecordView& record, std::int64_t head,
                                         const DrawnRows& rows, const Kinds& profile) {
    RecordInfo info = *record.info;
    info.scale = 1.0 / std::sqrt(static_cast<double>(record.head_dim()));
    const RecordView one{&info, record.q.slice_heads(head, 1), record.k.slice_heads(head, 1),
                         record.v.slice_heads(head, 1), record.key_valid};
    const auto dense = evaluate_rows(one, 0, rows.sample, nullptr, 1);
    const auto error = [&](const HeadPlan& kind) {
      const Plan plan = join_heads({kind}, record.tokens());
      return squared_error(dense, evaluate_rows(one, 0, rows.sample, &plan, 1), rows.weights);
    };
    return {error(profile.spatial), error(profile.temporal)};
  }

  MethodOptions options_;
  Model model_ = Model::wan;
  double density_ = 1.0;
  int block_ = 128, rows_ = 64;
  std::uint64_t seed_ = 0;
  bool profile_executed_ = false;
};

std::vector<ParamSpec> params() {
  return {
      {.name = "preset",
       .type = ParamType::choice,
       .default_value = "wan",
       .help = "the released code of this model: sink, rounding, masks, sampled rows",
       .choices = {"wan", "hunyuan", "cogvideox"}},
      {.name = "density",
       .type = ParamType::real,
       .default_value = 0.3,
       .help = "the authors' `--sparsity`, a target density (scripts: 0.30 wan, 0.25 others)",
       .min = 0.0,
       .max = 1.0,
       .min_open = true},
      {.name = "block",
       .type = ParamType::integer,
       .default_value = 128,
       .help = "tokens per block of the cover of the band",
       .min = 1,
       .max = 65536},
      {.name = "rows",
       .type = ParamType::integer,
       .default_value = 64,
       .help = "query rows drawn (with repetition) to classify the heads of a record",
       .min = 1,
       .max = 65536},
      {.name = "profile",
       .type = ParamType::choice,
       .default_value = "shipped",
       .help = "masks that classify: the released code's fixed ones, or (ours) the executed ones",
       .choices = {"shipped", "executed"}},
      {.name = "seed",
       .type = ParamType::integer,
       .default_value = 0,
       .help = "of the rows drawn",
       .min = 0}};
}

}  // namespace

MethodEntry svg_method() {
  return {
      {"svg",
       "each head is spatial or temporal, chosen from sampled rows; both run one band",
       "Sparse VideoGen, arXiv 2502.01776, section 3; released code of wan, hyvideo and cog",
       params(),
       {{"wan", {{"density", 0.3}, {"rows", 64}}},
        {"hunyuan", {{"density", 0.25}, {"rows", 64}}},
        {"cogvideox", {{"density", 0.25}, {"rows", 32}}}},
       "A preset is the released code of one model. `density` is its --sparsity, from which the "
       "width of the\nband follows by a formula without the corners; the density achieved is "
       "in every row. Kept as released:\nfixed masks for the classification, wider than the "
       "band that runs (profile: executed is ours); rows\nfrom the first 10,000 tokens; wan's "
       "sink is k < H*W of the arranged video, not frame 0, in temporal\nheads; a drawn text row "
       "makes every cogvideox head temporal. Rows tell the kind of each head and both\nerrors. "
       "match: density widens the band block by block. Dense steps and layers of the scripts\n"
       "(10 of 50 and 1 of 40 for wan) are dense_steps and dense_layers."},
      [](const json& given, const MethodOptions& options) -> std::unique_ptr<Method> {
        return std::make_unique<Svg>(given, options);
      }};
}

}  // namespace raingauge
