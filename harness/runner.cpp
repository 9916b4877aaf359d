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
#include "harness/rows_in_order.h"
#include "methods/kernels/threads.h"
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
std::vector<json> judge_fidelity(const RunContext& context, RecordJudge& judge,
                                 const std::string& cell, const Arm& arm, const Decision& decision,
                                 bool floors, RecordJudge* second) {
  json base = base_row(cell, *judge.record().info, arm);
  if (decision.dense) base["dense_site"] = true;
  Controls controls = context.experiment.controls;
  if (floors) {
    controls.random_seeds = controls.floor_seeds;
    if (std::find(controls.arms.begin(), controls.arms.end(), "random") == controls.arms.end())
      controls.arms.emplace_back("random");
  }
  if (decision.outcome != Outcome::ok)
    return {failed_row(base, decision.outcome, decision.reason, decision.least_density)};
  try {
    return judge_arm(judge, second, decision.plan, controls, context.experiment.metrics, base);
  } catch (const std::exception& error) {
    return {failed_row(base, outcome_of(error), error.what())};
  }
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

// What is shared by all records of a replay.
struct Replay {
  explicit Replay(const RunContext& run) : context(run), kernels(run), lanes(run.device) {}
  const RunContext& context;
  KernelStage kernels;
  RowLanes lanes;
};

// A loaded record where it will be judged: in host memory, and on the run's device.
struct PlacedRecord {
  PlacedRecord(const RecordRef& reference, const Device& device)
      : record(reference.source->load(*reference.info, reference.heads)) {
    if (device.kind == DeviceKind::cuda) copy.emplace(record->view(), device);
  }
  RecordView view() const { return copy ? copy->host() : record->view(); }
  const DeviceRecord* on_device() const { return copy ? &*copy : nullptr; }
  std::unique_ptr<Record> record;
  std::optional<DeviceRecord> copy;
};

// How many arms are decided and judged side by side, each on one thread. On the host, and where there are
// fewer arms than threads, they come one after another, each on all threads.
int arms_at_once(const RunContext& context, const RecordJudge& judge, std::size_t arms) {
  const int threads = resolve_threads(context.threads);
  return judge.on_device() && arms >= static_cast<std::size_t>(threads) ? threads : 1;
}

// Plans every arm and judges those that have a cell to fill (cells[i] not empty).
std::vector<Decision> judge_arms(const RunContext& context, RecordJudge& judge, RecordJudge* second,
                                 bool floors, std::vector<ActiveArm>& arms,
                                 const std::vector<std::string>& cells) {
  std::vector<Decision> decisions(arms.size());
  RowsInOrder written(context.folder, "fidelity", arms.size());
  parallel_for(
      arms_at_once(context, judge, arms.size()), static_cast<std::int64_t>(arms.size()),
      [&](std::int64_t item, int) {
        const auto i = static_cast<std::size_t>(item);
        context.progress.begin(record_label(*judge.record().info) + ": " + arms[i].arm->name);
        decisions[i] = decide(arms[i], judge.record());
        std::vector<json> rows;
        if (!cells[i].empty()) {
          rows =
              judge_fidelity(context, judge, cells[i], *arms[i].arm, decisions[i], floors, second);
        }
        written.put(i, std::move(rows));
        context.progress.advance(1.0);
      });
  return decisions;
}

// The cell of every arm; "" where it is filled already.
std::vector<std::string> cells_to_fill(const RunContext& context,
                                       const std::vector<ActiveArm>& arms,
                                       const std::string& content, const std::vector<int>& heads,
                                       bool floors) {
  std::vector<std::string> cells;
  for (const ActiveArm& arm : arms) {
    cells.push_back(fidelity_cell(context.experiment, *arm.arm, content, heads, floors));
    if (context.folder.done("fidelity", cells.back())) cells.back().clear();
  }
  return cells;
}

void replay_record(Replay& replay, const RecordRef& reference, int ordinal,
                   std::vector<ActiveArm>& arms) {
  const RunContext& context = replay.context;
  const bool floors = ordinal < context.experiment.controls.floor_records;
  const std::string content = reference.source->content_id(*reference.info);
  const auto cells = cells_to_fill(context, arms, content, reference.heads, floors);
  const bool stateful = std::any_of(arms.begin(), arms.end(),
                                    [](const ActiveArm& arm) { return arm.method->stateful(); });
  const bool timing = replay.kernels.wants(content);
  const bool missing = std::any_of(cells.begin(), cells.end(),
                                   [](const std::string& cell) { return !cell.empty(); });
  if (!stateful && !timing && !missing) {
    context.progress.skip(static_cast<double>(arms.size()));
    return;
  }
  const PlacedRecord record(reference, context.device);
  RecordJudge judge(record.view(), context.experiment.rows, context.threads, record.on_device(),
                    &replay.lanes);
  std::optional<RecordJudge> second;  // another sample of rows
  if (floors && judge.sampled()) {
    RowPlan other = context.experiment.rows;
    ++other.seed;
    second.emplace(record.view(), other, context.threads, record.on_device(), &replay.lanes);
  }
  const auto decisions =
      judge_arms(context, judge, second ? &*second : nullptr, floors, arms, cells);
  std::vector<PlannedArm> planned;
  for (std::size_t i = 0; i < arms.size(); ++i) {
    if (decisions[i].outcome != Outcome::ok) continue;
    planned.push_back(
        {arms[i].arm, decisions[i].dense ? nullptr : arms[i].method.get(), &decisions[i].plan});
  }
  // Where the host plans in what is timed, it has no help from a device's copy of the record.
  const RecordView host = record.record->view();
  if (ordinal == 0) write_masks(context, host, planned);
  if (timing) {
    context.progress.begin(record_label(*reference.info) + ": latency");
    replay.kernels.run(host, content, planned, reference.source->surroundings());
  }
}

}  // namespace

void run_replay(const RunContext& context, const std::vector<Sequence>& sequences) {
  Replay replay(context);
  int ordinal = 0;
  for (const auto& sequence : sequences) {
    auto arms = make_arms(context);
    for (const auto& record : sequence.records) replay_record(replay, record, ordinal++, arms);
  }
}

}  // namespace raingauge
