// SPDX-License-Identifier: Apache-2.0
// Latency by phase, and kernel benchmarks in Google Benchmark's JSON.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "data/error.h"
#include "harness/report/run_data.h"

namespace raingauge {
namespace {

using nlohmann::json;

std::string record_text(const json& row) {
  return "layer " + std::to_string(row.value("layer", 0)) + ", step " +
         std::to_string(row.value("step", 0));
}

bool of_several_captures(const std::vector<json>& rows) {
  return std::any_of(rows.begin(), rows.end(), [&](const json& row) {
    return row.value("capture", "") != rows.front().value("capture", "");
  });
}

class LatencySection {
 public:
  LatencySection(const RunData& data, Document& document)
      : document_(document), name_captures_(of_several_captures(data.latency)) {
    table_.id = "latency";
    table_.title = "Latency by phase";
    table_.columns = {
        {"arm", "", false},
        {"kernel", "", false},
        {"record", "the capture, layer and step that was timed", false},
        {"density", formula_of("density_pairs"), true},
        {"tiles", "pairs in the tiles that the kernel executed / all pairs", true},
        {"plan ms", "median; deciding the plan, on the device named", true},
        {"permute ms", "n/a: folded into the kernel's loads", true},
        {"prepare ms", "median; lists into the kernel's form", true},
        {"attend ms", "median; the kernel", true},
        {"unpermute ms", "n/a: folded into the kernel's stores", true},
        {"total ms", "median of the sums, with its interquartile range", true},
        {"n", "samples", true},
        {"TFLOP/s", "4 d kept pairs / attend", true},
        {"speed-up", "median attend of the fastest dense kernel / median total", true},
        {"attend speed-up", "median attend of the fastest dense kernel / median attend", true},
        {"note", "", false}};
    figure_.id = "latency_by_phase";
    figure_.kind = FigureKind::stacked_bars;
    figure_.title = "Latency by phase";
    figure_.y_title = "ms (medians of phases, stacked)";
    figure_.caption = "The stack of medians need not equal the median of totals.";
    for (const char* phase : kPhases) {
      Series series;
      series.name = series.group = phase;
      figure_.series.push_back(std::move(series));
    }
  }

  void add(const json& row) {
    const bool ok = row.value("outcome", "") == "ok";
    Number number;
    number.table = "latency";
    number.arm = row.value("arm", "");
    number.kernel = row.value("kernel", "");
    number.scope = record_text(row);
    if (name_captures_) number.scope = capture_name(row) + ", " + number.scope;
    number.unit_of_n = "samples";
    const auto phase_samples =
        row.contains("total_ms") && row["total_ms"].is_object() ? row["total_ms"].value("n", 0) : 0;
    const auto plain = [&](const char* metric, double value) -> Cell {
      if (!std::isfinite(value)) return "n/a";
      number.metric = metric;
      number.lo = number.hi = std::nan("");
      return Cell::of(add_plain(document_, number, value, phase_samples), 3);
    };
    std::vector<Cell> cells = {number.arm, number.kernel, number.scope,
                               plain("density_pairs", number_of(row, "density_pairs")),
                               plain("density_tiles", number_of(row, "density_tiles"))};
    for (std::size_t i = 0; i < std::size(kPhases); ++i) {
      const std::string phase = std::string(kPhases[i]) + "_ms";
      cells.push_back(plain(phase.c_str(), median_of(row, phase.c_str())));
      if (!ok || !cells.back().number) continue;
      figure_.series[i].labels.push_back((name_captures_ ? number.scope + ": " : "") + number.arm +
                                         " / " + number.kernel);
      figure_.series[i].y.push_back(*cells.back().number);
    }
    cells.push_back(total(row, number));
    cells.emplace_back(std::to_string(phase_samples));
    cells.push_back(plain("tflops_effective", number_of(row, "tflops_effective")));
    cells.push_back(plain("speedup_vs_dense", number_of(row, "speedup_vs_dense")));
    cells.push_back(plain("speedup_attend", number_of(row, "speedup_attend")));
    cells.push_back(note(row, ok));
    table_.rows.push_back(std::move(cells));
  }

  ReportTable& table() { return table_; }
  Figure& figure() { return figure_; }

 private:
  static constexpr const char* kPhases[] = {"plan", "permute", "prepare", "attend", "unpermute"};

  Cell total(const json& row, Number number) {
    const auto found = row.find("total_ms");
    if (found == row.end() || !found->is_object()) return "n/a";
    number.metric = "total_ms";
    const auto samples = found->value("samples", std::vector<double>{});
    if (samples.size() > 3) {
      auto sorted = samples;
      std::sort(sorted.begin(), sorted.end());
      const auto at = [&](double q) {
        const double place = q * static_cast<double>(sorted.size() - 1);
        const auto below = static_cast<std::size_t>(place);
        const auto above = std::min(below + 1, sorted.size() - 1);
        return sorted[below] +
               (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
      };
      number.lo = at(0.25);
      number.hi = at(0.75);
      number.formula = "median; lo and hi are quartiles";
    }
    return Cell::of(add_plain(document_, number, number_of(*found, "median"), found->value("n", 0)),
                    3);
  }

  static Cell note(const json& row, bool ok) {
    std::string text = ok ? "" : row.value("outcome", "") + ": " + row.value("reason", "");
    const auto add = [&](const std::string& more) {
      if (!more.empty()) text += (text.empty() ? "" : "; ") + more;
    };
    if (row.contains("noisy") && row["noisy"].is_boolean() && row["noisy"].get<bool>())
      add("noisy");
    if (number_of(row, "launch_hidden") < 1.0) add("holds time to launch");
    if (row.contains("kernel_detail") && row["kernel_detail"].is_string())
      add(row["kernel_detail"].get<std::string>());
    if (row.contains("plan_device") && row["plan_device"].is_string() &&
        row["plan_device"] != "cpu")
      add("planned on " + row["plan_device"].get<std::string>());
    Cell cell(text);
    const auto outcome = row.value("outcome", "");
    cell.warning = outcome == "incorrect" || outcome == "not_finite" || outcome == "failed";
    return cell;
  }

  Document& document_;
  bool name_captures_;
  ReportTable table_;
  Figure figure_;
};

// Of every record that was timed.
std::string dense_note(const std::vector<json>& rows) {
  std::string text;
  std::vector<std::string> named;
  for (const auto& row : rows) {
    const auto kernel = row.value("dense_kernel", json());
    if (!kernel.is_string() || kernel.get<std::string>().empty()) continue;
    const auto record = capture_name(row) + ", " + record_text(row);
    if (std::find(named.begin(), named.end(), record) != named.end()) continue;
    named.push_back(record);
    text += (text.empty() ? "Speed-up: over the attend of the fastest dense kernel. " : " ") +
            record + ": " + kernel.get<std::string>() + ", " +
            std::to_string(row.value("heads", 0)) + " heads x " +
            std::to_string(row.value("tokens", 0)) + " tokens x " +
            std::to_string(row.value("head_dim", 0)) + ", on " + row.value("device", "") + ".";
  }
  return text;
}

// Counters of interest of one benchmark.
constexpr const char* kCounters[] = {"gflops", "peak_gflops", "percent_of_peak", "density"};

void add_benchmark_rows(Document& document, const std::string& file, const json& root,
                        ReportTable& table) {
  for (const auto& entry : root.value("benchmarks", json::array())) {
    if (entry.value("run_type", "iteration") == "aggregate" &&
        entry.value("aggregate_name", "") != "median")
      continue;
    const auto name = entry.value("name", "");
    Number number;
    number.table = "bench";
    number.kernel = name;
    number.reference = file;
    number.unit_of_n = "iterations";
    std::vector<Cell> row = {name};
    const bool failed = entry.contains("error_occurred") && entry["error_occurred"] == true;
    const int n = entry.value("iterations", 0);
    number.metric = "real_time_" + entry.value("time_unit", std::string("ns"));
    const double time = number_of(entry, "real_time");
    row.push_back(failed || !std::isfinite(time) ? Cell("n/a")
                                                 : Cell::of(add_plain(document, number, time, n)));
    row.emplace_back(entry.value("time_unit", std::string("ns")));
    for (const char* counter : kCounters) {
      const double value = number_of(entry, counter);
      number.metric = counter;
      row.push_back(std::isfinite(value) ? Cell::of(add_plain(document, number, value, n))
                                         : Cell("n/a"));
    }
    row.emplace_back(std::to_string(n));
    row.emplace_back(failed ? "failed: " + entry.value("error_message", std::string()) : "");
    row.back().warning = failed;
    table.rows.push_back(std::move(row));
  }
}

}  // namespace

double number_of(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number() ? found->get<double>() : std::nan("");
}

double median_of(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_object() ? number_of(*found, "median") : std::nan("");
}

std::string capture_name(const nlohmann::json& row) {
  return std::filesystem::path(row.value("capture", "")).filename().string();
}

void add_latency(const RunData& data, Document& document) {
  if (data.latency.empty()) return;
  LatencySection build(data, document);
  for (const auto& row : data.latency) build.add(row);
  auto& section = document.section("latency", "Latency by phase");
  build.table().note = dense_note(data.latency);
  section.blocks.emplace_back(std::move(build.table()));
  auto& series = build.figure().series;
  std::erase_if(series, [](const Series& one) { return one.y.empty(); });
  if (!series.empty()) section.blocks.emplace_back(std::move(build.figure()));
}

// RUN/bench*.json: what raingauge-bench (or any Google Benchmark program) wrote.
void add_benchmarks(const RunData& data, Document& document) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(data.folder)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("bench") && entry.path().extension() == ".json")
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) return;
  auto& section = document.section("bench", "Kernel benchmarks");
  for (const auto& path : files) {
    std::ifstream stream(path);
    const json root = json::parse(stream, nullptr, false);
    if (!root.is_object() || !root.contains("benchmarks")) {
      section.warn(path.filename().string() + ": not the JSON of a Google Benchmark program");
      continue;
    }
    ReportTable table;
    table.id = path.stem().string();
    table.title = path.filename().string();
    const auto context = root.value("context", json::object());
    table.note = "Host " + context.value("host_name", std::string("unknown")) + ", " +
                 std::to_string(context.value("num_cpus", 0)) + " CPUs, " +
                 context.value("date", std::string("no date")) + ".";
    table.columns = {{"benchmark", "", false},
                     {"time", "real time of one iteration", true},
                     {"unit", "", false},
                     {"GFLOP/s", "useful floating point operations / time", true},
                     {"peak GFLOP/s", "what the machine can do, as measured by the program", true},
                     {"% of peak", "GFLOP/s / peak", true},
                     {"density", "kept pairs / all pairs", true},
                     {"n", "iterations", true},
                     {"note", "", false}};
    add_benchmark_rows(document, path.filename().string(), root, table);
    section.blocks.emplace_back(std::move(table));
  }
}

}  // namespace raingauge
