// SPDX-License-Identifier: Apache-2.0
// `raingauge run` and `raingauge report`.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <set>
#include <sstream>

#include "harness/commands/commands.h"
#include "harness/manifest.h"
#include "harness/progress.h"
#include "harness/report/run_data.h"
#include "harness/results.h"
#include "harness/rows.h"
#include "harness/runner.h"
#include "harness/table.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/params.h"

namespace raingauge {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::string gigabytes(std::int64_t bytes) {
  return format_number(static_cast<double>(bytes) / 1e9, 3) + " GB";
}

std::string memory_text(const MemoryEstimate& need) {
  return gigabytes(need.total()) + " (record " + gigabytes(need.record) + ", outputs " +
         gigabytes(need.outputs) + ", plans " + gigabytes(need.plans) + ", block masses " +
         gigabytes(need.masses) + ", peers " + gigabytes(need.peers) + ")";
}

void refuse_what_does_not_fit(const MemoryEstimate& need) {
  const auto room = available_memory();
  if (room < 0 || need.total() <= room) return;
  throw Error("this run needs about " + memory_text(need) + ", but only " + gigabytes(room) +
              " are free. Take fewer heads (select.heads), fewer oracle heads (controls.heads), or "
              "fewer arms at a time");
}

// Before anything ran there is no rate to go by: an assumed one, that of a slow core.
double seconds_for(double flops) {
  constexpr double kAssumedFlops = 2.0e10;
  return flops / kAssumedFlops;
}

int print_dry_run(const Experiment& experiment, const std::vector<Sequence>& sequences) {
  Table table({{"arm"}, {"method"}, {"settings"}});
  for (const auto& arm : experiment.arms) table.add_row({arm.name, arm.method, arm.params.dump()});
  std::printf("%s: %zu arms\n\n%s\n", experiment.name.c_str(), experiment.arms.size(),
              table.text().c_str());
  std::size_t records = 0;
  for (const auto& sequence : sequences) records += sequence.records.size();
  const auto cost = estimate_cost(experiment, sequences);
  std::printf("%zu records in %zu sequences; %lld fidelity cells, %lld latency groups\n", records,
              sequences.size(), static_cast<long long>(cost.fidelity_cells),
              static_cast<long long>(cost.latency_groups));
  std::printf("fidelity: %.3g FLOP, about %s at an assumed 20 GFLOP/s\n", cost.flops,
              format_duration(seconds_for(cost.flops)).c_str());
  std::printf("peak memory: about %s\n",
              memory_text(estimate_memory(experiment, sequences)).c_str());
  if (experiment.generate.enabled) {
    std::printf("generate: %d clips x (%zu arms + dense + %d floor runs)\n",
                experiment.generate.clips, generate_arms(experiment).size(),
                experiment.generate.floor_runs);
  }
  return 0;
}

json gpu_json(const Device& device) {
  for (const auto& info : list_cuda_devices()) {
    if (info.index != device.index) continue;
    return {{"name", info.name},
            {"compute_capability", std::to_string(info.major) + "." + std::to_string(info.minor)},
            {"multiprocessors", info.multiprocessors},
            {"memory_bytes", info.memory_bytes},
            {"driver", info.driver_version},
            {"runtime", info.runtime_version}};
  }
  return nullptr;
}

std::vector<std::string> reproduce_words(const RunCommand& options) {
  std::vector<std::string> words = {"raingauge", "run", options.experiment};
  for (const auto& text : options.overrides) words.insert(words.end(), {"--set", text});
  if (!options.only.empty()) words.insert(words.end(), {"--only", options.only});
  if (options.device != "cpu") words.insert(words.end(), {"--device", options.device});
  if (options.threads != 0)
    words.insert(words.end(), {"--threads", std::to_string(options.threads)});
  return words;
}

int exit_code(const fs::path& folder, bool strict) {
  int code = 0;
  for (const char* stream : {"fidelity", "conformance", "latency", "generate"}) {
    for_each_row(folder, stream, [&](const json& row) {
      if (is_bad(row.value("outcome", std::string("failed")), strict)) code = 2;
    });
  }
  return code;
}

// Arms on records, and arms whose latency is measured.
double replay_units(const Experiment& experiment, const std::vector<Sequence>& sequences) {
  const auto cost = estimate_cost(experiment, sequences);
  return static_cast<double>(cost.fidelity_cells) +
         static_cast<double>(cost.latency_groups) * static_cast<double>(experiment.arms.size());
}

// Replays, and foretells from the time it took what every row and every oracle would take: "" when
// nothing was left out or nothing computed, and when latency was measured in between (its time does
// not grow with the rows).
std::string replay_timed(const RunContext& context, const std::vector<Sequence>& sequences) {
  const auto cells_before = context.folder.cells("fidelity");
  context.progress.part("replay", replay_units(context.experiment, sequences));
  const auto start = std::chrono::steady_clock::now();
  run_replay(context, sequences);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  Experiment full = context.experiment;
  full.rows.all = true;
  full.controls.oracle_heads = -1;
  const double done = estimate_cost(context.experiment, sequences).flops;
  const double all = estimate_cost(full, sequences).flops;
  const auto computed = context.folder.cells("fidelity") - cells_before;
  const auto cells = static_cast<double>(context.folder.cells("fidelity"));
  if (computed == 0 || all <= done || context.experiment.latency.enabled) return "";
  const double share = static_cast<double>(computed) / cells;
  return "With rows: all and oracles on all heads this replay would take about " +
         format_duration(seconds / share * all / done) + " here (" +
         format_duration(seconds / share) + " as it is).";
}

}  // namespace

// One arm alone: what a report names to rerun a row. The other arms' latency and clips go with them.
void keep_arm(Experiment& experiment, const std::string& name) {
  std::vector<std::string> known;
  for (const auto& arm : experiment.arms) known.push_back(arm.name);
  std::erase_if(experiment.arms, [&](const Arm& arm) { return arm.name != name; });
  if (experiment.arms.empty())
    throw Error("--only: no arm '" + name + "'" + known_names_hint(name, known));
  const auto& arm = experiment.arms.front();
  std::erase_if(experiment.latency.arms, [&](const auto& other) { return other != name; });
  std::erase_if(experiment.generate.arms,
                [&](const auto& other) { return other != name && other != arm.stem; });
  if (experiment.generate.arms.empty()) experiment.generate.enabled = false;
  experiment.report.contrasts = nullptr;
  experiment.resolved["arms"] =
      json::array({json{{"name", arm.name},
                        {"base", arm.base},
                        {"stem", arm.stem},
                        {"match", arm.match == Match::density ? "density" : "nominal"},
                        {"factors", arm.factors},
                        {"density", arm.density >= 0.0 ? json(arm.density) : json()},
                        {"params", arm.canonical()}}});
  experiment.resolved["report"]["contrasts"] = nullptr;
  if (!experiment.generate.enabled) experiment.resolved["generate"] = nullptr;
}

// Formats that this build cannot write are named, and the others written.
std::vector<fs::path> write_what_can_be(const Document& document, const fs::path& run,
                                        const std::vector<std::string>& formats) {
  std::vector<fs::path> written;
  for (const auto& format : formats) {
    try {
      for (auto& path : write_reports(document, run, {format})) written.push_back(std::move(path));
    } catch (const Unsupported& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
  }
  return written;
}

int run_command(const RunCommand& options) {
  Experiment experiment = load_experiment(options.experiment, options.overrides);
  if (!options.only.empty()) keep_arm(experiment, options.only);
  const Device device = parse_device(options.device);
  check_device(device);
  const auto status = [&](const std::string& text) {
    if (!options.quiet) std::fprintf(stderr, "%s\n", text.c_str());
  };
  const auto sources = open_sources(experiment, device, options.threads, options.dry_run, status);
  const auto sequences =
      sources.empty() ? std::vector<Sequence>{} : select_sequences(sources, experiment.select);
  if (options.dry_run) return print_dry_run(experiment, sequences);
  refuse_what_does_not_fit(estimate_memory(experiment, sequences));

  const fs::path out =
      options.out.empty() ? fs::path("runs") / experiment.name : fs::path(options.out);
  for (const auto& name : experiment.latency.kernels) {
    if (may_run_on(name, device.kind)) continue;
    status("latency: kernel " + name + " does not run on " + to_string(device) + ", left out");
  }
  RunFolder folder(out, cell_hash(experiment.resolved), options.fresh);
  json captures = json::array();
  for (const auto& source : sources) captures.push_back(source->describe());
  ManifestInput input;
  input.experiment = experiment.resolved;
  input.captures = captures;
  input.seed = experiment.rows.seed;
  input.command = reproduce_words(options);
  input.device = to_string(device);
  input.threads = options.threads;
  if (device.kind == DeviceKind::cuda) input.gpu = [&] { return gpu_json(device); };
  json manifest = make_manifest(input);
  manifest["reproduce"] = shell_line(reproduce_words(options));
  write_manifest(out, manifest);

  Progress::Options progress_options;
  progress_options.mode = Progress::detect(options.quiet);
  progress_options.columns = Progress::terminal_columns();
  Progress progress(0.0, progress_options);
  const RunContext context{experiment, folder, device, options.threads, progress};
  const std::string full_run = replay_timed(context, sequences);
  if (experiment.generate.enabled) run_generate(context);
  progress.finish();

  const Document document = build_document(load_run(out));
  write_what_can_be(document, out, experiment.report.formats);
  if (!full_run.empty()) status(full_run);
  std::printf("%s\nResults: %s (", write_text(document).c_str(), out.string().c_str());
  for (const auto& format : experiment.report.formats) {
    const auto file = format == "csv" || format == "json" ? "summary." + format
                      : format == "tex"                   ? "tables/*.tex"
                                                          : "report." + format;
    if (format == "tex" || fs::exists(out / file)) std::printf("%s, ", file.c_str());
  }
  std::printf("*.jsonl)\n");
  return exit_code(out, options.strict);
}

int report_command(const ReportCommand& options) {
  std::vector<std::string> formats;
  std::stringstream list(options.formats);
  for (std::string format; std::getline(list, format, ',');) {
    std::vector<std::string> known = report_formats();
    known.emplace_back("console");
    if (std::find(known.begin(), known.end(), format) == known.end()) {
      throw Error("report: unknown format '" + format + "'" + known_names_hint(format, known));
    }
    formats.push_back(format);
  }
  for (const auto& run : options.runs) {
    if (!fs::is_directory(run)) throw Error(run + ": no such folder of a run");
    const Document document = build_document(load_run(run));
    std::printf("%s\n", write_text(document).c_str());
    for (const auto& path : write_reports(document, run, formats))
      std::printf("%s\n", path.string().c_str());
  }
  return 0;
}

}  // namespace raingauge
