// SPDX-License-Identifier: Apache-2.0
#include "harness/fidelity.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "data/error.h"
#include "data/random.h"
#include "harness/rows.h"
#include "methods/block_similarity.h"
#include "methods/controls.h"
#include "metrics/evaluate.h"
#include "metrics/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

// `count` distinct query tokens of the whole sequence, or all of them: the same for every head and arm.
RowSample sample_rows(std::int64_t tokens, const RowPlan& rows) {
  RowSample sample;
  sample.tokens.resize(static_cast<std::size_t>(tokens));
  std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
  if (rows.all || tokens <= rows.sample) return sample;
  seeded_shuffle(sample.tokens, hash_seed({rows.seed, static_cast<std::uint64_t>(tokens)}));
  sample.tokens.resize(static_cast<std::size_t>(rows.sample));
  std::sort(sample.tokens.begin(), sample.tokens.end());
  return sample;
}

bool has_first_frame(const Segments& segments) {
  return std::any_of(segments.begin(), segments.end(),
                     [](const Segment& s) { return s.role == Role::video && s.frames > 1; });
}

// Order and block boundaries of one head: what a block mass depends on.
std::uint64_t layout_key(const Plan& plan, std::int64_t head) {
  std::uint64_t state = 0x6c617967ULL;
  const auto add_order = [&](const Orders& orders) {
    state = mix64(state ^ (orders.identity ? 1ULL : 2ULL));
    if (orders.identity) return;
    for (std::int64_t i = 0; i < orders.tokens; ++i) {
      state = mix64(state ^ static_cast<std::uint64_t>(orders.row(head)[i]));
    }
  };
  const auto add_layout = [&](const Layout& layout) {
    for (std::int64_t i = 0; i <= layout.blocks; ++i) {
      state = mix64(state ^ static_cast<std::uint64_t>(layout.row(head)[i]));
    }
  };
  add_order(plan.q_order);
  add_order(plan.k_order);
  add_layout(plan.q_blocks);
  add_layout(plan.k_blocks);
  return state;
}

json metric_json(const MetricValue& value) {
  json out = {{"value", number_or_null(value.value)},
              {"lo", number_or_null(value.lo)},
              {"hi", number_or_null(value.hi)}};
  if (!value.reason.empty()) out["reason"] = value.reason;
  return out;
}

// Judges one head of one plan; writes densities and metrics into its row.
class HeadReport {
 public:
  HeadReport(RecordJudge& judge, const std::vector<std::string>& metrics) : judge_(judge) {
    for (const auto& name : metrics) {
      metrics_.push_back(&find_metric(name));
      wants_similarity_ = wants_similarity_ || name.starts_with("block_similarity");
    }
  }

  // `plan_head`: the head's place in `plan`. `oracle_row`: LSEs of that control, when it was run.
  json operator()(json row, std::int64_t head, const Plan& plan, const RowResults& sparse,
                  const RowResults* oracle_row) const {
    const auto& record = judge_.record();
    const auto& dense = judge_.dense(head);
    RowEvidence evidence;
    evidence.rows = dense.rows;
    evidence.head_dim = dense.head_dim;
    evidence.sampled = judge_.sampled();
    evidence.o_dense = dense.o.data();
    evidence.o_sparse = sparse.o.data();
    evidence.lse_dense = dense.lse.data();
    evidence.lse_sparse = plan.terms.empty() ? sparse.lse.data() : nullptr;
    evidence.lse_oracle_row = oracle_row != nullptr ? oracle_row->lse.data() : nullptr;
    if (has_first_frame(record.info->segments)) {
      evidence.mass_first_frame_dense = dense.mass_first_frame.data();
      evidence.mass_first_frame_sparse = sparse.mass_first_frame.data();
    }
    if (count_tokens(record.info->segments, Role::text) > 0) {
      evidence.mass_text_dense = dense.mass_text.data();
      evidence.mass_text_sparse = sparse.mass_text.data();
    }
    if (wants_similarity_ && plan.heads == record.heads()) {
      std::tie(evidence.block_similarity_q, evidence.block_similarity_k) =
          judge_.similarity(head, plan);
    }
    Bootstrap bootstrap;
    if (row.contains("control")) bootstrap.resamples = 0;  // floors and ceilings need no interval
    const auto values = evaluate_metrics(metrics_, evidence, bootstrap);
    row["head"] = record.info->heads.at(static_cast<std::size_t>(head));
    row["rows"] = dense.rows;
    row["metrics"] = json::object();
    for (std::size_t i = 0; i < metrics_.size(); ++i) {
      row["metrics"][std::string(metrics_[i]->spec.name)] = metric_json(values[i]);
    }
    return row;
  }

 private:
  RecordJudge& judge_;
  std::vector<const MetricEntry*> metrics_;
  bool wants_similarity_ = false;
};

void add_density(json& row, const Plan& plan, const Density& density, std::int64_t head) {
  const auto h = static_cast<std::size_t>(head);
  row["nominal_density"] = number_or_null(plan.nominal_density);
  row["density_pairs"] = density.pairs[h];
  row["density_blocks"] = density.blocks[h];
}

// Most key blocks of a query block / their mean: what a kernel that gives query blocks to workers waits
// for.
double load_imbalance(const Plan& plan, std::int64_t head) {
  std::int64_t most = 0, all = 0, rows = 0;
  for (std::int64_t i = 0; i < plan.lists.query_blocks; ++i) {
    if (plan.q_blocks.size(head, i) == 0) continue;
    most = std::max(most, plan.lists.count(head, i));
    all += plan.lists.count(head, i);
    ++rows;
  }
  return all == 0 ? 1.0 : static_cast<double>(most * rows) / static_cast<double>(all);
}

// {name: value} of one head; absent when the method says nothing.
void add_notes(json& row, const Plan& plan, std::int64_t head) {
  const auto h = static_cast<std::size_t>(head);
  for (const auto& note : plan.notes) {
    row["notes"][note.name] =
        note.words.empty() ? number_or_null(note.numbers.at(h)) : json(note.words.at(h));
  }
}

bool wants(const Controls& controls, const std::string& name, std::int64_t head) {
  if (std::find(controls.arms.begin(), controls.arms.end(), name) == controls.arms.end())
    return false;
  return !control_needs_mass(name) || controls.oracle_heads < 0 || head < controls.oracle_heads;
}

}  // namespace

RecordJudge::RecordJudge(const RecordView& record, const RowPlan& rows, int threads)
    : record_(record), threads_(threads), sample_(sample_rows(record.tokens(), rows)) {
  sampled_ = static_cast<std::int64_t>(sample_.tokens.size()) < record.tokens();
}

const RowResults& RecordJudge::dense(std::int64_t head) {
  auto found = dense_.find(head);
  if (found == dense_.end()) {
    found = dense_.emplace(head, evaluate_rows(record_, head, sample_, nullptr, threads_)).first;
  }
  return found->second;
}

RowResults RecordJudge::sparse(std::int64_t head, const Plan& plan) const {
  if (plan.heads == record_.heads()) return evaluate_rows(record_, head, sample_, &plan, threads_);
  RecordView one = record_;  // a control is a plan of this head alone
  one.q = record_.q.slice_heads(head, 1);
  one.k = record_.k.slice_heads(head, 1);
  one.v = record_.v.slice_heads(head, 1);
  return evaluate_rows(one, 0, sample_, &plan, threads_);
}

const std::vector<float>& RecordJudge::mass(std::int64_t head, const Plan& plan) {
  const std::pair key{head, layout_key(plan, head)};
  auto found = masses_.find(key);
  if (found == masses_.end()) {
    found = masses_.emplace(key, block_mass(record_, head, plan, threads_)).first;
  }
  return found->second;
}

std::pair<double, double> RecordJudge::similarity(std::int64_t head, const Plan& plan) {
  const std::pair key{head, layout_key(plan, head)};
  auto found = similarities_.find(key);
  if (found == similarities_.end()) {
    const std::pair both{block_similarity(record_.q, head, plan.q_order, plan.q_blocks),
                         block_similarity(record_.k, head, plan.k_order, plan.k_blocks)};
    found = similarities_.emplace(key, both).first;
  }
  return found->second;
}

std::vector<json> judge_arm(RecordJudge& judge, RecordJudge* second, const Plan& plan,
                            const Controls& controls, const std::vector<std::string>& metrics,
                            const json& base) {
  const auto& record = judge.record();
  const Density density = measure_density(plan, record.key_valid);
  const HeadReport report(judge, metrics);
  char fingerprint[17];
  std::snprintf(fingerprint, sizeof fingerprint, "%016llx",
                static_cast<unsigned long long>(plan_fingerprint(plan)));
  std::vector<json> rows;
  const auto add_control = [&](const std::string& name, std::int64_t head, std::uint64_t seed) {
    static const std::vector<float> no_mass;
    const auto& mass = control_needs_mass(name) ? judge.mass(head, plan) : no_mass;
    const Plan control = control_plan(name, plan, head, mass, seed);
    const RowResults results = judge.sparse(head, control);
    json row = base;
    row["arm"] = base.at("arm").get<std::string>() + ":" + name;
    row["control_of"] = base.at("arm");
    row["control"] = name;
    row["control_seed"] = seed;
    add_density(row, control, measure_density(control, record.key_valid), 0);
    rows.push_back(report(std::move(row), head, control, results, nullptr));
    return results;
  };
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    RowResults oracle;
    const bool has_oracle = wants(controls, "oracle_row", head);
    if (has_oracle) oracle = add_control("oracle_row", head, 0);
    if (wants(controls, "oracle_head", head)) add_control("oracle_head", head, 0);
    for (const std::string name : {"random", "random_bare"}) {
      if (!wants(controls, name, head)) continue;
      for (int seed = 0; seed < controls.random_seeds; ++seed) {
        add_control(name, head, static_cast<std::uint64_t>(seed));
      }
    }
    json row = base;
    row["plan"] = fingerprint;
    add_density(row, plan, density, head);
    row["load_imbalance"] = load_imbalance(plan, head);
    add_notes(row, plan, head);
    rows.push_back(report(std::move(row), head, plan, judge.sparse(head, plan),
                          has_oracle ? &oracle : nullptr));
    if (second == nullptr) continue;
    json floor = base;
    floor["arm"] = base.at("arm").get<std::string>() + ":second_rows";
    floor["control_of"] = base.at("arm");
    floor["control"] = "second_rows";
    add_density(floor, plan, density, head);
    rows.push_back(HeadReport(*second, metrics)(std::move(floor), head, plan,
                                                second->sparse(head, plan), nullptr));
  }
  return rows;
}

}  // namespace raingauge
