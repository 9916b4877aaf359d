// SPDX-License-Identifier: Apache-2.0
// raingauge-demo-evaluate: what a trained demo DiT does on scenes it never saw, as JSON, and a
// contact sheet.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/demo/device.h"
#include "data/demo/image.h"
#include "data/demo/sampler.h"
#include "data/demo/statistics.h"
#include "data/demo/weights.h"

namespace raingauge::demo {
namespace {

using nlohmann::json;

struct Flags {
  std::string weights, device = "cpu", sheet;
  std::vector<std::string> grids{"16x24", "18x22"};
  int frames = kTimelineFrames, clips = 16, batch = 4, steps = 8;
};

void declare(CLI::App& app, Flags& flags) {
  app.add_option("weights", flags.weights, "safetensors file")->required();
  app.add_option("--device", flags.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--sheet", flags.sheet, "contact sheet to write, .png or .ppm, of the first grid");
  app.add_option("--grid", flags.grids, "rows x columns of tokens, repeatable")
      ->capture_default_str();
  app.add_option("--frames", flags.frames)->check(CLI::Range(2, kTimelineFrames));
  app.add_option("--clips", flags.clips)->check(CLI::Range(1, 1000));
  app.add_option("--batch", flags.batch)->check(CLI::Range(1, 1000));
  app.add_option("--steps", flags.steps)->check(CLI::Range(1, 1000));
}

double rounded(double value) { return std::round(value * 1e3) / 1e3; }

// Of the mean squared error over all clips: one still clip would make a mean of PSNRs infinite.
class PsnrByFrame {
 public:
  void add(const at::Tensor& got, const at::Tensor& wanted) {
    const at::Tensor error = (got - wanted).square().mean({2, 3, 4}).sum(0).to(at::kDouble).cpu();
    sum_ = sum_.defined() ? sum_ + error : error;
    clips_ += got.size(0);
  }
  json values() const {
    json values = json::array();
    for (int64_t f = 0; f < sum_.numel(); ++f) {
      const double mean = sum_[f].item<double>() / static_cast<double>(clips_);
      values.push_back(mean > 0 ? json(rounded(10.0 * std::log10(4.0 / mean))) : json(nullptr));
    }
    return values;
  }

 private:
  at::Tensor sum_;
  int64_t clips_ = 0;
};

struct Setup {
  const Model& model;
  const Codec& codec;
  const Flags& flags;
  View view;
  Positions positions;

  int64_t frame_tokens() const { return int64_t{view.grid_h} * view.grid_w; }
  int64_t video_tokens() const { return frame_tokens() * std::ssize(view.frames); }
};

struct Clips {
  Rendered truth;
  at::Tensor latents, noise;
};

Clips draw_clips(const Setup& setup, int first, int count) {
  std::vector<std::uint64_t> seeds;
  std::vector<at::Tensor> noise;
  const std::vector<int64_t> shape{1, std::ssize(setup.view.frames), setup.view.grid_h,
                                   setup.view.grid_w, kLatentChannels};
  for (int i = first; i < first + count; ++i) {
    seeds.push_back(kHeldOutBit | static_cast<std::uint64_t>(i));
    noise.push_back(gaussian_noise(seeds.back(), shape));
  }
  Clips clips;
  clips.truth = render(seeds, setup.view, setup.model.device());
  clips.latents = setup.codec.encode(clips.truth.pixels);
  clips.noise = at::cat(noise).to(setup.model.device());
  return clips;
}

at::Tensor generate(const Setup& setup, const Clips& clips, bool image_to_video, bool prompted) {
  const at::Tensor& prompt = clips.truth.prompt;
  const SampleRequest request{
      .noise = clips.noise,
      .first_frame = image_to_video ? clips.latents.select(1, 0) : at::Tensor(),
      .prompt = prompted ? prompt : at::zeros_like(prompt)};
  const SamplerOptions options{.steps = setup.flags.steps};
  return setup.codec.decode(
      sample(setup.model, request, setup.positions, options, native_attention, {}));
}

// Rows: true, image-to-video, text-to-video for each clip; columns: frames spread over the clip.
class ContactSheet {
 public:
  void add(const at::Tensor& truth, const at::Tensor& image, const at::Tensor& text) {
    for (int64_t clip = 0; clip < truth.size(0) && clips_ < kClips; ++clip, ++clips_) {
      for (const at::Tensor* pixels : {&truth, &image, &text}) add_row((*pixels)[clip]);
    }
  }
  bool full() const { return clips_ >= kClips; }
  at::Tensor image() const { return at::cat(rows_, 0); }

 private:
  static constexpr int kClips = 4;
  static constexpr int64_t kColumns = 5;

  void add_row(const at::Tensor& clip) {  // [F, Y, X, 3]
    std::vector<at::Tensor> columns;
    for (int64_t c = 0; c < kColumns; ++c) {
      columns.push_back(clip[(clip.size(0) - 1) * c / (kColumns - 1)]);
    }
    rows_.push_back(at::cat(columns, 1).cpu());
  }

  std::vector<at::Tensor> rows_;
  int clips_ = 0;
};

json quality(const Setup& setup, ContactSheet* sheet) {
  PsnrByFrame with_prompt, without_prompt, repeat, round_trip;
  for (int first = 0; first < setup.flags.clips; first += setup.flags.batch) {
    const int count = std::min(setup.flags.batch, setup.flags.clips - first);
    const Clips clips = draw_clips(setup, first, count);
    const at::Tensor& truth = clips.truth.pixels;
    const at::Tensor made = generate(setup, clips, true, true);
    with_prompt.add(made, truth);
    without_prompt.add(generate(setup, clips, true, false), truth);
    repeat.add(truth.narrow(1, 0, 1).expand_as(truth), truth);
    round_trip.add(setup.codec.decode(clips.latents), truth);
    if (sheet && !sheet->full()) sheet->add(truth, made, generate(setup, clips, false, true));
  }
  return {{"image_to_video", with_prompt.values()},
          {"image_to_video_no_prompt", without_prompt.values()},
          {"repeat_frame0", repeat.values()},
          {"codec_round_trip", round_trip.values()}};
}

json attention_at(const Setup& setup, const Clips& clips, bool image_to_video, double time) {
  const c10::NoGradGuard no_grad;
  const auto options = clips.latents.options();
  const at::Tensor clean_first = at::full({1}, image_to_video ? 1.0 : 0.0, options);
  const at::Tensor times = at::full({1}, time, options);
  const ModelInput input{.latents = noised(clips.latents, clips.noise, times, clean_first),
                         .time = times,
                         .prompt = clips.truth.prompt,
                         .clean_first = clean_first};
  std::vector<std::vector<HeadStatistics>> found;
  setup.model.velocity(input, setup.positions, Site{},
                       observing_attention(setup.frame_tokens(), setup.video_tokens(), found));
  json frame0 = json::array(), top = json::array();
  std::vector<double> all;
  for (const auto& layer : found) {
    frame0.push_back(json::array());
    top.push_back(json::array());
    for (const HeadStatistics& head : layer) {
      frame0.back().push_back(rounded(head.frame0_mass));
      top.back().push_back(rounded(head.top_block_mass));
      all.push_back(head.top_block_mass);
    }
  }
  std::sort(all.begin(), all.end());
  const double median = (all[all.size() / 2] + all[(all.size() - 1) / 2]) / 2;
  return {{"mode", image_to_video ? "image_to_video" : "text_to_video"},
          {"time", time},
          {"frame0_mass", frame0},
          {"top20_block_mass", top},
          {"top20_block_mass_median", rounded(median)}};
}

json attention(const Setup& setup) {
  const Clips clips = draw_clips(setup, 0, 1);
  json sites = json::array();
  for (const bool image_to_video : {true, false}) {
    for (const double time : {0.95, 0.6, 0.2}) {
      sites.push_back(attention_at(setup, clips, image_to_video, time));
    }
  }
  const int64_t tokens = setup.video_tokens() + kTextTokens;
  const HeadStatistics gaussian =
      gaussian_statistics(tokens, setup.frame_tokens(), setup.video_tokens(), setup.model.device());
  return {{"uniform_frame0_mass",
           rounded(static_cast<double>(setup.frame_tokens()) / static_cast<double>(tokens))},
          {"gaussian_top20_block_mass", rounded(gaussian.top_block_mass)},
          {"sites", sites}};
}

View parse_grid(const std::string& text, int frames) {
  View view = full_view(frames, 0, 0);
  char cross = 0;
  std::istringstream stream(text);
  stream >> view.grid_h >> cross >> view.grid_w;
  if (!stream || cross != 'x') throw CLI::ValidationError("--grid", "wanted ROWSxCOLUMNS: " + text);
  return view;
}

int run(const Flags& flags) {
  const at::Device device = open_device(flags.device);
  const Weights weights = read_weights(flags.weights);
  const at::ScalarType compute = device.is_cuda() ? at::kBFloat16 : at::kFloat;
  const Model model(weights.config, to_compute(weights.parameters, device, compute));
  const Codec codec(weights.codec_mean.to(device), weights.codec_deviation.to(device));
  json result = {{"training", weights.training},
                 {"frames", flags.frames},
                 {"clips", flags.clips},
                 {"steps", flags.steps},
                 {"grids", json::object()}};
  ContactSheet sheet;
  bool first = !flags.sheet.empty();
  for (const std::string& grid : flags.grids) {
    const View view = parse_grid(grid, flags.frames);
    const Setup setup{model, codec, flags, view, make_positions(view, device)};
    result["grids"][grid] = {{"psnr", quality(setup, first ? &sheet : nullptr)},
                             {"attention", attention(setup)}};
    if (first) write_image(flags.sheet, sheet.image());
    first = false;
  }
  std::cout << result.dump(1) << std::endl;
  return 0;
}

}  // namespace
}  // namespace raingauge::demo

int main(int argc, char** argv) {
  raingauge::demo::Flags flags;
  CLI::App app{"Evaluates the demo DiT on held-out scenes."};
  raingauge::demo::declare(app, flags);
  CLI11_PARSE(app, argc, argv);
  try {
    return raingauge::demo::run(flags);
  } catch (const std::exception& error) {
    std::cerr << "raingauge-demo-evaluate: " << error.what() << "\n";
    return 1;
  }
}
