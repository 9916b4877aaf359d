// SPDX-License-Identifier: Apache-2.0
// `raingauge capture info|validate|slice|convert`.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/capture.h"
#include "data/capture_check.h"
#include "data/capture_copy.h"
#include "data/capture_exchange.h"
#include "data/error.h"
#include "harness/commands/commands.h"
#include "harness/rows.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

double record_bytes(const RecordInfo& record) {
  return 3.0 * static_cast<double>(record.head_count() * record.tokens * record.head_dim) *
         static_cast<double>(size_of(record.dtype));
}

json record_json(const RecordInfo& record) {
  json segments = json::array();
  for (const auto& s : record.segments) {
    segments.push_back({{"role", name_of(s.role)},
                        {"start", s.start},
                        {"length", s.length},
                        {"frames", s.frames},
                        {"height", s.height},
                        {"width", s.width}});
  }
  return {{"record", record.number},
          {"layer", record.site.layer},
          {"step", record.site.step},
          {"branch", record.site.branch},
          {"expert", record.site.expert},
          {"heads", record.heads},
          {"heads_total", record.heads_total},
          {"tokens", record.tokens},
          {"head_dim", record.head_dim},
          {"dtype", name_of(record.dtype)},
          {"scale", record.scale},
          {"timestep", number_or_null(record.timestep)},
          {"sigma", number_or_null(record.sigma)},
          {"rope_applied", record.rope_applied},
          {"segments", segments}};
}

CaptureSelection selection_of(const CaptureCommand& options) {
  CaptureSelection selection;
  selection.records = options.records;
  selection.heads = options.heads;
  selection.layers = options.layers;
  selection.steps = options.steps;
  return selection;
}

}  // namespace

int capture_info_command(const CaptureCommand& options) {
  const Capture capture = Capture::open(options.capture);
  const CaptureInfo& info = capture.info();
  json records = json::array();
  Table table({{"record"},
               {"layer"},
               {"step"},
               {"branch"},
               {"heads"},
               {"tokens"},
               {"dim"},
               {"dtype"},
               {"segments"},
               {"MB"}});
  double bytes = 0.0;
  for (const auto& record : capture.records()) {
    records.push_back(record_json(record));
    bytes += record_bytes(record);
    char megabytes[32];
    std::snprintf(megabytes, sizeof megabytes, "%.1f", record_bytes(record) / 1e6);
    table.add_row({std::to_string(record.number), std::to_string(record.site.layer),
                   std::to_string(record.site.step), record.site.branch,
                   std::to_string(record.head_count()) + "/" + std::to_string(record.heads_total),
                   std::to_string(record.tokens), std::to_string(record.head_dim),
                   std::string(name_of(record.dtype)), describe(record.segments), megabytes});
  }
  if (options.json) {
    const json out = {{"path", info.path},
                      {"complete", info.complete},
                      {"generation", info.generation},
                      {"model_id", info.model_id},
                      {"prompt", info.prompt},
                      {"seed", info.seed},
                      {"frames", capture.frame_arms()},
                      {"warnings", capture.warnings()},
                      {"records", records}};
    std::printf("%s\n", out.dump(1).c_str());
    return 0;
  }
  std::printf("%s: generation %s, model %s, %zu records, %.1f MB%s\n%s\n", info.path.c_str(),
              info.generation.c_str(), info.model_id.empty() ? "?" : info.model_id.c_str(),
              capture.records().size(), bytes / 1e6, info.complete ? "" : " (interrupted)",
              table.text().c_str());
  for (const auto& arm : capture.frame_arms()) std::printf("frames: %s\n", arm.c_str());
  for (const auto& warning : capture.warnings()) std::printf("warning: %s\n", warning.c_str());
  return 0;
}

int capture_validate_command(const CaptureCommand& options) {
  const auto findings = validate_capture(options.capture);
  json out = json::array();
  for (const auto& finding : findings) {
    out.push_back({{"severity", name_of(finding.severity)},
                   {"object", finding.object},
                   {"message", finding.message}});
    if (!options.json) {
      std::printf("%s: %s: %s\n", std::string(name_of(finding.severity)).c_str(),
                  finding.object.c_str(), finding.message.c_str());
    }
  }
  const bool valid = is_valid(findings);
  if (options.json) {
    std::printf("%s\n", json({{"valid", valid}, {"findings", out}}).dump(1).c_str());
  } else {
    std::printf("%s: %s\n", options.capture.c_str(), valid ? "valid" : "NOT valid");
  }
  return valid ? 0 : 2;
}

int capture_slice_command(const CaptureCommand& options) {
  CaptureWriteOptions write;
  write.overwrite = options.overwrite;
  write.gzip = options.compress;
  std::optional<DType> dtype;
  if (!options.dtype.empty()) dtype = parse_dtype(options.dtype);
  const int copied =
      copy_capture(options.capture, options.out, selection_of(options), write, dtype);
  std::printf("%s: %d records\n", options.out.c_str(), copied);
  return 0;
}

int capture_convert_command(const CaptureCommand& options) {
  const auto is_capture = [](const std::string& name) {
    return name.ends_with(".h5") || name.ends_with(".hdf5");
  };
  const bool arrays =
      std::filesystem::is_directory(options.capture) || options.capture.ends_with(".safetensors");
  if (!arrays && is_capture(options.out)) return capture_slice_command(options);
  int records = 0;
  if (arrays) {
    ImportOptions how;
    how.grid = options.grid;
    how.text_pos = options.text_pos;
    how.layout = options.layout;
    how.step = options.step;
    how.layer = options.layer;
    how.branch = options.branch;
    if (options.scale != 0.0) how.scale = options.scale;
    CaptureWriteOptions write;
    write.overwrite = options.overwrite;
    write.gzip = options.compress;
    records = import_arrays(options.capture, options.out, how, write);
  } else {
    if (!options.dtype.empty() || options.compress) {
      throw Error("capture convert: --dtype and --compress apply to a target that ends in .h5");
    }
    records =
        export_capture(options.capture, options.out, selection_of(options), options.overwrite);
  }
  std::printf("%s: %d records\n", options.out.c_str(), records);
  return 0;
}

}  // namespace raingauge
