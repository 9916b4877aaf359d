// SPDX-License-Identifier: Apache-2.0
#include "harness/fidelity.h"

#include <algorithm>
#include <cstdio>
#include <tuple>

#include "harness/rows.h"
#include "methods/controls.h"
#include "metrics/evaluate.h"
#include "metrics/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

bool has_first_frame(const Segments& segments) {
  return std::any_of(segments.begin(), segments.end(),
                     [](const Segment& s) { return s.role == Role::video && s.frames > 1; });
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

  // `frame` has the orders and layouts of what was found, `key` names them. `oracle_lse`: LSEs of the
  // control oracle_row, when it was run. Floors and ceilings, which have a `control`, get no interval.
  void operator()(json& row, std::int64_t head, const Plan& frame, std::uint64_t key,
                  const FoundRows& found, const double* oracle_lse) const {
    Bootstrap bootstrap;
    if (row.contains("control")) bootstrap.resamples = 0;
    const auto values =
        evaluate_metrics(metrics_, evidence(head, frame, key, found, oracle_lse), bootstrap);
    row["head"] = judge_.record().info->heads.at(static_cast<std::size_t>(head));
    row["rows"] = judge_.rows();
    row["judged_on"] = judge_.judged_on();
    if (!judge_.host_reason().empty()) row["judged_on_reason"] = judge_.host_reason();
    json& metrics = row["metrics"] = json::object();
    for (std::size_t i = 0; i < metrics_.size(); ++i) {
      metrics[std::string(metrics_[i]->spec.name)] = metric_json(values[i]);
    }
  }

 private:
  RowEvidence evidence(std::int64_t head, const Plan& frame, std::uint64_t key,
                       const FoundRows& found, const double* oracle_lse) const {
    const auto& segments = judge_.record().info->segments;
    const auto& dense = judge_.dense(head);
    RowEvidence evidence;
    evidence.rows = dense.rows;
    evidence.head_dim = dense.head_dim;
    evidence.sampled = judge_.sampled();
    evidence.o_dense = found.o != nullptr ? dense.o.data() : nullptr;
    evidence.o_sparse = found.o;
    evidence.moments = found.rows.moments;
    evidence.lse_dense = dense.lse.data();
    evidence.lse_sparse = frame.terms.empty() ? found.rows.lse : nullptr;
    evidence.lse_oracle_row = oracle_lse;
    if (has_first_frame(segments)) {
      evidence.mass_first_frame_dense = dense.mass_first_frame.data();
      evidence.mass_first_frame_sparse = found.rows.mass_first_frame;
    }
    if (count_tokens(segments, Role::text) > 0) {
      evidence.mass_text_dense = dense.mass_text.data();
      evidence.mass_text_sparse = found.rows.mass_text;
    }
    if (wants_similarity_) {
      std::tie(evidence.block_similarity_q, evidence.block_similarity_k) =
          judge_.similarity(head, frame, key);
    }
    return evidence;
  }

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

// A floor or ceiling of one head of an arm.
struct Control {
  std::string name;
  std::uint64_t seed = 0;
  std::string mass_on;  // where the true masses came from; empty: none were needed
  Plan plan;            // of that head alone
};

std::vector<Control> controls_of_head(RecordJudge& judge, const Plan& plan, std::int64_t head,
                                      std::uint64_t key, const Controls& wanted) {
  static const std::vector<float> kNoMass;
  std::vector<Control> controls;
  for (const std::string name : {"oracle_row", "oracle_head"}) {
    if (!wants(wanted, name, head)) continue;
    const TrueMass& mass = judge.mass(head, plan, key);
    controls.push_back({name, 0, mass.on, control_plan(name, plan, head, mass.values, 0)});
  }
  for (const std::string name : {"random", "random_bare"}) {
    if (!wants(wanted, name, head)) continue;
    for (int number = 0; number < wanted.random_seeds; ++number) {
      const auto seed = static_cast<std::uint64_t>(number);
      controls.push_back({name, seed, "", control_plan(name, plan, head, kNoMass, seed)});
    }
  }
  return controls;
}

// Rows of one arm, head by head.
class ArmReport {
 public:
  ArmReport(RecordJudge& judge, const Plan& plan, const Controls& controls,
            const std::vector<std::string>& metrics, const json& base)
      : judge_(judge),
        plan_(plan),
        controls_(controls),
        base_(base),
        report_(judge, metrics),
        density_(measure_density(plan, judge.record().key_valid)) {
    std::snprintf(fingerprint_, sizeof fingerprint_, "%016llx",
                  static_cast<unsigned long long>(plan_fingerprint(plan)));
  }

  void add_head(std::int64_t head, std::uint64_t key, std::vector<json>& rows) {
    const auto controls = controls_of_head(judge_, plan_, head, key, controls_);
    std::vector<const Plan*> plans;
    for (const auto& control : controls) plans.push_back(&control.plan);
    plans.push_back(&plan_);
    std::vector<double> oracle;
    judge_.judge(head, plan_, plans, [&](std::size_t i, const FoundRows& found) {
      json row = i < controls.size() ? control_row(controls[i]) : arm_row(head);
      report_(row, head, plan_, key, found,
              i == controls.size() && !oracle.empty() ? oracle.data() : nullptr);
      rows.push_back(std::move(row));
      if (i < controls.size() && controls[i].name == "oracle_row")
        oracle.assign(found.rows.lse, found.rows.lse + judge_.rows());
    });
  }

  // The same plan judged on another sample of rows.
  void add_second(RecordJudge& second, const std::vector<std::string>& metrics, std::int64_t head,
                  std::uint64_t key, std::vector<json>& rows) const {
    json floor = control_base("second_rows");
    add_density(floor, plan_, density_, head);
    second.judge(head, plan_, {&plan_}, [&](std::size_t, const FoundRows& found) {
      HeadReport(second, metrics)(floor, head, plan_, key, found, nullptr);
    });
    rows.push_back(std::move(floor));
  }

 private:
  json control_base(const std::string& name) const {
    json row = base_;
    row["arm"] = base_.at("arm").get<std::string>() + ":" + name;
    row["control_of"] = base_.at("arm");
    row["control"] = name;
    return row;
  }
  json control_row(const Control& control) const {
    json row = control_base(control.name);
    row["control_seed"] = control.seed;
    if (!control.mass_on.empty()) row["mass_on"] = control.mass_on;
    add_density(row, control.plan, measure_density(control.plan, judge_.record().key_valid), 0);
    return row;
  }
  json arm_row(std::int64_t head) const {
    json row = base_;
    row["plan"] = fingerprint_;
    add_density(row, plan_, density_, head);
    row["load_imbalance"] = load_imbalance(plan_, head);
    add_notes(row, plan_, head);
    return row;
  }

  RecordJudge& judge_;
  const Plan& plan_;
  const Controls& controls_;
  const json& base_;
  HeadReport report_;
  Density density_;
  char fingerprint_[17];
};

}  // namespace

std::vector<json> judge_arm(RecordJudge& judge, RecordJudge* second, const Plan& plan,
                            const Controls& controls, const std::vector<std::string>& metrics,
                            const json& base) {
  ArmReport report(judge, plan, controls, metrics, base);
  std::vector<json> rows;
  std::uint64_t key = 0;
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    if (head == 0 || !shares_frame(plan)) key = layout_key(plan, head);
    report.add_head(head, key, rows);
    if (second != nullptr) report.add_second(*second, metrics, head, key, rows);
  }
  return rows;
}

}  // namespace raingauge
