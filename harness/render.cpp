// SPDX-License-Identifier: Apache-2.0
// The tables of a summary: console, Markdown, tidy CSV, JSON. All print the same numbers.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "harness/results.h"
#include "harness/rows.h"
#include "harness/summary.h"
#include "harness/table.h"
#include "metrics/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr const char* kDivergence =
    "PSNR and SSIM against `dense` (same seed) measure divergence from dense attention, not "
    "quality; "
    "against `truth` they measure quality.";

// The mean, and its n where it covers fewer rows than the arm has: such a mean is not comparable
// with those of all rows.
std::string value_of(const std::map<std::string, Mean>& metrics, const std::string& name,
                     int rows) {
  const auto found = metrics.find(name);
  if (found == metrics.end()) return "";
  std::string text = format_number(found->second.value(), 4);
  if (found->second.n > 0 && found->second.n < rows)
    text += " (n=" + std::to_string(found->second.n) + ")";
  return text;
}

std::string outcomes_text(const std::map<std::string, int>& outcomes) {
  std::string text;
  for (const auto& [name, count] : outcomes) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
  }
  return text;
}

std::vector<std::string> metric_names(const Summary& summary) {
  std::vector<std::string> names;
  for (const auto& entry : metric_registry()) {
    for (const auto& arm : summary.fidelity) {
      if (!arm.metrics.contains(std::string(entry.spec.name))) continue;
      names.emplace_back(entry.spec.name);
      break;
    }
  }
  return names;
}

std::vector<std::string> control_recalls(const Summary& summary) {
  std::vector<std::string> names;
  for (const char* control : {"random_bare", "random", "oracle_row", "oracle_head"}) {
    for (const auto& arm : summary.fidelity) {
      if (!arm.metrics.contains(std::string("recall:") + control)) continue;
      names.emplace_back(control);
      break;
    }
  }
  return names;
}

Table fidelity_table(const Summary& summary) {
  std::vector<Table::Column> columns = {{"arm"}, {"density", Align::right}};
  const auto metrics = metric_names(summary);
  const auto controls = control_recalls(summary);
  for (const auto& name : metrics) {
    columns.push_back({name, Align::right});
    if (name != "recall") continue;
    for (const auto& control : controls) columns.push_back({"recall of " + control, Align::right});
  }
  columns.push_back({"rows"});
  columns.push_back({"note"});
  Table table(columns);
  for (const auto& arm : summary.fidelity) {
    std::vector<std::string> cells = {arm.arm, format_number(arm.density_pairs.value(), 4)};
    for (const auto& name : metrics) {
      cells.push_back(value_of(arm.metrics, name, arm.density_pairs.n));
      if (name != "recall") continue;
      for (const auto& control : controls)
        cells.push_back(value_of(arm.metrics, "recall:" + control, arm.density_pairs.n));
    }
    cells.push_back(outcomes_text(arm.outcomes));
    cells.push_back(arm.same_plans_as.empty() ? arm.reason : "same plans as " + arm.same_plans_as);
    table.add_row(cells);
  }
  return table;
}

Table latency_table(const Summary& summary) {
  Table table({{"arm"},
               {"kernel"},
               {"density", Align::right},
               {"tiles", Align::right},
               {"plan ms", Align::right},
               {"prepare ms", Align::right},
               {"attend ms", Align::right},
               {"total ms", Align::right},
               {"IQR ms", Align::right},
               {"n", Align::right},
               {"TFLOP/s", Align::right},
               {"speed-up", Align::right},
               {"note"}});
  for (const auto& entry : summary.latency) {
    std::string note = entry.outcome == "ok" ? "" : entry.outcome + ": " + entry.reason;
    if (entry.noisy) note += (note.empty() ? "" : "; ") + std::string("noisy");
    if (!entry.kernel_detail.empty()) note += (note.empty() ? "" : "; ") + entry.kernel_detail;
    table.add_row({entry.arm, entry.kernel, format_number(entry.density_pairs),
                   format_number(entry.density_tiles), format_number(entry.plan_ms),
                   format_number(entry.prepare_ms), format_number(entry.attend_ms),
                   format_number(entry.total_ms), format_number(entry.total_iqr),
                   std::to_string(entry.samples), format_number(entry.tflops),
                   format_number(entry.speedup), note});
  }
  return table;
}

Table frame_table(const Summary& summary) {
  std::vector<std::string> metrics;
  for (const auto& entry : summary.frames) {
    for (const auto& [name, mean] : entry.metrics) {
      if (std::find(metrics.begin(), metrics.end(), name) == metrics.end()) metrics.push_back(name);
    }
  }
  std::vector<Table::Column> columns = {{"arm"}, {"against"}, {"density", Align::right}};
  for (const auto& name : metrics) columns.push_back({name, Align::right});
  for (const char* name : {"attention s", "total s", "clips"})
    columns.push_back({name, Align::right});
  columns.push_back({"note"});
  Table table(columns);
  for (const auto& entry : summary.frames) {
    std::vector<std::string> cells = {entry.arm, entry.reference,
                                      format_number(entry.density_pairs.value(), 4)};
    std::string note = entry.outcomes.size() == 1 && entry.outcomes.contains("ok")
                           ? ""
                           : outcomes_text(entry.outcomes) + ": " + entry.reason;
    for (const auto& name : metrics) {
      cells.push_back(value_of(entry.metrics, name, entry.clips));
      const auto infinite = entry.infinite.find(name);
      if (infinite != entry.infinite.end() && infinite->second > 0) {
        note += (note.empty() ? "" : "; ") + std::to_string(infinite->second) +
                " identical frames left out of " + name;
      }
    }
    cells.push_back(format_number(entry.attention_ms.value() / 1e3));
    cells.push_back(format_number(entry.total_ms.value() / 1e3));
    cells.push_back(std::to_string(entry.clips));
    cells.push_back(note);
    table.add_row(cells);
  }
  return table;
}

std::string dense_note(const Summary& summary) {
  for (const auto& entry : summary.latency) {
    if (entry.dense_kernel.empty()) continue;
    return "Speed-up: attend of the fastest dense kernel here (" + entry.dense_kernel +
           ") / total of the row. Timed: " + entry.record + ", " + std::to_string(entry.heads) +
           " heads x " + std::to_string(entry.tokens) + " tokens x " +
           std::to_string(entry.head_dim) + ", on " + entry.device + ".";
  }
  return "";
}

std::string scope_note(const Summary& summary) {
  std::string text = std::to_string(summary.generations) + " generation" +
                     (summary.generations == 1 ? "" : "s") +
                     "; means over records and heads (n where fewer).";
  if (summary.generations > 0 && summary.generations < 8) {
    text += " Fewer than 8 generations: descriptive, no intervals over generations.";
  }
  return text;
}

std::string conformance_note(const Summary& summary) {
  if (summary.conformance.empty()) return "";
  std::string text = "Conformance of kernels (against the fp32 reference on the same plan): " +
                     outcomes_text(summary.conformance) + ".";
  for (const auto& failure : summary.conformance_failures) text += "\n  FAILED " + failure;
  return text;
}

std::string machine_text(const json& manifest) {
  const auto machine = manifest.value("machine", json::object());
  std::string text = machine.value("cpu", std::string("unknown CPU"));
  const auto gpu = manifest.find("gpu");
  if (gpu != manifest.end() && gpu->is_object())
    text += ", " + gpu->value("name", std::string("GPU"));
  return text;
}

// All sections in one place; `render` turns a table into text.
template <typename Render>
std::string render_sections(const Summary& summary, const std::string& heading, Render render) {
  std::string text;
  const auto section = [&](const std::string& title, const Table& table, const std::string& note) {
    if (table.rows() == 0) return;
    text += heading + title + "\n\n" + render(table) + "\n";
    if (!note.empty()) text += note + "\n";
    text += "\n";
  };
  section("Fidelity: attention under the arm's plan against dense", fidelity_table(summary),
          scope_note(summary));
  section("Latency by phase", latency_table(summary), dense_note(summary));
  section("Decoded frames", frame_table(summary), kDivergence);
  const auto conformance = conformance_note(summary);
  if (!conformance.empty()) text += conformance + "\n";
  return text;
}

void add_csv(std::string& out, const std::string& table, const std::string& arm,
             const std::string& kernel, const std::string& reference, const std::string& control,
             const std::string& metric, double value, int n) {
  if (!std::isfinite(value)) return;
  char number[40];
  std::snprintf(number, sizeof number, "%.9g", value);
  out +=
      csv_line({table, arm, kernel, reference, control, metric, number, std::to_string(n)}) + "\n";
}

}  // namespace

std::string render_console(const Summary& summary) {
  return render_sections(summary, "== ", [](const Table& table) { return table.text(); });
}

std::string render_markdown(const Summary& summary) {
  const auto& manifest = summary.manifest;
  std::string text =
      "# " + manifest.value("experiment", json::object()).value("name", std::string("run")) +
      "\n\n";
  text += "Machine: " + machine_text(manifest) +
          ". Device: " + manifest.value("device", std::string("cpu")) + ". Commit " +
          manifest.value("git_commit", std::string("unknown")) + ".\n\n";
  text += render_sections(summary, "## ", [](const Table& table) { return table.markdown(); });
  return text + "\nReproduce: `" + manifest.value("reproduce", std::string("")) + "`\n";
}

std::string render_csv(const Summary& summary) {
  std::string out =
      csv_line({"table", "arm", "kernel", "reference", "control", "metric", "value", "n"}) + "\n";
  for (const auto& arm : summary.fidelity) {
    add_csv(out, "fidelity", arm.arm, "", "", "", "density_pairs", arm.density_pairs.value(),
            arm.density_pairs.n);
    add_csv(out, "fidelity", arm.arm, "", "", "", "density_blocks", arm.density_blocks.value(),
            arm.density_blocks.n);
    for (const auto& [name, mean] : arm.metrics) {
      const auto colon = name.find(':');
      add_csv(out, "fidelity", arm.arm, "", "",
              colon == std::string::npos ? "" : name.substr(colon + 1), name.substr(0, colon),
              mean.value(), mean.n);
    }
  }
  for (const auto& e : summary.latency) {
    for (const auto& [name, value] :
         std::initializer_list<std::pair<const char*, double>>{{"density_pairs", e.density_pairs},
                                                               {"density_tiles", e.density_tiles},
                                                               {"plan_ms", e.plan_ms},
                                                               {"prepare_ms", e.prepare_ms},
                                                               {"attend_ms", e.attend_ms},
                                                               {"total_ms", e.total_ms},
                                                               {"total_iqr_ms", e.total_iqr},
                                                               {"tflops_effective", e.tflops},
                                                               {"speedup_vs_dense", e.speedup}}) {
      add_csv(out, "latency", e.arm, e.kernel, "", "", name, value, e.samples);
    }
  }
  for (const auto& e : summary.frames) {
    add_csv(out, "frames", e.arm, "", e.reference, "", "density_pairs", e.density_pairs.value(),
            e.density_pairs.n);
    for (const auto& [name, mean] : e.metrics) {
      add_csv(out, "frames", e.arm, "", e.reference, "", name, mean.value(), mean.n);
    }
    add_csv(out, "frames", e.arm, "", e.reference, "", "attention_ms", e.attention_ms.value(),
            e.attention_ms.n);
    add_csv(out, "frames", e.arm, "", e.reference, "", "total_ms", e.total_ms.value(),
            e.total_ms.n);
  }
  return out;
}

json render_json(const Summary& summary) {
  json out = {{"schema", kRowSchema},      {"generations", summary.generations},
              {"fidelity", json::array()}, {"latency", json::array()},
              {"frames", json::array()},   {"conformance", summary.conformance}};
  const auto means = [](const std::map<std::string, Mean>& metrics) {
    json object = json::object();
    for (const auto& [name, mean] : metrics) {
      object[name] = {{"mean", number_or_null(mean.value())}, {"n", mean.n}};
    }
    return object;
  };
  for (const auto& e : summary.fidelity) {
    out["fidelity"].push_back({{"arm", e.arm},
                               {"method", e.method},
                               {"params", e.params},
                               {"factors", e.factors},
                               {"outcomes", e.outcomes},
                               {"reason", e.reason},
                               {"same_plans_as", e.same_plans_as},
                               {"density_pairs", number_or_null(e.density_pairs.value())},
                               {"density_blocks", number_or_null(e.density_blocks.value())},
                               {"metrics", means(e.metrics)}});
  }
  for (const auto& e : summary.latency) {
    out["latency"].push_back({{"arm", e.arm},
                              {"kernel", e.kernel},
                              {"device", e.device},
                              {"outcome", e.outcome},
                              {"reason", e.reason},
                              {"density_pairs", number_or_null(e.density_pairs)},
                              {"plan_ms", number_or_null(e.plan_ms)},
                              {"prepare_ms", number_or_null(e.prepare_ms)},
                              {"attend_ms", number_or_null(e.attend_ms)},
                              {"total_ms", number_or_null(e.total_ms)},
                              {"speedup_vs_dense", number_or_null(e.speedup)},
                              {"dense_kernel", e.dense_kernel},
                              {"noisy", e.noisy}});
  }
  for (const auto& e : summary.frames) {
    out["frames"].push_back({{"arm", e.arm},
                             {"reference", e.reference},
                             {"clips", e.clips},
                             {"outcomes", e.outcomes},
                             {"infinite", e.infinite},
                             {"density_pairs", number_or_null(e.density_pairs.value())},
                             {"metrics", means(e.metrics)}});
  }
  return out;
}

std::vector<std::filesystem::path> write_reports(const Summary& summary,
                                                 const std::filesystem::path& run,
                                                 const std::vector<std::string>& formats) {
  std::vector<std::filesystem::path> written;
  for (const auto& format : formats) {
    std::filesystem::path path;
    std::string text;
    if (format == "md") {
      path = run / "report.md";
      text = render_markdown(summary);
    } else if (format == "csv") {
      path = run / "summary.csv";
      text = render_csv(summary);
    } else if (format == "json") {
      path = run / "summary.json";
      text = render_json(summary).dump(1) + "\n";
    } else {
      continue;  // console is printed by the command, which also names what is not written
    }
    write_text_file(path, text);
    written.push_back(path);
  }
  return written;
}

}  // namespace raingauge
