// SPDX-License-Identifier: Apache-2.0
// `raingauge generate`: one clip of the demo DiT with any arm; `raingauge capture synth|record`.
#include <chrono>
#include <cstdio>

#include "data/capture_writer.h"
#include "data/frames.h"
#include "harness/commands/commands.h"
#include "harness/demo_capture.h"
#include "harness/experiment_parts.h"
#include "harness/frame_rows.h"
#include "harness/live_attention.h"
#include "harness/source.h"
#include "harness/yaml_document.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#ifdef RAINGAUGE_WITH_TORCH
#include "data/demo/demo.h"
#endif

namespace raingauge {

using nlohmann::json;

#ifdef RAINGAUGE_WITH_TORCH

int generate_command(const GenerateCommand& options) {
  const Arm arm = parse_arm(options.arm);
  const Device device = parse_device(options.device);
  check_device(device);
  const auto model = demo::Demo::load("", device, options.threads);
  demo::ClipRequest request;
  request.seed = options.seed;
  request.mode = demo::parse_mode(options.mode);
  request.frames = options.grid.at(0);
  request.grid_h = options.grid.at(1);
  request.grid_w = options.grid.at(2);
  request.steps = options.steps;
  LiveAttention live(arm, usual_kernel(options.kernel, device.kind), model.segments(request),
                     "clip " + std::to_string(options.seed), device, options.threads);
  demo::ClipOptions clip;
  clip.attention = [&live, &device](const demo::AttentionCall& call) {
    const auto view = [&](const std::uint16_t* data) {
      return contiguous_view(data, DType::bf16, call.heads, call.tokens, call.head_dim, device);
    };
    live({call.site, call.scale, view(call.q), view(call.k), view(call.v), call.o});
  };
  clip.progress = [](int done, int steps) {
    std::fprintf(stderr, "\rstep %d/%d%s", done, steps, done == steps ? "\n" : "");
  };
  const auto start = std::chrono::steady_clock::now();
  const Frames frames = model.generate(request, clip);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto written = write_frames(options.out, frames);
  const json truth = frame_scores(model.truth(request), frames, {"psnr", "ssim_gauss11"});
  if (options.json) {
    const json out = {{"path", options.out},
                      {"format", written},
                      {"seconds", seconds},
                      {"attention_seconds", live.milliseconds() / 1e3},
                      {"density_pairs", live.density()},
                      {"against_truth", truth}};
    std::printf("%s\n", out.dump(1).c_str());
  } else {
    std::printf("%s (%s): %lld frames of %lld x %lld, density %.4f, attention %.1f of %.1f s\n",
                options.out.c_str(), written.c_str(), static_cast<long long>(frames.frames),
                static_cast<long long>(frames.width), static_cast<long long>(frames.height),
                live.density(), live.milliseconds() / 1e3, seconds);
    std::printf("against the true clip: PSNR %s dB, SSIM %s\n",
                truth["psnr"]["mean"].dump().c_str(), truth["ssim_gauss11"]["mean"].dump().c_str());
  }
  return 0;
}

#else

int generate_command(const GenerateCommand&) {
  throw Unsupported("generate: the demo DiT needs libtorch, which this build does not have");
}

#endif

namespace {

Selection selection_of(const CaptureCommand& options) {
  Selection selection;
  selection.layers = options.layers;
  selection.steps = options.steps;
  selection.heads = options.heads;
  return selection;
}

json spec_of(const CaptureCommand& options) {
  return options.spec.empty() ? json::object()
                              : YamlDocument::parse(options.spec, "specification").root();
}

}  // namespace

int capture_synth_command(const CaptureCommand& options) {
  const auto document =
      YamlDocument::parse(options.spec.empty() ? "{}" : options.spec, "specification");
  const auto source = make_synthetic_source(read_synthetic(document, ""), options.threads);
  CaptureInfo info;
  info.model_id = "raingauge-synthetic";
  info.config = source->describe().dump();
  CaptureWriteOptions write;
  write.overwrite = options.overwrite;
  write.gzip = options.compress;
  CaptureWriter writer(options.out, info, write);
  int written = 0;
  for (const auto& record : source->records()) {
    const auto loaded = source->load(record, options.heads);
    const RecordView view = loaded->view();
    writer.write_record(*view.info, view.q, view.k, view.v);
    std::fprintf(stderr, "record %d of %zu\n", ++written, source->records().size());
  }
  writer.finish();
  std::printf("%s: %d records\n", options.out.c_str(), written);
  return 0;
}

int capture_record_command(const CaptureCommand& options) {
  const auto clips = demo_clips(spec_of(options));
  if (clips.size() != 1)
    throw Error("capture record: one file is one generation; ask for one clip");
  if (std::filesystem::exists(options.out) && !options.overwrite) {
    throw Error(options.out + ": exists already; --overwrite replaces it");
  }
  const Device device = parse_device(options.device);
  check_device(device);
  record_demo_clip(clips[0], selection_of(options), options.out, options.compress, device,
                   options.threads,
                   [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); });
  std::printf("%s\n", options.out.c_str());
  return 0;
}

}  // namespace raingauge
