// SPDX-License-Identifier: Apache-2.0
#include "harness/report/observations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "data/error.h"
#include "harness/results.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kLeastLostMass = 1e-6;  // fp32 scores cannot tell less from nothing
constexpr const char* kLogLost = "log_lost_mass";

double number(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number() ? found->get<double>() : kNone;
}

std::string text(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_string() ? found->get<std::string>() : "";
}

template <typename Get>
std::vector<int> distinct(const std::vector<std::vector<Observation>>& rows, Get get) {
  std::set<int> values;
  for (const auto& arm : rows) {
    for (const auto& row : arm) values.insert(get(row));
  }
  return {values.begin(), values.end()};
}

bool inside(const Scope& scope, const Observation& row, const Generation& generation) {
  return (scope.mode.empty() || scope.mode == generation.mode) &&
         (scope.layer < 0 || scope.layer == row.layer) &&
         (scope.step < 0 || scope.step == row.step) && (scope.head < 0 || scope.head == row.head);
}

}  // namespace

std::string Scope::text() const {
  std::string out;
  const auto add = [&](const std::string& word) { out += (out.empty() ? "" : " ") + word; };
  if (!mode.empty()) add("mode=" + mode);
  if (layer >= 0) add("layer=" + std::to_string(layer));
  if (step >= 0) add("step=" + std::to_string(step));
  if (head >= 0) add("head=" + std::to_string(head));
  return out;
}

std::string ObservedArm::level(const std::string& factor) const {
  if (factor == "arm") return base;
  const auto found = factors.find(factor);
  if (found == factors.end()) return "";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

bool Observations::has(const std::string& metric) const {
  return std::find(metrics_.begin(), metrics_.end(), metric) != metrics_.end();
}

std::size_t Observations::metric(const std::string& name) const {
  const auto found = std::find(metrics_.begin(), metrics_.end(), name);
  if (found == metrics_.end()) throw Error("report: no metric '" + name + "' in this run");
  return static_cast<std::size_t>(found - metrics_.begin());
}

std::optional<std::size_t> Observations::arm(const std::string& name) const {
  for (std::size_t i = 0; i < arms_.size(); ++i) {
    if (arms_[i].name == name) return i;
  }
  return std::nullopt;
}

std::vector<std::string> Observations::modes() const {
  std::set<std::string> modes;
  for (const auto& generation : generations_) {
    if (!generation.mode.empty()) modes.insert(generation.mode);
  }
  return {modes.begin(), modes.end()};
}

std::vector<int> Observations::layers() const {
  return distinct(rows_, [](const Observation& row) { return row.layer; });
}
std::vector<int> Observations::steps() const {
  return distinct(rows_, [](const Observation& row) { return row.step; });
}
std::vector<int> Observations::heads() const {
  return distinct(rows_, [](const Observation& row) { return row.head; });
}

std::vector<std::string> Observations::controls() const {
  std::set<std::string> names;
  for (const auto& arm : rows_) {
    for (const auto& row : arm) {
      if (!row.control.empty()) names.insert(row.control);
    }
  }
  return {names.begin(), names.end()};
}

std::vector<double> Observations::by_generation(std::size_t arm, std::size_t metric,
                                                const Scope& scope,
                                                const std::string& control) const {
  std::vector<double> sums(generations_.size(), 0.0);
  std::vector<int> counts(generations_.size(), 0);
  const auto found = spans_.at(arm).find(control);
  const Span span = found == spans_[arm].end() ? Span{} : found->second;
  for (std::size_t i = span.first; i < span.last; ++i) {
    const Observation& row = rows_[arm][i];
    const auto g = static_cast<std::size_t>(row.generation);
    if (!inside(scope, row, generations_[g])) continue;
    sums[g] += value(row, metric);  // a missing value makes the generation's mean missing
    ++counts[g];
  }
  for (std::size_t g = 0; g < sums.size(); ++g)
    sums[g] = counts[g] > 0 ? sums[g] / counts[g] : kNone;
  return sums;
}

// A report asks for one control at a time, and most often for none; there are many more rows of controls.
void Observations::group_by_control() {
  spans_.assign(rows_.size(), {});
  for (std::size_t arm = 0; arm < rows_.size(); ++arm) {
    auto& rows = rows_[arm];
    std::stable_sort(rows.begin(), rows.end(), [](const Observation& a, const Observation& b) {
      return a.control < b.control;
    });
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto span = spans_[arm].try_emplace(rows[i].control, Span{i, i}).first;
      span->second.last = i + 1;
    }
  }
}

int Observations::generation_index(const std::string& name, const std::string& mode) {
  for (std::size_t i = 0; i < generations_.size(); ++i) {
    if (generations_[i].name == name && generations_[i].mode == mode) return static_cast<int>(i);
  }
  generations_.push_back({name, mode});
  return static_cast<int>(generations_.size()) - 1;
}

// Arms in the experiment's order, whether or not they have rows yet.
void Observations::declare_arms(const json& manifest) {
  const auto experiment = manifest.value("experiment", json::object());
  const auto match = experiment.value("match", std::string("density"));
  for (const auto& declared : experiment.value("arms", json::array())) {
    ObservedArm arm;
    arm.name = text(declared, "name");
    arm.base = text(declared, "base");
    arm.factors = declared.value("factors", json::object());
    arm.params = declared.value("params", json::object());
    arm.method = text(arm.params, "method");
    arm.match = declared.value("match", match);
    arm.nominal =
        declared.value("density", json()).is_number() ? number(declared, "density") : -1.0;
    arm.stem = declared.value("stem", arm.name);
    arms_.push_back(std::move(arm));
  }
  rows_.resize(arms_.size());
  for (const auto& capture : manifest.value("captures", json::array()))
    pipelines_[text(capture, "path")] = text(capture, "pipeline");
}

// Matched arms may miss the density asked for by one block pair a head; nominal ones by one block a
// row. A budget outside the density is meant to exceed it.
void Observations::check_density(const json& row, ObservedArm& arm) const {
  const double asked = number(row, "nominal_density");
  const double tokens = number(row, "tokens");
  const double found = number(row, "density_pairs");
  if (!std::isfinite(asked) || !std::isfinite(tokens)) return;
  if (arm.match == "nominal" && arm.params.value("budget", "inside") != "inside") return;
  const double share = arm.params.value("block", 128) / tokens;
  const double allowed = arm.match == "nominal" ? share + share * share : share * share;
  const double excess = std::fabs(found - asked) - allowed;
  if (excess <= std::max(1e-9, arm.density_excess)) return;
  arm.density_excess = excess;
  arm.density_seen = found;
  arm.density_asked = asked;
}

std::size_t Observations::arm_index(const json& row) {
  const auto name = row.contains("control") ? text(row, "control_of") : text(row, "arm");
  if (const auto known = arm(name)) return *known;
  ObservedArm arm;
  arm.name = arm.stem = name;
  arm.base = row.contains("base_arm") ? text(row, "base_arm") : name;
  arm.method = text(row, "method");
  arm.params = row.value("params", json::object());
  arm.factors = row.value("factors", json::object());
  arms_.push_back(std::move(arm));
  rows_.emplace_back();
  return arms_.size() - 1;
}

std::size_t Observations::add_values() {
  const std::size_t first = values_.size();
  values_.resize(first + metrics_.size(), kNone);
  return first;
}

void Observations::add_fidelity_row(const json& row) {
  const std::size_t arm = arm_index(row);
  const bool is_control = row.contains("control");
  const auto outcome = text(row, "outcome");
  if (!is_control) {
    auto& entry = arms_[arm];
    ++entry.outcomes[outcome];
    if (outcome != "ok" && entry.reason.empty()) entry.reason = text(row, "reason");
    if (row.contains("least_density"))
      entry.least_density = std::max(entry.least_density, number(row, "least_density"));
  }
  if (outcome != "ok") return;
  if (!is_control) check_density(row, arms_[arm]);
  Observation seen;
  const auto pipeline = pipelines_.find(text(row, "capture"));
  seen.generation = generation_index(text(row, "generation"),
                                     pipeline == pipelines_.end() ? "" : pipeline->second);
  seen.layer = row.value("layer", 0);
  seen.step = row.value("step", 0);
  seen.head = row.value("head", 0);
  seen.control = text(row, "control");
  seen.control_seed = row.value("control_seed", std::uint64_t{0});
  seen.values = add_values();
  const auto metrics = row.find("metrics");
  for (std::size_t m = 0; m < metrics_.size(); ++m) {
    double& value = values_[seen.values + m];
    if (metrics_[m] == "density_pairs" || metrics_[m] == "density_blocks") {
      value = number(row, metrics_[m].c_str());
    } else if (metrics_[m] == kLogLost) {
      const double recall =
          metrics->contains("recall") ? number((*metrics)["recall"], "value") : kNone;
      if (std::isfinite(recall) && 1.0 - recall < kLeastLostMass) ++clipped_;
      value = std::isfinite(recall) ? std::log(std::max(1.0 - recall, kLeastLostMass)) : kNone;
    } else if (metrics != row.end() && metrics->contains(metrics_[m])) {
      value = number((*metrics)[metrics_[m]], "value");
    }
  }
  if (!is_control) {
    ++judged_on_[text(row, "judged_on")];
    plans_[arms_[arm].name][text(row, "capture") + "/" + std::to_string(row.value("record", 0))] =
        text(row, "plan");
  }
  rows_[arm].push_back(std::move(seen));
}

void Observations::add_frame_row(const json& row) {
  const std::size_t arm = arm_index(row);
  const auto outcome = text(row, "outcome");
  ++arms_[arm].outcomes[outcome];
  if (outcome != "ok") {
    if (arms_[arm].reason.empty()) arms_[arm].reason = text(row, "reason");
    return;
  }
  const auto mode = text(row, "mode");
  Observation seen;
  seen.generation =
      generation_index(mode + " " + std::to_string(row.value("seed", std::uint64_t{0})), mode);
  // Rows of one clip (one a reference) fill one observation.
  auto& rows = rows_[arm];
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Observation& other) {
    return other.generation == seen.generation;
  });
  seen.values = found != rows.end() ? found->values : add_values();
  if (found == rows.end()) rows.push_back(seen);
  const auto reference = text(row, "reference");
  for (std::size_t m = 0; m < metrics_.size(); ++m) {
    const auto colon = metrics_[m].find(':');
    if (colon == std::string::npos) {
      values_[seen.values + m] = number(row, metrics_[m].c_str());
    } else if (metrics_[m].substr(colon + 1) == reference && row["metrics"].is_object() &&
               row["metrics"].contains(metrics_[m].substr(0, colon))) {
      values_[seen.values + m] = number(row["metrics"][metrics_[m].substr(0, colon)], "mean");
    }
  }
}

Observations Observations::of_fidelity(const std::filesystem::path& run, const json& manifest) {
  Observations all;
  all.declare_arms(manifest);
  all.metrics_ = {"density_pairs", "density_blocks"};
  for (const auto& name :
       manifest.value("experiment", json::object()).value("metrics", json::array()))
    all.metrics_.push_back(name.get<std::string>());
  if (all.has("recall")) all.metrics_.emplace_back(kLogLost);
  for_each_row(run, "fidelity", [&](const json& row) { all.add_fidelity_row(row); });
  all.group_by_control();
  for (std::size_t i = 0; i < all.arms_.size(); ++i) {
    const auto& mine = all.plans_[all.arms_[i].name];
    for (std::size_t j = 0; j < i && !mine.empty() && all.arms_[i].same_plans_as.empty(); ++j) {
      if (mine == all.plans_[all.arms_[j].name]) all.arms_[i].same_plans_as = all.arms_[j].name;
    }
  }
  all.plans_.clear();
  return all;
}

Observations Observations::of_frames(const std::filesystem::path& run, const json& manifest) {
  Observations all;
  const auto experiment = manifest.value("experiment", json::object());
  const auto plan = experiment.value("generate", json());
  all.metrics_ = {"density_pairs", "attention_ms", "total_ms"};
  if (!plan.is_object()) return all;
  for (const auto& name : plan.value("metrics", json::array())) {
    for (const auto& reference : plan.value("references", json::array()))
      all.metrics_.push_back(name.get<std::string>() + ":" + reference.get<std::string>());
  }
  for_each_row(run, "generate", [&](const json& row) { all.add_frame_row(row); });
  all.group_by_control();
  Observations declared;
  declared.declare_arms(manifest);
  for (auto& arm : all.arms_) {  // a row names its arm by the stem when `generate` sets the density
    for (const auto& known : declared.arms_) {
      if (known.name != arm.name && known.stem != arm.name) continue;
      arm.base = known.base;
      arm.factors = known.factors;
      if (known.name != arm.name) {
        arm.factors.erase("density");
        arm.factors.erase("sparsity");
      }
      break;
    }
  }
  return all;
}

}  // namespace raingauge
