// SPDX-License-Identifier: Apache-2.0
// The attributes that the capture writer gives to a file and to its records.
#include <array>
#include <cmath>

#include "data/capture_detail.h"
#include "data/error.h"

namespace raingauge::hdf5 {
namespace {

void write_texts(hid_t file, const CaptureInfo& info, const std::string& path) {
  const std::array<std::pair<const char*, const std::string*>, 10> texts{{
      {"generation", &info.generation},
      {"model_id", &info.model_id},
      {"pipeline", &info.pipeline},
      {"config", &info.config},
      {"prompt", &info.prompt},
      {"negative_prompt", &info.negative_prompt},
      {"scheduler", &info.scheduler},
      {"command", &info.command},
      {"libraries", &info.libraries},
      {"created", &info.created},
  }};
  for (const auto& [name, text] : texts) {
    if (!text->empty()) write_string(file, name, *text, path);
  }
}

}  // namespace

void write_capture_info(hid_t file, const CaptureInfo& info, const std::string& path) {
  write_string(file, "format", "raingauge-capture", path);
  write_integer(file, "version", kCaptureVersion, path);
  write_texts(file, info, path);
  if (!info.seed.empty() && !write_integer_text(file, "seed", info.seed, path)) {
    throw Error(path + ": seed `" + info.seed + "` is not an integer of 64 bits");
  }
  const std::array<std::pair<const char*, const std::optional<int>*>, 4> integers{{
      {"steps", &info.steps},
      {"frames", &info.frames},
      {"height", &info.height},
      {"width", &info.width},
  }};
  for (const auto& [name, value] : integers) {
    if (*value) write_integer(file, name, **value, path);
  }
  if (info.guidance) write_real(file, "guidance", *info.guidance, path);
  if (info.fps) write_real(file, "fps", *info.fps, path);
  if (!info.patch.empty()) write_integers(file, "patch", info.patch, path);
}

void write_record_info(hid_t record, const RecordInfo& info, const std::string& where) {
  write_integer(record, "layer_index", info.site.layer, where);
  write_integer(record, "step", info.site.step, where);
  write_string(record, "branch", info.site.branch, where);
  write_real(record, "scale", info.scale, where);
  if (!info.layer_name.empty()) write_string(record, "layer", info.layer_name, where);
  if (info.layers_total >= 0) {
    write_integer(record, "layers_total", info.layers_total, where);
  }
  if (!info.site.expert.empty()) write_string(record, "expert", info.site.expert, where);
  if (!std::isnan(info.timestep)) write_real(record, "timestep", info.timestep, where);
  if (!std::isnan(info.sigma)) write_real(record, "sigma", info.sigma, where);
  write_integer(record, "batch_item", info.site.batch_item, where);
  write_string(record, "kind", info.kind, where);
  write_integers(record, "heads", info.heads, where);
  if (info.heads_total > 0) write_integer(record, "heads_total", info.heads_total, where);
  write_integer(record, "rope_applied", info.rope_applied ? 1 : 0, where);
}

}  // namespace raingauge::hdf5
