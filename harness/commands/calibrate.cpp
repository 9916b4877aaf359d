// SPDX-License-Identifier: Apache-2.0
// `raingauge calibrate`: what a method learns offline from one set of captures, as a file that arms
// name under `calibration`.
#include <cstdio>
#include <filesystem>

#include "data/sha256.h"
#include "harness/commands/commands.h"
#include "harness/rows.h"
#include "harness/source.h"
#include "methods/calibration.h"
#include "methods/kernels/device.h"

namespace raingauge {
namespace {

using nlohmann::json;

// Where the records come from: captures named outright, or those of an experiment with its selection.
struct Shown {
  std::vector<std::unique_ptr<RecordSource>> sources;
  Selection select;
};

bool is_experiment(const std::string& path) {
  return path.ends_with(".yaml") || path.ends_with(".yml");
}

Shown open_shown(const CalibrateCommand& options) {
  Shown shown;
  if (options.inputs.size() == 1 && is_experiment(options.inputs[0])) {
    const Experiment experiment = load_experiment(options.inputs[0], {});
    const Device device = parse_device(options.device);
    check_device(device);
    shown.sources =
        open_sources(experiment, device, options.threads, false,
                     [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); });
    shown.select = experiment.select;
  } else {
    for (const auto& path : options.inputs) {
      if (is_experiment(path)) {
        throw Error(path + ": give one experiment, or captures, not both");
      }
      shown.sources.push_back(open_capture_source(path));
    }
  }
  if (!options.layers.empty()) shown.select.layers = options.layers;
  if (!options.steps.empty()) shown.select.steps = options.steps;
  if (!options.heads.empty()) shown.select.heads = options.heads;
  return shown;
}

}  // namespace

int calibrate_command(const CalibrateCommand& options) {
  if (std::filesystem::exists(options.out) && !options.overwrite) {
    throw Error(options.out + ": exists already; --overwrite replaces it");
  }
  const Arm arm = parse_arm(options.arm);
  MethodOptions method;
  method.threads = options.threads;
  method.base_folder = arm.base_folder;
  const auto calibrator = make_calibrator(arm.method, arm.params, method);
  const Shown shown = open_shown(options);
  const auto sequences = select_sequences(shown.sources, shown.select);
  std::size_t records = 0;
  for (const auto& sequence : sequences) records += sequence.records.size();
  for (int pass = 0; pass < calibrator->passes(); ++pass) {
    std::size_t done = 0;
    for (const auto& sequence : sequences) {
      for (const auto& reference : sequence.records) {
        const auto record = reference.source->load(*reference.info, reference.heads);
        calibrator->add(record->view(), pass);
        std::fprintf(stderr, "pass %d of %d: record %zu of %zu (%s)\n", pass + 1,
                     calibrator->passes(), ++done, records, record_label(*reference.info).c_str());
      }
    }
  }
  CalibrationFile file = calibrator->result();
  json captures = json::array();
  for (const auto& source : shown.sources) captures.push_back(source->describe());
  file.facts["method"] = arm.method;
  file.facts["arm"] = arm.canonical().dump();
  file.facts["captures"] = captures.dump();
  write_calibration(options.out, file, options.overwrite);
  std::printf("%s: %zu records, %zu tables, sha256 %s\n", options.out.c_str(), records,
              file.tables.size(), sha256_file(options.out).c_str());
  return 0;
}

}  // namespace raingauge
