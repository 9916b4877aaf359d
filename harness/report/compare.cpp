// SPDX-License-Identifier: Apache-2.0
#include "harness/report/compare.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "data/error.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr double kRelative = 0.01;
constexpr double kRelativeLatency = 0.10;

// What a capture is, whatever its path.
std::multiset<std::string> captures_of(const json& manifest) {
  std::multiset<std::string> contents;
  for (const auto& capture : manifest.value("captures", json::array()))
    contents.insert(capture.contains("identity") ? capture["identity"].dump()
                                                 : capture.value("spec", capture).dump());
  return contents;
}

json of_experiment(const json& manifest, const char* key) {
  return manifest.value("experiment", json::object()).value(key, json());
}

void refuse_unlike(const RunData& a, const RunData& b) {
  if (captures_of(a.manifest) != captures_of(b.manifest)) {
    throw Error(
        "compare: the runs " + a.folder.string() + " and " + b.folder.string() +
        " are of unlike captures; their numbers cannot be paired. Run both on the same files");
  }
  for (const char* key : {"rows", "select"}) {
    const auto mine = of_experiment(a.manifest, key);
    const auto theirs = of_experiment(b.manifest, key);
    if (mine != theirs) {
      throw Error("compare: the runs differ in `" + std::string(key) + "` (" + mine.dump() +
                  " and " + theirs.dump() + "); make them equal");
    }
  }
}

void note_hardware(const RunData& a, const RunData& b, RunComparison& out) {
  const auto name = [](const json& manifest) {
    const auto gpu = manifest.value("gpu", json());
    return manifest.value("machine", json::object()).value("cpu", std::string("unknown CPU")) +
           (gpu.is_object() ? ", " + gpu.value("name", std::string("GPU")) : "") + " (" +
           manifest.value("device", std::string("cpu")) + ", " +
           std::to_string(manifest.value("threads", 0)) + " threads)";
  };
  const auto first = name(a.manifest);
  const auto second = name(b.manifest);
  if (first != second) out.notes.push_back("unlike hardware: A on " + first + "; B on " + second);
}

// Better for whom: by the metric's declaration.
CompareVerdict side(const std::string& metric, bool up) {
  return (direction_of(metric) == Direction::higher) == up ? CompareVerdict::better
                                                           : CompareVerdict::worse;
}

CompareVerdict judge(const std::string& metric, const Estimate& difference,
                     const std::vector<double>& values, double tolerance) {
  double low = difference.lo;
  double high = difference.hi;
  if (!std::isfinite(low)) {  // descriptive: the range of what was seen
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    low = *least;
    high = *most;
  }
  if (low >= -tolerance && high <= tolerance) return CompareVerdict::same;
  if (low > tolerance) return side(metric, true);
  if (high < -tolerance) return side(metric, false);
  return CompareVerdict::undecided;
}

std::string key_of(const Generation& generation) { return generation.name + "|" + generation.mode; }

// Values of the generations that both runs have, in one order.
std::pair<std::vector<double>, std::vector<double>> paired(const Observations& a, std::size_t arm_a,
                                                           const Observations& b, std::size_t arm_b,
                                                           const std::string& metric) {
  const auto values_a = a.by_generation(arm_a, a.metric(metric), {});
  const auto values_b = b.by_generation(arm_b, b.metric(metric), {});
  std::pair<std::vector<double>, std::vector<double>> out;
  for (std::size_t i = 0; i < values_a.size(); ++i) {
    for (std::size_t j = 0; j < values_b.size(); ++j) {
      if (key_of(a.generations()[i]) != key_of(b.generations()[j])) continue;
      if (!std::isfinite(values_a[i]) || !std::isfinite(values_b[j])) continue;
      out.first.push_back(values_a[i]);
      out.second.push_back(values_b[j]);
    }
  }
  return out;
}

void compare_metric(const Observations& a, std::size_t arm_a, const Observations& b,
                    std::size_t arm_b, const std::string& metric,
                    const std::map<std::string, double>& tolerance, RunComparison& out) {
  const auto [first, second] = paired(a, arm_a, b, arm_b, metric);
  if (first.empty()) return;
  ComparedValue value;
  value.arm = a.arms()[arm_a].name;
  value.metric = metric;
  value.a = estimate_level(first).value;
  value.b = estimate_level(second).value;
  std::vector<double> differences;
  for (std::size_t i = 0; i < first.size(); ++i) differences.push_back(second[i] - first[i]);
  value.difference = estimate_mean(differences);
  auto given = tolerance.find(metric);
  if (given == tolerance.end()) given = tolerance.find(metric.substr(0, metric.find(':')));
  value.tolerance = given != tolerance.end() ? given->second : kRelative * std::fabs(value.a);
  value.verdict = judge(metric, value.difference, differences, value.tolerance);
  out.values.push_back(std::move(value));
}

void compare_observations(const Observations& a, const Observations& b,
                          const std::map<std::string, double>& tolerance, RunComparison& out) {
  for (std::size_t i = 0; i < a.arms().size(); ++i) {
    const auto& arm = a.arms()[i];
    const auto other = b.arm(arm.name);
    if (!other) {
      out.notes.push_back("only A has arm " + arm.name);
      continue;
    }
    if (arm.params != b.arms()[*other].params || arm.match != b.arms()[*other].match)
      out.notes.push_back("arm " + arm.name + " has other settings in B");
    if (arm.feasible() && !b.arms()[*other].feasible()) {
      ComparedValue value;
      value.arm = arm.name;
      value.metric = "outcome";
      value.note = b.arms()[*other].reason;
      value.verdict = CompareVerdict::worse;
      out.values.push_back(std::move(value));
    }
    for (const auto& metric : a.metrics()) {
      const bool judged = direction_of(metric) != Direction::neither && metric != "log_lost_mass";
      if (judged && b.has(metric) && metric != "total_ms")
        compare_metric(a, i, b, *other, metric, tolerance, out);
    }
  }
  for (const auto& arm : b.arms()) {
    if (!a.arm(arm.name)) out.notes.push_back("only B has arm " + arm.name);
  }
}

struct Quartiles {
  double low = 0.0, median = 0.0, high = 0.0;
};

Quartiles quartiles_of(const json& row) {
  const auto& total = row.at("total_ms");
  const double median = total.value("median", std::nan(""));
  auto samples = total.value("samples", std::vector<double>{});
  if (samples.size() < 4) return {median, median, median};
  std::sort(samples.begin(), samples.end());
  return {samples[samples.size() / 4], median, samples[(3 * samples.size()) / 4]};
}

// Latency is judged on the quartiles of its samples: one process is no sample of processes, so no
// test is made of it.
void compare_latency(const RunData& a, const RunData& b,
                     const std::map<std::string, double>& tolerance, RunComparison& out) {
  const auto key = [](const json& row) {
    return std::tuple{row.value("arm", ""),        row.value("kernel", ""),
                      row.value("generation", ""), row.value("layer", 0),
                      row.value("step", 0),        row.value("branch", ""),
                      row.value("expert", ""),     row.value("batch_item", 0)};
  };
  for (const auto& row : a.latency) {
    if (!row.contains("total_ms") || !row["total_ms"].is_object()) continue;
    for (const auto& other : b.latency) {
      if (key(row) != key(other) || !other.contains("total_ms") || !other["total_ms"].is_object())
        continue;
      const auto first = quartiles_of(row);
      const auto second = quartiles_of(other);
      ComparedValue value;
      value.arm = row.value("arm", "") + " / " + row.value("kernel", "");
      value.metric = "total_ms";
      value.a = first.median;
      value.b = second.median;
      value.difference.value = second.median / first.median - 1.0;
      value.difference.n = other["total_ms"].value("n", 0);
      const auto given = tolerance.find("total_ms");
      value.tolerance = given != tolerance.end() ? given->second : kRelativeLatency;
      const bool apart = second.low > first.high || second.high < first.low;
      if (std::fabs(value.difference.value) <= value.tolerance)
        value.verdict = CompareVerdict::same;
      else if (apart)
        value.verdict = value.difference.value > 0 ? CompareVerdict::worse : CompareVerdict::better;
      out.values.push_back(std::move(value));
    }
  }
}

}  // namespace

const char* name_of(CompareVerdict verdict) {
  switch (verdict) {
    case CompareVerdict::better:
      return "better";
    case CompareVerdict::worse:
      return "worse";
    case CompareVerdict::same:
      return "same";
    case CompareVerdict::undecided:
      break;
  }
  return "undecided";
}

int RunComparison::count(CompareVerdict verdict) const {
  return static_cast<int>(
      std::count_if(values.begin(), values.end(),
                    [&](const ComparedValue& value) { return value.verdict == verdict; }));
}

RunComparison compare_runs(const RunData& a, const RunData& b,
                           const std::map<std::string, double>& tolerance) {
  refuse_unlike(a, b);
  RunComparison out;
  note_hardware(a, b, out);
  compare_observations(a.fidelity, b.fidelity, tolerance, out);
  compare_observations(a.frames, b.frames, tolerance, out);
  compare_latency(a, b, tolerance, out);
  if (out.values.empty()) throw Error("compare: the runs share no arm with numbers");
  return out;
}

}  // namespace raingauge
