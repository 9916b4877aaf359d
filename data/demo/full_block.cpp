// SPDX-License-Identifier: Apache-2.0
#include "data/demo/full_block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Event.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <utility>

#include "data/demo/device.h"
#include "data/error.h"
#include "data/synthetic_models.h"

namespace raingauge::demo {
namespace {

enum class Kind {
  cross,  // Wan 2.1: self-attention over the video, cross-attention to the prompt, feed-forward
  dual,   // HunyuanVideo: video and text streams with weights of their own, joint attention
};

struct Architecture {
  const char* model;
  Kind kind;
  int feed_forward;         // width of the hidden layer at full size
  int prompt_tokens;        // of the cross-attention
  std::array<int, 3> axes;  // channels of a head that RoPE turns by frame, row, column
  double theta;
  const char* help;
};

// Wan2.1: wan/modules/model.py and wan/configs; HunyuanVideo: transformer_hunyuan_video.py of
// diffusers.
constexpr std::array<Architecture, 4> kArchitectures{{
    {"wan21-14b-720p", Kind::cross, 13824, 512, {44, 42, 42}, 1e4, "Wan2.1 14B, one of 40 blocks"},
    {"wan21-14b-480p", Kind::cross, 13824, 512, {44, 42, 42}, 1e4, "Wan2.1 14B, one of 40 blocks"},
    {"wan21-1.3b-480p", Kind::cross, 8960, 512, {44, 42, 42}, 1e4, "Wan2.1 1.3B, one of 30 blocks"},
    {"hunyuan-720p",
     Kind::dual,
     12288,
     0,
     {16, 56, 56},
     256.0,
     "HunyuanVideo, one of 20 dual-stream blocks"},
}};

const Architecture& find_architecture(const std::string& model) {
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (model == architecture.model) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.model);
  }
  throw Error("no block of the model `" + model + "` is here; known are " + known);
}

struct Shape {
  int heads, head_dim, feed_forward;
  std::int64_t video, text;
  std::array<int, 3> grid;
  std::int64_t width() const { return std::int64_t{heads} * head_dim; }
  std::int64_t tokens() const { return video + text; }
};

Shape shape_of(const FullBlockSpec& spec) {
  const ModelShape& model = find_model_shape(spec.model);
  const Architecture& architecture = find_architecture(spec.model);
  Shape shape{model.heads, model.head_dim,    architecture.feed_forward,
              0,           model.text_tokens, {model.frames, model.height, model.width}};
  if (!spec.grid.empty()) shape.grid = {spec.grid.at(0), spec.grid.at(1), spec.grid.at(2)};
  if (spec.heads > 0) {
    shape.heads = spec.heads;
    shape.feed_forward = architecture.feed_forward / model.heads * spec.heads;
  }
  shape.video = std::int64_t{shape.grid[0]} * shape.grid[1] * shape.grid[2];
  return shape;
}

// bf16 [heads, tokens, head_dim] in host memory.
class BlockRecord final : public Record {
 public:
  BlockRecord(RecordInfo info, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)
      : info_(std::move(info)), q_(host(q)), k_(host(k)), v_(host(v)) {}
  const RecordInfo& info() const override { return info_; }
  RecordView view() const override {
    const auto of = [&](const at::Tensor& x) {
      return contiguous_view(x.const_data_ptr(), DType::bf16, info_.head_count(), info_.tokens,
                             info_.head_dim);
    };
    return {&info_, of(q_), of(k_), of(v_), nullptr};
  }

 private:
  // [1, N, all heads, D] -> [H, N, D]
  at::Tensor host(const at::Tensor& x) const {
    const std::vector<std::int64_t> heads(info_.heads.begin(), info_.heads.end());
    const at::Tensor index = at::tensor(heads, at::kLong).to(x.device());
    return x[0].transpose(0, 1).index_select(0, index).to(at::kCPU);
  }
  RecordInfo info_;
  at::Tensor q_, k_, v_;
};

// Time on the device's current stream, or the host's.
class Stopwatch {
 public:
  explicit Stopwatch(at::Device device) : device_(device) {
    if (!device.is_cuda()) return;
    const c10::impl::VirtualGuardImpl guard(at::kCUDA);
    events_[0].emplace(at::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
    events_[1].emplace(at::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
    events_[0]->record(guard.getStream(device));
  }
  double stop() {
    if (!device_.is_cuda()) {
      return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_)
          .count();
    }
    const c10::impl::VirtualGuardImpl guard(at::kCUDA);
    events_[1]->record(guard.getStream(device_));
    events_[1]->synchronize();
    return events_[0]->elapsedTime(*events_[1]);
  }

 private:
  at::Device device_;
  std::optional<c10::Event> events_[2];
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

std::vector<FullBlockModel> full_block_models() {
  std::vector<FullBlockModel> models;
  for (const Architecture& a : kArchitectures) models.push_back({a.model, a.help});
  return models;
}

RecordInfo full_block_info(const FullBlockSpec& spec) {
  const Shape shape = shape_of(spec);
  RecordInfo info;
  info.capture = "dit_block:" + spec.model;
  info.generation = spec.model + ", seed " + std::to_string(spec.seed);
  info.site.branch = "cond";
  info.scale = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  for (int head = 0; head < shape.heads; ++head) info.heads.push_back(head);
  info.heads_total = shape.heads;
  info.kind = shape.text > 0 ? "joint" : "self";
  info.dtype = DType::bf16;
  info.tokens = shape.tokens();
  info.head_dim = shape.head_dim;
  info.segments = {{Role::video, 0, shape.video, shape.grid[0], shape.grid[1], shape.grid[2]}};
  if (shape.text > 0) info.segments.push_back({Role::text, shape.video, shape.text, 0, 0, 0});
  return info;
}

struct FullBlock::Impl {
  FullBlockSpec spec;
  Shape shape;
  Architecture architecture;
  at::Device device;
  std::map<std::string, at::Tensor> weights;
  at::Tensor video, text, prompt, modulation, cosine, sine;

  Impl(const FullBlockSpec& given, const Device& on, int threads)
      : spec(given),
        shape(shape_of(given)),
        architecture(find_architecture(given.model)),
        device(open_device(to_string(on))) {
    const c10::InferenceMode inference;
    if (threads > 0 && device.is_cpu()) at::set_num_threads(threads);
    at::Generator generator = at::globalContext().defaultGenerator(device);
    generator.set_current_seed(spec.seed + 1);
    video = random({1, shape.video, shape.width()}, 1.0);
    text = random({1, shape.text, shape.width()}, 1.0);
    prompt = random({1, architecture.prompt_tokens, shape.width()}, 1.0);
    modulation = random({12, 1, 1, shape.width()}, 0.1).to(at::kFloat);
    make_weights();
    make_rotation();
  }

  at::Tensor random(at::IntArrayRef size, double spread) const {
    return at::randn(size, at::TensorOptions().dtype(at::kBFloat16).device(device)).mul_(spread);
  }

  void add_linear(const std::string& name, std::int64_t out, std::int64_t in) {
    weights[name + ".w"] = random({out, in}, 1.0 / std::sqrt(static_cast<double>(in)));
    weights[name + ".b"] = random({out}, 0.02);
  }

  void make_weights() {
    const std::int64_t d = shape.width();
    for (const std::string stream : {"video.", "text."}) {
      if (stream == "text." && shape.text == 0) continue;
      for (const char* name : {"q", "k", "v", "o"}) add_linear(stream + name, d, d);
      add_linear(stream + "up", shape.feed_forward, d);
      add_linear(stream + "down", d, shape.feed_forward);
    }
    if (architecture.prompt_tokens == 0) return;
    for (const char* name : {"q", "k", "v", "o"}) add_linear(std::string("cross.") + name, d, d);
  }

  // Angles of the pairs of channels of a head for every video token: [video, 1, head_dim / 2], fp32.
  void make_rotation() {
    std::vector<at::Tensor> parts;
    const auto options = at::TensorOptions().dtype(at::kDouble).device(device);
    for (int axis = 0; axis < 3; ++axis) {
      const int pairs = architecture.axes[static_cast<std::size_t>(axis)] / 2;
      const at::Tensor frequency =
          at::pow(architecture.theta, at::arange(pairs, options).div(-static_cast<double>(pairs)));
      std::array<std::int64_t, 4> size{1, 1, 1, pairs};
      size[static_cast<std::size_t>(axis)] = shape.grid[static_cast<std::size_t>(axis)];
      const at::Tensor place = at::arange(size[static_cast<std::size_t>(axis)], options);
      parts.push_back(at::outer(place, frequency)
                          .view(size)
                          .expand({shape.grid[0], shape.grid[1], shape.grid[2], pairs}));
    }
    const at::Tensor angle = at::cat(parts, -1).reshape({shape.video, 1, shape.head_dim / 2});
    cosine = angle.cos().to(at::kFloat);
    sine = angle.sin().to(at::kFloat);
  }

  at::Tensor linear(const std::string& name, const at::Tensor& x) const {
    return at::linear(x, weights.at(name + ".w"), weights.at(name + ".b"));
  }

  // Layer norm without weights in fp32, then (1 + scale) x + shift, back in bf16.
  at::Tensor modulated(const at::Tensor& x, int index) const {
    const at::Tensor normed = at::layer_norm(x.to(at::kFloat), {shape.width()});
    return normed.mul(modulation[index] + 1.0).add_(modulation[index + 1]).to(at::kBFloat16);
  }

  // Wan normalises q and k over all heads at once, HunyuanVideo over each head.
  at::Tensor normed(const at::Tensor& x) const {
    const bool across = architecture.kind == Kind::cross;
    const at::Tensor rows = across ? x : x.view({1, -1, shape.heads, shape.head_dim});
    return at::rms_norm(rows, {across ? shape.width() : std::int64_t{shape.head_dim}}, std::nullopt,
                        1e-6)
        .view({1, -1, shape.heads, shape.head_dim});
  }

  // [1, N, H, D], pairs of neighbouring channels turned.
  at::Tensor rotated(const at::Tensor& x) const {
    const at::Tensor pairs =
        x.to(at::kFloat).view({1, shape.video, shape.heads, shape.head_dim / 2, 2});
    const at::Tensor a = pairs.select(-1, 0);
    const at::Tensor b = pairs.select(-1, 1);
    const at::Tensor turned =
        at::stack({a * cosine - b * sine, a * sine + b * cosine}, -1).to(at::kBFloat16);
    return turned.view({1, shape.video, shape.heads, shape.head_dim});
  }

  struct Heads {
    at::Tensor q, k, v;  // [1, N, H, D]
  };

  template <typename Attention>
  double timed(const Attention& attention) const {
    const c10::InferenceMode inference;
    if (device.is_cuda()) at::detail::getCUDAHooks().deviceSynchronize(device.index());
    Stopwatch watch(device);
    after_attention(attention(before_attention()));
    return watch.stop();
  }

  Heads before_attention() const {
    Heads heads = stream_heads("video.", video, 0);
    heads.q = rotated(heads.q);
    heads.k = rotated(heads.k);
    if (shape.text == 0) return heads;
    const Heads words = stream_heads("text.", text, 6);
    return {at::cat({heads.q, words.q}, 1), at::cat({heads.k, words.k}, 1),
            at::cat({heads.v, words.v}, 1)};
  }

  Heads stream_heads(const std::string& stream, const at::Tensor& x, int index) const {
    const at::Tensor input = modulated(x, index);
    return {normed(linear(stream + "q", input)), normed(linear(stream + "k", input)),
            linear(stream + "v", input).view({1, -1, shape.heads, shape.head_dim})};
  }

  // `o` [1, N, H, D].
  void after_attention(const at::Tensor& o) const {
    const at::Tensor flat = o.reshape({1, shape.tokens(), shape.width()});
    finish("video.", video, flat.narrow(1, 0, shape.video), 0);
    if (shape.text > 0) finish("text.", text, flat.narrow(1, shape.video, shape.text), 6);
  }

  at::Tensor finish(const std::string& stream, const at::Tensor& input, const at::Tensor& attended,
                    int index) const {
    at::Tensor x = gated(input, linear(stream + "o", attended), index + 2);
    if (architecture.prompt_tokens > 0) x = x + crossed(x);
    const at::Tensor hidden = at::gelu(linear(stream + "up", modulated(x, index + 3)), "tanh");
    return gated(x, linear(stream + "down", hidden), index + 5);
  }

  at::Tensor gated(const at::Tensor& x, const at::Tensor& change, int index) const {
    return (x.to(at::kFloat) + change.to(at::kFloat) * modulation[index]).to(at::kBFloat16);
  }

  at::Tensor crossed(const at::Tensor& x) const {
    const at::Tensor input = at::layer_norm(x, {shape.width()});
    const at::Tensor q = normed(linear("cross.q", input)).transpose(1, 2);
    const at::Tensor k = normed(linear("cross.k", prompt)).transpose(1, 2);
    const at::Tensor v =
        linear("cross.v", prompt).view({1, -1, shape.heads, shape.head_dim}).transpose(1, 2);
    const at::Tensor o = at::scaled_dot_product_attention(q, k, v);
    return linear("cross.o", o.transpose(1, 2).reshape({1, shape.video, shape.width()}));
  }
};

FullBlock::FullBlock(const FullBlockSpec& spec, const Device& device, int threads) {
  try {
    impl_ = std::make_unique<const Impl>(spec, device, threads);
  } catch (const c10::Error& error) {
    throw Error(std::string("dit_block: libtorch: ") + error.what_without_backtrace());
  }
}

FullBlock::~FullBlock() = default;

std::unique_ptr<Record> FullBlock::record(const std::vector<int>& heads) const {
  const c10::InferenceMode inference;
  RecordInfo info = full_block_info(impl_->spec);
  if (!heads.empty()) info.heads = heads;
  const Impl::Heads all = impl_->before_attention();
  return std::make_unique<BlockRecord>(std::move(info), all.q, all.k, all.v);
}

double FullBlock::surroundings_ms() const {
  // Values stand in for the output: the same shape and layout, and no attention.
  return impl_->timed([](const Impl::Heads& heads) { return heads.v; });
}

double FullBlock::whole_ms() const {
  return impl_->timed([](const Impl::Heads& heads) {
    return at::scaled_dot_product_attention(heads.q.transpose(1, 2), heads.k.transpose(1, 2),
                                            heads.v.transpose(1, 2))
        .transpose(1, 2);
  });
}

}  // namespace raingauge::demo
