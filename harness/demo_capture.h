// SPDX-License-Identifier: Apache-2.0
// Captures of the demo DiT: a clip is denoised densely while the attention calls that an experiment
// selects are recorded, once; later runs find the file in the cache.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "harness/experiment.h"
#include "harness/source.h"

namespace raingauge {

// ${RAINGAUGE_CACHE}, or raingauge/ under ${XDG_CACHE_HOME} or ~/.cache.
std::filesystem::path cache_folder();

// One file per clip of `options` {clips, mode, grid, steps, seed}, recorded when the cache lacks it.
// The cache key covers the weights, the clip and what is recorded. Throws Unsupported in builds
// without libtorch.
std::vector<std::filesystem::path> demo_captures(const nlohmann::json& options,
                                                 const Selection& select, const Device& device,
                                                 int threads, const StatusFn& status);

// The records that demo_captures() would give, without recording any.
std::vector<RecordInfo> list_demo_records(const nlohmann::json& options, const Selection& select);

struct DemoClip {
  std::uint64_t seed = 1;
  std::string mode = "image_to_video";
  std::vector<int> grid = {21, 16, 24};
  int steps = 8;
};

// Denoises one clip and writes the selected records, and frames `dense` and `truth`, to `path`.
void record_demo_clip(const DemoClip& clip, const Selection& select,
                      const std::filesystem::path& path, bool compress, const Device& device,
                      int threads, const StatusFn& status);

// The clips that `options` asks for.
std::vector<DemoClip> demo_clips(const nlohmann::json& options);

}  // namespace raingauge
