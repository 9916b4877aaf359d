// SPDX-License-Identifier: Apache-2.0
#include "harness/runner.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "harness/fidelity.h"
#include "harness/kernel_stage.h"
#include "harness/mask_pictures.h"
#include "harness/rows.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

// An arm made ready: its method and what it carries along the current sequence.
struct ActiveArm {
  const Arm* arm;
  std::unique_ptr<Method> method;
  State state;
};

// What an arm decided for the current record: a plan, or why there is none.
struct Decision {
  Outcome outcome = Outcome::ok;
  std::string reason;
  double least_density = std::nan("");
  Plan plan;
  bool dense = false;  // by the arm's dense_steps or dense_layers, not by its method
};

std::vector<ActiveArm> make_arms(const RunContext& context) {
  MethodOptions options;
  options.row_seed = context.experiment.rows.seed;
  options.threads = context.threads;
  options.base_folder = context.experiment.path.parent_path().string();
  std::vector<ActiveArm> arms;
  for (const auto& arm : context.experiment.arms) {
    options.match = arm.match == Match::density ? DensityMatch::measured : DensityMatch::nominal;
    arms.push_back({&arm, make_method(arm.method, arm.params, options), {}});
  }
  return arms;
}

Decision decide(ActiveArm& arm, const RecordView& record) {
  Decision decision;
  try {
    decision.dense = arm.arm->dense_at(record.info->site);
    decision.plan = decision.dense ? dense_plan(record.heads(), record.tokens(), 128)
                                   : arm.method->plan(record, arm.state);
    check_plan(decision.plan, record.key_valid);
    arm.state.last_step = record.info->site.step;
  } catch (const Infeasible& error) {
    decision.outcome = Outcome::infeasible;
    decision.reason = error.what();
    decision.least_density = error.least_density();
  } catch (const std::exception& error) {
    decision.outcome = outcome_of(error);
    decision.reason = error.what();
  }
  return decision;
}

// One cell of fidelity.jsonl: all heads and controls of one arm on one record.
void judge_fidelity(const RunContext& context, RecordJudge& judge, const std::string& cell,
                    const Arm& arm, const Decision& decision, bool floors, RecordJudge* second) {
  json base = base_row(cell, *judge.record().info, arm);
  if (decision.dense) base["dense_site"] = true;
  Controls controls = context.experiment.controls;
  if (floors) {
    controls.random_seeds = controls.floor_seeds;
    if (std::find(controls.arms.begin(), controls.arms.end(), "random") == controls.arms.end())
      controls.arms.emplace_back("random");
  }
  std::vector<json> rows;
  try {
    rows = decision.outcome == Outcome::ok
               ? judge_arm(judge, second, decision.plan, controls, context.experiment.metrics, base)
               : std::vector<json>{
                     failed_row(base, decision.outcome, decision.reason, decision.least_density)};
  } catch (const std::exception& error) {
    rows = {failed_row(base, outcome_of(error), error.what())};
  }
  context.folder.append("fidelity", rows);
}

// Pictures of what every arm keeps in the run's first record.
void write_masks(const RunContext& context, const RecordView& record,
                 const std::vector<PlannedArm>& planned) {
  const auto path = context.folder.path() / "masks.json";
  if (std::filesystem::exists(path)) return;
  std::vector<std::pair<std::string, const Plan*>> plans;
  for (const auto& arm : planned) plans.emplace_back(arm.arm->name, arm.plan);
  write_text_file(path, mask_pictures(record, plans).dump() + "\n");
}

void replay_record(const RunContext& context, const RecordRef& reference, int ordinal,
                   std::vector<ActiveArm>& arms, KernelStage& kernels) {
  const bool floors = ordinal < context.experiment.controls.floor_records;
  const std::string content = reference.source->content_id(*reference.info);
  const auto cell_of = [&](const ActiveArm& arm) {
    return fidelity_cell(context.experiment, *arm.arm, content, reference.heads, floors);
  };
  const auto missing = [&](const ActiveArm& arm) {
    return !context.folder.done("fidelity", cell_of(arm));
  };
  const bool stateful = std::any_of(arms.begin(), arms.end(),
                                    [](const ActiveArm& arm) { return arm.method->stateful(); });
  const bool timing = kernels.wants(content);
  if (!stateful && !timing && std::none_of(arms.begin(), arms.end(), missing)) {
    context.progress.skip(static_cast<double>(arms.size()));
    return;
  }
  const auto record = reference.source->load(*reference.info, reference.heads);
  RecordJudge judge(record->view(), context.experiment.rows, context.threads);
  std::optional<RecordJudge> second;  // another sample of rows
  if (floors && judge.sampled()) {
    RowPlan other = context.experiment.rows;
    ++other.seed;
    second.emplace(record->view(), other, context.threads);
  }
  std::vector<Decision> decisions;
  std::vector<PlannedArm> planned;
  decisions.reserve(arms.size());
  for (auto& arm : arms) {
    context.progress.begin(record_label(*reference.info) + ": " + arm.arm->name);
    decisions.push_back(decide(arm, judge.record()));
    const Decision& decision = decisions.back();
    if (missing(arm))
      judge_fidelity(context, judge, cell_of(arm), *arm.arm, decision, floors,
                     second ? &*second : nullptr);
    if (decision.outcome == Outcome::ok) {
      planned.push_back({arm.arm, decision.dense ? nullptr : arm.method.get(), &decision.plan});
    }
    context.progress.advance(1.0);
  }
  if (ordinal == 0) write_masks(context, judge.record(), planned);
  if (timing) {
    context.progress.begin(record_label(*reference.info) + ": latency");
    kernels.run(judge.record(), content, planned, reference.source->surroundings());
  }
}

}  // namespace

void run_replay(const RunContext& context, const std::vector<Sequence>& sequences) {
  KernelStage kernels(context);
  int ordinal = 0;
  for (const auto& sequence : sequences) {
    auto arms = make_arms(context);
    for (const auto& record : sequence.records)
      replay_record(context, record, ordinal++, arms, kernels);
  }
}

}  // namespace raingauge
