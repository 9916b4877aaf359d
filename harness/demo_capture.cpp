// SPDX-License-Identifier: Apache-2.0
#include "harness/demo_capture.h"

#include <algorithm>
#include <cstdlib>

#include "data/capture_writer.h"
#include "data/error.h"
#include "harness/results.h"
#ifdef RAINGAUGE_WITH_TORCH
#include "data/demo/demo.h"
#include "methods/kernels/device.h"
#endif

namespace raingauge {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

#ifdef RAINGAUGE_WITH_TORCH

json clip_json(const DemoClip& clip) {
  return {{"seed", clip.seed}, {"mode", clip.mode}, {"grid", clip.grid}, {"steps", clip.steps}};
}

demo::ClipRequest request_of(const DemoClip& clip) {
  demo::ClipRequest request;
  request.seed = clip.seed;
  request.mode =
      clip.mode == "text_to_video" ? demo::Mode::text_to_video : demo::Mode::image_to_video;
  request.frames = clip.grid.at(0);
  request.grid_h = clip.grid.at(1);
  request.grid_w = clip.grid.at(2);
  request.steps = clip.steps;
  return request;
}

CaptureInfo capture_info(const DemoClip& clip, const demo::Demo& model,
                         const demo::ClipRequest& request) {
  CaptureInfo info;
  info.model_id = "raingauge-drizzle";
  info.pipeline = clip.mode;
  info.config =
      json({{"weights_sha256", model.weights_sha256()}, {"clip", clip_json(clip)}}).dump();
  info.prompt = model.prompt_text(request);
  info.seed = std::to_string(clip.seed);
  info.scheduler = "rectified flow, Euler, shift 3";
  info.steps = clip.steps;
  info.guidance = 1.0;
  info.frames = clip.grid.at(0);
  info.height = clip.grid.at(1) * 8;
  info.width = clip.grid.at(2) * 8;
  info.patch = {1, 8, 8};
  return info;
}

// Writes every selected attention call as a record while the clip is denoised.
class Recorder {
 public:
  Recorder(CaptureWriter& writer, const demo::Demo& model, const demo::ClipRequest& request,
           const Selection& select, const Device& device)
      : writer_(writer),
        model_(model),
        segments_(model.segments(request)),
        select_(select),
        device_(device) {}

  void operator()(const demo::AttentionCall& call) {
    if (!allowed(select_.layers, call.site.layer) || !allowed(select_.steps, call.site.step) ||
        !allowed(select_.branches, call.site.branch)) {
      return;
    }
    RecordInfo info;
    info.number = number_++;
    info.site = call.site;
    info.scale = call.scale;
    info.layer_name = "blocks." + std::to_string(call.site.layer) + ".attention";
    info.layers_total = model_.layers();
    info.timestep = call.timestep;
    info.sigma = call.sigma;
    info.kind = "joint";
    for (int head = 0; head < call.heads; ++head) info.heads.push_back(head);
    info.heads_total = static_cast<int>(call.heads);
    info.dtype = DType::bf16;
    info.tokens = call.tokens;
    info.head_dim = call.head_dim;
    info.segments = segments_;
    const auto elements = static_cast<std::size_t>(call.heads * call.tokens * call.head_dim);
    const auto q = to_host(call.q, elements);
    const auto k = to_host(call.k, elements);
    const auto v = to_host(call.v, elements);
    const auto view = [&](const std::vector<std::uint16_t>& values) {
      return contiguous_view(values.data(), DType::bf16, call.heads, call.tokens, call.head_dim);
    };
    writer_.write_record(info, view(q), view(k), view(v));
  }

 private:
  std::vector<std::uint16_t> to_host(const std::uint16_t* source, std::size_t elements) const {
    std::vector<std::uint16_t> values(elements);
    copy_to_host(device_, source, values.data(), elements * sizeof(std::uint16_t));
    return values;
  }

  CaptureWriter& writer_;
  const demo::Demo& model_;
  Segments segments_;
  const Selection& select_;
  Device device_;
  int number_ = 0;
};

#endif

}  // namespace

fs::path cache_folder() {
  if (const char* folder = std::getenv("RAINGAUGE_CACHE")) return folder;
  if (const char* folder = std::getenv("XDG_CACHE_HOME")) return fs::path(folder) / "raingauge";
  const char* home = std::getenv("HOME");
  return fs::path(home != nullptr ? home : "/tmp") / ".cache" / "raingauge";
}

std::vector<DemoClip> demo_clips(const json& options) {
  std::vector<std::string> modes = {options.value("mode", "image_to_video")};
  if (modes[0] == "both") modes = {"image_to_video", "text_to_video"};
  std::vector<DemoClip> clips;
  for (const auto& mode : modes) {
    for (int i = 0; i < options.value("clips", 1); ++i) {
      DemoClip clip;
      clip.seed = options.value("seed", std::uint64_t{1}) + static_cast<std::uint64_t>(i);
      clip.mode = mode;
      clip.grid = options.value("grid", clip.grid);
      clip.steps = options.value("steps", clip.steps);
      clips.push_back(clip);
    }
  }
  return clips;
}

#ifdef RAINGAUGE_WITH_TORCH

void record_demo_clip(const DemoClip& clip, const Selection& select, const fs::path& path,
                      bool compress, const Device& device, int threads, const StatusFn& status) {
  const auto model = demo::Demo::load("", device, threads);
  const auto request = request_of(clip);
  CaptureWriteOptions write;
  write.overwrite = true;
  write.gzip = compress;
  CaptureWriter writer(path.string(), capture_info(clip, model, request), write);
  auto sigmas = model.timesteps(request);
  writer.set_schedule(sigmas, sigmas);
  Recorder recorder(writer, model, request, select, device);
  demo::ClipOptions options;
  options.observe = [&](const demo::AttentionCall& call) { recorder(call); };
  options.progress = [&](int done, int steps) {
    status("recording demo clip " + std::to_string(clip.seed) + " (" + clip.mode + "): step " +
           std::to_string(done) + "/" + std::to_string(steps));
  };
  writer.write_frames("dense", model.generate(request, options));
  writer.write_frames("truth", model.truth(request));
  writer.finish();
}

std::vector<fs::path> demo_captures(const json& options, const Selection& select,
                                    const Device& device, int threads, const StatusFn& status) {
  const auto weights = demo::Demo::load("", {}, threads).weights_sha256();
  const fs::path folder = cache_folder() / "demo";
  fs::create_directories(folder);
  std::vector<fs::path> files;
  for (const auto& clip : demo_clips(options)) {
    const auto key = cell_hash({{"weights", weights},
                                {"clip", clip_json(clip)},
                                {"device", device.kind == DeviceKind::cuda ? "cuda" : "cpu"},
                                {"layers", select.layers},
                                {"steps", select.steps},
                                {"branches", select.branches}});
    const fs::path path =
        folder / (clip.mode + "-seed" + std::to_string(clip.seed) + "-" + key + ".h5");
    if (!fs::exists(path)) {
      const fs::path partial = path.string() + ".partial";
      record_demo_clip(clip, select, partial, false, device, threads, status);
      fs::rename(partial, path);
    }
    files.push_back(path);
  }
  return files;
}

std::vector<RecordInfo> list_demo_records(const json& options, const Selection& select) {
  const auto model = demo::Demo::load();
  std::vector<RecordInfo> records;
  for (const auto& clip : demo_clips(options)) {
    for (int step = 0; step < clip.steps; ++step) {
      for (int layer = 0; layer < model.layers(); ++layer) {
        if (!allowed(select.layers, layer) || !allowed(select.steps, step)) continue;
        RecordInfo info;
        info.number = static_cast<int>(records.size());
        info.generation = clip.mode + " " + std::to_string(clip.seed);
        info.site.step = step;
        info.site.layer = layer;
        info.scale = model.scale();
        for (int head = 0; head < model.heads(); ++head) info.heads.push_back(head);
        info.segments = model.segments(request_of(clip));
        info.tokens = info.segments.back().end();
        info.head_dim = model.head_dim();
        records.push_back(std::move(info));
      }
    }
  }
  return records;
}

#else

std::vector<RecordInfo> list_demo_records(const json&, const Selection&) {
  throw Unsupported("captures: demo needs libtorch, which this build does not have");
}

void record_demo_clip(const DemoClip&, const Selection&, const fs::path&, bool, const Device&, int,
                      const StatusFn&) {
  throw Unsupported("the demo DiT needs libtorch, which this build does not have");
}

std::vector<fs::path> demo_captures(const json&, const Selection&, const Device&, int,
                                    const StatusFn&) {
  throw Unsupported(
      "captures: demo needs libtorch, which this build does not have; use capture files "
      "or synthetic records");
}

#endif

}  // namespace raingauge
