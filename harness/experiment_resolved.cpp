// SPDX-License-Identifier: Apache-2.0
// The resolved experiment as JSON: what the manifest stores, `--dry-run` prints and hashes cover.
#include <algorithm>

#include "harness/experiment_parts.h"

namespace raingauge {
namespace {

using nlohmann::json;

json number_or_null(double value) { return value >= 0.0 ? json(value) : json(nullptr); }
json count_or_all(int value) { return value < 0 ? json("all") : json(value); }

template <typename Value>
json list_or_all(const std::vector<Value>& values) {
  return values.empty() ? json("all") : json(values);
}

json captures_json(const std::vector<CaptureSource>& captures) {
  json list = json::array();
  for (const auto& source : captures) {
    if (source.kind == CaptureSource::Kind::demo) list.push_back({{"demo", source.options}});
    if (source.kind == CaptureSource::Kind::dit_block) {
      list.push_back({{"dit_block", source.options}});
    }
    if (source.kind == CaptureSource::Kind::synthetic)
      list.push_back({{"synthetic", source.options}});
    for (const auto& file : source.files) list.push_back(file.string());
  }
  return list;
}

json arms_json(const std::vector<Arm>& arms) {
  json list = json::array();
  for (const auto& arm : arms) {
    list.push_back({{"name", arm.name},
                    {"base", arm.base},
                    {"stem", arm.stem},
                    {"match", arm.match == Match::density ? "density" : "nominal"},
                    {"factors", arm.factors},
                    {"density", number_or_null(arm.density)},
                    {"params", arm.canonical()}});
  }
  return list;
}

json latency_json(const LatencyPlan& plan) {
  if (!plan.enabled) return nullptr;
  return {{"kernels", plan.kernels},
          {"arms", list_or_all(plan.arms)},
          {"warmup", plan.warmup},
          {"min_samples", plan.min_samples},
          {"max_noise", plan.max_noise},
          {"max_seconds", plan.max_seconds},
          {"interleave", plan.interleave},
          {"host_samples", count_or_all(plan.host_samples)},
          {"heads", count_or_all(plan.heads)},
          {"records", count_or_all(plan.records)}};
}

json generate_json(const GeneratePlan& plan) {
  if (!plan.enabled) return nullptr;
  return {{"arms", plan.arms},
          {"clips", plan.clips},
          {"density", number_or_null(plan.density)},
          {"steps", plan.steps},
          {"seed", plan.seed},
          {"mode", plan.mode},
          {"grid", plan.grid},
          {"dense_steps", plan.dense_steps},
          {"dense_layers", plan.dense_layers},
          {"references", plan.references},
          {"metrics", plan.metrics},
          {"floor_runs", plan.floor_runs}};
}

json controls_json(const Controls& controls) {
  return {{"arms", controls.arms},
          {"heads", count_or_all(controls.oracle_heads)},
          {"random_seeds", controls.random_seeds},
          {"floor_records", controls.floor_records},
          {"floor_seeds", controls.floor_seeds}};
}

}  // namespace

bool Arm::dense_at(const Site& site) const {
  const auto contains = [](const std::vector<int>& values, int value) {
    return std::find(values.begin(), values.end(), value) != values.end();
  };
  return contains(dense_steps, site.step) || contains(dense_layers, site.layer);
}

json Arm::canonical() const {
  json all = params;
  all["method"] = method;
  if (!dense_steps.empty()) all["dense_steps"] = dense_steps;
  if (!dense_layers.empty()) all["dense_layers"] = dense_layers;
  return all;
}

json resolved_json(const Experiment& experiment) {
  const Selection& select = experiment.select;
  const RowPlan& rows = experiment.rows;
  const ReportPlan& report = experiment.report;
  return {{"schema", "raingauge/1"},
          {"name", experiment.name},
          {"description", experiment.description},
          {"captures", captures_json(experiment.captures)},
          {"select",
           {{"layers", list_or_all(select.layers)},
            {"steps", list_or_all(select.steps)},
            {"heads", list_or_all(select.heads)},
            {"branches", list_or_all(select.branches)},
            {"experts", list_or_all(select.experts)}}},
          {"arms", arms_json(experiment.arms)},
          {"match", experiment.match == Match::density ? "density" : "nominal"},
          {"controls", controls_json(experiment.controls)},
          {"rows", rows.all ? json("all") : json{{"sample", rows.sample}, {"seed", rows.seed}}},
          {"metrics", experiment.metrics},
          {"latency", latency_json(experiment.latency)},
          {"generate", generate_json(experiment.generate)},
          {"report",
           {{"formats", report.formats},
            {"baseline", report.baseline},
            {"ablate", report.ablate},
            {"contrasts", report.contrasts}}}};
}

}  // namespace raingauge
