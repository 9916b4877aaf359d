// SPDX-License-Identifier: Apache-2.0
#include "data/demo/demo.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <cstdlib>

#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/demo/device.h"
#include "data/demo/sampler.h"
#include "data/demo/weights.h"
#include "data/error.h"
#include "data/sha256.h"

namespace raingauge::demo {
namespace {

constexpr int kMaxGrid = 64;  // tokens each way
constexpr int kMaxSteps = 1000;
constexpr double kMaxGuidance = 100.0;

void check_range(const char* what, int got, int least, int most) {
  if (got >= least && got <= most) return;
  throw Error(std::string("demo clip: ") + what + " is " + std::to_string(got) + ", allowed are " +
              std::to_string(least) + " to " + std::to_string(most));
}

void check(const ClipRequest& request) {
  check_range("frames", request.frames, 1, kTimelineFrames);
  check_range("grid_h", request.grid_h, 1, kMaxGrid);
  check_range("grid_w", request.grid_w, 1, kMaxGrid);
  check_range("steps", request.steps, 1, kMaxSteps);
  if (!(request.guidance >= 0.0 && request.guidance <= kMaxGuidance)) {
    throw Error("demo clip: guidance is " + std::to_string(request.guidance) +
                ", allowed are 0 to 100 (1 = one pass a step)");
  }
  if ((request.seed & kHeldOutBit) != 0) {
    throw Error("demo clip: seed is " + std::to_string(request.seed) + ", it must be below 2^63");
  }
}

View view_of(const ClipRequest& request) {
  return full_view(request.frames, request.grid_h, request.grid_w);
}

std::uint64_t scene_seed(const ClipRequest& request) { return kHeldOutBit | request.seed; }

// On the CPU whatever the model's device: sines differ between devices in their last bits.
Rendered render_scene(const ClipRequest& request, const View& view) {
  return render({scene_seed(request)}, view, at::kCPU);
}

Frames to_frames(const at::Tensor& pixels) {  // [1, F, Y, X, 3]
  return {.frames = pixels.size(1),
          .height = pixels.size(2),
          .width = pixels.size(3),
          .rgb = to_rgb8(pixels)};
}

const std::uint16_t* bits_of(const at::Tensor& tensor) {
  return static_cast<const std::uint16_t*>(tensor.const_data_ptr());
}

// Runs the hooks of `options` on each item of a batch.
class Attention {
 public:
  Attention(const ClipOptions& options, std::vector<double> sigmas, const Device& device)
      : options_(options), sigmas_(std::move(sigmas)), device_(device) {}

  at::Tensor operator()(const Site& site, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v) const {
    if (!options_.attention && !options_.observe) return native_attention(site, q, k, v);
    const at::Tensor qc = q.contiguous(), kc = k.contiguous(), vc = v.contiguous();
    const at::Tensor out = options_.attention ? unwritten(q) : native(site, q, k, v);
    for (int64_t item = 0; item < q.size(0); ++item) {
      const AttentionCall call = call_of(site, qc, kc, vc, out, item);
      if (options_.attention) options_.attention(call);
      if (options_.observe) options_.observe(call);
    }
    return out;
  }

 private:
  // NaN: an element that a hook forgets must not be what the last call left in this memory.
  static at::Tensor unwritten(const at::Tensor& q) {
    return at::full(q.sizes(), std::numeric_limits<double>::quiet_NaN(),
                    q.options().dtype(at::kFloat));
  }

  static at::Tensor native(const Site& site, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v) {
    return native_attention(site, q, k, v).to(at::kFloat).contiguous();
  }

  AttentionCall call_of(const Site& site, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v, const at::Tensor& out, int64_t item) const {
    AttentionCall call;
    call.site = site;
    call.site.batch_item = static_cast<int>(item);
    call.heads = q.size(1);
    call.tokens = q.size(2);
    call.head_dim = q.size(3);
    call.scale = 1.0 / std::sqrt(static_cast<double>(call.head_dim));
    call.sigma = sigmas_.at(static_cast<std::size_t>(site.step));
    call.timestep = call.sigma;
    call.q = bits_of(q[item]);
    call.k = bits_of(k[item]);
    call.v = bits_of(v[item]);
    call.o = out[item].mutable_data_ptr<float>();
    call.device = device_;
    return call;
  }

  const ClipOptions& options_;
  std::vector<double> sigmas_;
  Device device_;
};

std::filesystem::path find_weights(const std::string& weights) {
  const bool shipped = weights.empty();
  std::filesystem::path path = shipped ? RAINGAUGE_DEMO_WEIGHTS : weights;
  // A bundle carries the weights along; its launcher says where it was unpacked.
  const char* home = std::getenv("RAINGAUGE_HOME");
  if (shipped && home != nullptr) {
    path = std::filesystem::path(home) / "data" / "demo" / "drizzle.safetensors";
  }
  if (std::filesystem::is_regular_file(path)) return path;
  throw Error("demo weights: there is no file " + path.string() +
              (shipped ? "; it ships with the project: check the checkout, or name another file"
                       : "; an empty name takes the weights that ship with the project"));
}

// torch's own errors carry a stack trace that helps no user.
template <typename Work>
auto with_plain_errors(const char* what, const Work& work) {
  try {
    return work();
  } catch (const c10::Error& error) {
    throw Error(std::string(what) + ": " + error.what_without_backtrace());
  }
}

double rounded(double value) { return std::round(value * 1e4) / 1e4; }

nlohmann::json describe_object(const SceneObject& object) {
  static constexpr std::array<const char*, 3> kShapes{"disc", "box", "ring"};
  return {{"shape", kShapes[static_cast<std::size_t>(object.shape)]},
          {"x", rounded(object.x)},
          {"y", rounded(object.y)},
          {"velocity_x", rounded(object.velocity_x)},
          {"velocity_y", rounded(object.velocity_y)},
          {"radius", rounded(object.radius)},
          {"bounces", object.bounces}};
}

}  // namespace

std::string_view name_of(Mode mode) {
  return mode == Mode::image_to_video ? "image_to_video" : "text_to_video";
}

Mode parse_mode(std::string_view name) {
  for (const Mode mode : {Mode::image_to_video, Mode::text_to_video}) {
    if (name == name_of(mode)) return mode;
  }
  throw Error("demo mode: got '" + std::string(name) +
              "', allowed are image_to_video and text_to_video");
}

struct Demo::Impl {
  std::filesystem::path path;
  std::string sha256;
  Device device;
  at::Device torch_device;
  int threads;
  Model model;
  Codec codec;

  // The number of threads belongs to the calling thread, so it is set for every call.
  void use_threads() const {
    if (threads > 0) at::set_num_threads(threads);
  }

  at::Tensor sample_latents(const ClipRequest& request, const ClipOptions& options) const {
    const Rendered first = render_scene(request, View{{0}, request.grid_h, request.grid_w});
    const std::vector<int64_t> shape{1, request.frames, request.grid_h, request.grid_w,
                                     kLatentChannels};
    SampleRequest wanted{.noise = gaussian_noise(scene_seed(request), shape).to(torch_device),
                         .first_frame = {},
                         .prompt = first.prompt.to(torch_device)};
    if (request.mode == Mode::image_to_video) {
      wanted.first_frame = codec.encode(first.pixels.to(torch_device)).select(1, 0);
    }
    const SamplerOptions sampler{.steps = request.steps, .guidance = request.guidance};
    return sample(model, wanted, make_positions(view_of(request), torch_device), sampler,
                  Attention(options, schedule(sampler), device), options.progress);
  }
};

Demo::Demo(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Demo::Demo(Demo&&) noexcept = default;
Demo& Demo::operator=(Demo&&) noexcept = default;
Demo::~Demo() = default;

Demo Demo::load(const std::string& weights, const Device& device, int threads) {
  if (threads < 0) {
    throw Error("demo: threads is " + std::to_string(threads) + ", allowed are 0 (the tensor " +
                "library's choice) and more");
  }
  const std::filesystem::path path = find_weights(weights);
  return with_plain_errors("demo: loading the model", [&] {
    const at::Device on = open_device(to_string(device));
    const Weights read = read_weights(path);
    // Few CPUs multiply bf16 faster than fp32.
    const at::ScalarType compute = on.is_cuda() ? at::kBFloat16 : at::kFloat;
    return Demo(std::make_unique<const Impl>(
        Impl{.path = path,
             .sha256 = sha256_file(path.string()),
             .device = device,
             .torch_device = on,
             .threads = threads,
             .model = Model(read.config, to_compute(read.parameters, on, compute)),
             .codec = Codec(read.codec_mean.to(on), read.codec_deviation.to(on))}));
  });
}

Frames Demo::generate(const ClipRequest& request, const ClipOptions& options) const {
  check(request);
  return with_plain_errors("demo: generating a clip", [&] {
    const c10::InferenceMode inference;
    impl_->use_threads();
    const at::Tensor latents = impl_->sample_latents(request, options);
    if (!latents.isfinite().all().item<bool>()) {
      throw NotFinite("demo clip, seed " + std::to_string(request.seed) +
                      ": the sampled latents hold NaN or Inf; an attention that computed them, or "
                      "left part of its output unwritten, is the cause");
    }
    return to_frames(impl_->codec.decode(latents));
  });
}

Frames Demo::truth(const ClipRequest& request) const {
  check(request);
  impl_->use_threads();
  return to_frames(render_scene(request, view_of(request)).pixels);
}

Frames Demo::codec_truth(const ClipRequest& request) const {
  check(request);
  return with_plain_errors("demo: coding a clip", [&] {
    const c10::InferenceMode inference;
    impl_->use_threads();
    const at::Tensor pixels = render_scene(request, view_of(request)).pixels;
    const Codec& codec = impl_->codec;
    return to_frames(codec.decode(codec.encode(pixels.to(impl_->torch_device))));
  });
}

int Demo::layers() const { return impl_->model.config().layers; }
int Demo::heads() const { return impl_->model.config().heads(); }
int Demo::head_dim() const { return kHeadDim; }
int Demo::text_tokens() const { return kTextTokens; }
double Demo::scale() const { return 1.0 / std::sqrt(static_cast<double>(kHeadDim)); }
std::string Demo::weights_path() const { return impl_->path.string(); }
std::string Demo::weights_sha256() const { return impl_->sha256; }

std::vector<double> Demo::timesteps(const ClipRequest& request) const {
  check(request);
  return schedule({.steps = request.steps, .guidance = request.guidance});
}

Segments Demo::segments(const ClipRequest& request) const {
  check(request);
  const std::int64_t video = std::int64_t{request.frames} * request.grid_h * request.grid_w;
  return {{.role = Role::video,
           .start = 0,
           .length = video,
           .frames = request.frames,
           .height = request.grid_h,
           .width = request.grid_w},
          {.role = Role::text, .start = video, .length = kTextTokens}};
}

std::string Demo::prompt_text(const ClipRequest& request) const {
  check(request);
  const Scene scene = draw_scene(scene_seed(request));
  nlohmann::json objects = nlohmann::json::array();
  for (const SceneObject& object : scene.objects) {
    if (object.present) objects.push_back(describe_object(object));
  }
  nlohmann::json colour = nlohmann::json::array();
  for (const double channel : scene.world.base) colour.push_back(rounded(channel));
  const nlohmann::json text = {{"mode", name_of(request.mode)},
                               {"camera",
                                {{"pan_x", rounded(scene.pan_x)},
                                 {"pan_y", rounded(scene.pan_y)},
                                 {"zoom", rounded(scene.zoom)},
                                 {"roll", rounded(scene.roll)},
                                 {"colour", colour}}},
                               {"objects", objects}};
  return text.dump();
}

}  // namespace raingauge::demo
