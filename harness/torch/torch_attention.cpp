// SPDX-License-Identifier: Apache-2.0
// libraingauge_torch.so: our methods and kernels as operators of torch, for anybody's pipeline.
//   torch.ops.load_library("libraingauge_torch.so")
//   o = torch.ops.raingauge.attention(q, k, v, grid, text, method_yaml, step, layer)
// Inference only: the result carries no gradient.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <tuple>

#include "data/error.h"
#include "harness/live_attention.h"
#include "methods/kernels/device.h"

namespace raingauge {
namespace {

// Sizes that the kernel covers: others are padded with zeros up to the next.
std::int64_t padded_head_dim(std::int64_t head_dim, bool cuda) {
  if (cuda) return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : head_dim;
  return (head_dim + 7) / 8 * 8;
}

// The visual runs of `grid` (frames, height, width each) in order, and the text where it stands.
Segments segments_of(c10::IntArrayRef grid, c10::IntArrayRef text, std::int64_t tokens) {
  if (grid.empty() || grid.size() % 3 != 0) {
    throw Error("raingauge::attention: grid has " + std::to_string(grid.size()) +
                " values; needed are frames, height, width of every visual run, in tokens");
  }
  if (text.size() != 0 && text.size() != 2) {
    throw Error("raingauge::attention: text has " + std::to_string(text.size()) +
                " values; allowed are [] and [start, length]");
  }
  Segments segments;
  std::int64_t at = 0;
  const auto add_text = [&] {
    if (text.empty() || text[0] != at || text[1] <= 0) return;
    segments.push_back({Role::text, at, text[1], 0, 0, 0});
    at += text[1];
  };
  for (std::size_t i = 0; i < grid.size(); i += 3) {
    add_text();
    const Role role = i > 0 ? Role::reference : grid[i] > 1 ? Role::video : Role::image;
    const std::int64_t length = grid[i] * grid[i + 1] * grid[i + 2];
    segments.push_back({role, at, length, static_cast<int>(grid[i]), static_cast<int>(grid[i + 1]),
                        static_cast<int>(grid[i + 2])});
    at += length;
  }
  add_text();
  check_segments(segments, tokens, "raingauge::attention: grid and text");
  if (!text.empty() && segments.size() == grid.size() / 3) {
    throw Error("raingauge::attention: grid and text: no text can begin at token " +
                std::to_string(text[0]) + "; it stands before, between or after the visual runs");
  }
  return segments;
}

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::f32;
    case at::kHalf:
      return DType::f16;
    case at::kBFloat16:
      return DType::bf16;
    default:
      throw Error(std::string("raingauge::attention: q, k, v are ") +
                  c10::toString(tensor.scalar_type()) + "; allowed are float32, float16, bfloat16");
  }
}

Device place_of(const at::Tensor& tensor) {
  if (tensor.is_cuda()) return {DeviceKind::cuda, tensor.get_device()};
  if (tensor.is_cpu()) return {};
  throw Error("raingauge::attention: tensors on " + tensor.device().str() +
              "; allowed are cpu and cuda");
}

// `tensor` is [heads, tokens, head_dim] with contiguous head_dim.
TensorView view_of(const at::Tensor& tensor) {
  TensorView view = contiguous_view(tensor.const_data_ptr(), dtype_of(tensor), tensor.size(0),
                                    tensor.size(1), tensor.size(2), place_of(tensor));
  view.head_stride = tensor.stride(0);
  view.token_stride = tensor.stride(1);
  return view;
}

at::Tensor readable(const at::Tensor& tensor) {
  // Plans are made on the host: in CUDA memory one block of memory is copied there at once.
  return tensor.is_cuda() || tensor.stride(-1) != 1 ? tensor.contiguous() : tensor;
}

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if ((q.dim() != 3 && q.dim() != 4) || q.sizes() != k.sizes() || q.sizes() != v.sizes()) {
    throw Error("raingauge::attention: q, k, v are " +
                c10::str(q.sizes(), ", ", k.sizes(), ", ", v.sizes()) +
                "; needed are three equal [batch, heads, tokens, head_dim] or [heads, tokens, "
                "head_dim] (expand key heads to query heads; self-attention only)");
  }
  if (q.scalar_type() != k.scalar_type() || q.scalar_type() != v.scalar_type() ||
      q.device() != k.device() || q.device() != v.device()) {
    throw Error("raingauge::attention: q, k, v must share one dtype and one device");
  }
}

// Everything that lives between calls: one LiveAttention, with its states, for each way to attend.
class Sessions {
 public:
  using Key = std::tuple<std::string, std::string, std::string, std::string>;

  static Sessions& instance() {
    static Sessions sessions;
    return sessions;
  }

  LiveAttention& get(const std::string& generation, const std::string& method,
                     const std::string& kernel, const Device& device) {
    const std::string name = !kernel.empty()                   ? kernel
                             : device.kind == DeviceKind::cuda ? "cuda"
                                                               : "cpu";
    auto& entry = open_[{generation, method, name, to_string(device)}];
    if (!entry) {
      entry = std::make_unique<LiveAttention>(parse_arm(method), name, Segments(), generation,
                                              device, at::get_num_threads());
    }
    return *entry;
  }

  void reset(const std::string& generation) {
    std::erase_if(open_, [&](const auto& item) { return std::get<0>(item.first) == generation; });
  }

  nlohmann::json statistics(const std::string& generation) const {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [key, live] : open_) {
      if (std::get<0>(key) != generation) continue;
      list.push_back({{"method", std::get<1>(key)},
                      {"kernel", std::get<2>(key)},
                      {"device", std::get<3>(key)},
                      {"calls", live->calls()},
                      {"calls_planned_on_device", live->calls_planned_on_device()},
                      {"density_pairs", live->density()},
                      {"milliseconds", live->milliseconds()}});
    }
    return list;
  }

  std::mutex mutex;

 private:
  std::map<Key, std::unique_ptr<LiveAttention>> open_;
};

// One batch item, [heads, tokens, head_dim]; the result is float32.
at::Tensor attend_item(LiveAttention& live, const Site& site, double scale,
                       const Segments& segments, const std::array<at::Tensor, 3>& qkv,
                       const std::uint8_t* key_valid) {
  const at::Tensor& q = qkv[0];
  const std::int64_t dim = q.size(2);
  const std::int64_t padded_dim = padded_head_dim(dim, q.is_cuda());
  std::array<at::Tensor, 3> padded;
  LiveCall call{site, scale, view_of(qkv[0]), view_of(qkv[1]), view_of(qkv[2]), nullptr, key_valid};
  if (padded_dim != dim) {
    std::array<TensorView, 3> views;
    for (std::size_t i = 0; i < 3; ++i) {
      padded[i] = at::constant_pad_nd(qkv[i], {0, padded_dim - dim}).contiguous();
      views[i] = view_of(padded[i]);
    }
    call.padded = views;
  }
  const at::Tensor o = at::empty({q.size(0), q.size(1), padded_dim}, q.options().dtype(at::kFloat));
  call.o = o.mutable_data_ptr<float>();
  // torch's current stream may be another than the default one, on which our kernels run.
  if (q.is_cuda()) synchronize_device(place_of(q));
  live.attend(call, segments);
  return padded_dim == dim ? o : o.narrow(2, 0, dim);
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     c10::IntArrayRef grid, c10::IntArrayRef text, const std::string& method,
                     std::int64_t step, std::int64_t layer, std::optional<double> scale,
                     const std::string& branch, const std::string& expert, std::int64_t batch_item,
                     const std::optional<at::Tensor>& key_valid, const std::string& kernel,
                     const std::string& generation) {
  check_shapes(q, k, v);
  const Segments segments = segments_of(grid, text, q.size(-2));
  std::vector<std::uint8_t> valid;
  if (key_valid && key_valid->defined()) {
    if (key_valid->dim() != 1 || key_valid->size(0) != q.size(-2)) {
      throw Error("raingauge::attention: key_valid must be [tokens]");
    }
    const at::Tensor host = key_valid->to(at::kCPU, at::kByte).contiguous();
    valid.assign(host.const_data_ptr<std::uint8_t>(),
                 host.const_data_ptr<std::uint8_t>() + host.numel());
  }
  const std::lock_guard lock(Sessions::instance().mutex);
  LiveAttention& live = Sessions::instance().get(generation, method, kernel, place_of(q));
  const bool batched = q.dim() == 4;
  at::Tensor result = at::empty(q.sizes(), q.options());
  for (std::int64_t b = 0; b < (batched ? q.size(0) : 1); ++b) {
    const auto item = [&](const at::Tensor& x) { return readable(batched ? x[b] : x); };
    const Site site{static_cast<int>(step), static_cast<int>(layer), expert, branch,
                    static_cast<int>(batch_item + b)};
    const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(-1))));
    (batched ? result[b] : result)
        .copy_(attend_item(live, site, factor, segments, {item(q), item(k), item(v)},
                           valid.empty() ? nullptr : valid.data()));
  }
  return result;
}

void reset(const std::string& generation) {
  const std::lock_guard lock(Sessions::instance().mutex);
  Sessions::instance().reset(generation);
}

std::string statistics(const std::string& generation) {
  const std::lock_guard lock(Sessions::instance().mutex);
  return Sessions::instance().statistics(generation).dump();
}

std::string built_for() { return RAINGAUGE_TORCH_VERSION; }

}  // namespace

// attention: q, k, v [batch, heads, tokens, head_dim] or [heads, tokens, head_dim], after QK-norm and
// RoPE, on the CPU or in CUDA memory; the result has their shape, dtype and device. grid: frames,
// height, width of every visual run; text: [] or [start, length]. method: an arm,
// "{method: rainfusion2, density: 0.2, dense_steps: 2}". State is kept from step to step for each
// (generation, method, expert, branch, batch item, layer). key_valid: [tokens], 0 = masked key.
TORCH_LIBRARY(raingauge, library) {
  library.def(
      "attention(Tensor q, Tensor k, Tensor v, int[] grid, int[] text, str method, int step, "
      "int layer, *, float? scale=None, str branch='cond', str expert='', int batch_item=0, "
      "Tensor? key_valid=None, str kernel='', str generation='') -> Tensor");
  library.def("reset(str generation='') -> ()", &reset);
  library.def("statistics(str generation='') -> str", &statistics);
  library.def("built_for() -> str", &built_for);
}

TORCH_LIBRARY_IMPL(raingauge, CompositeExplicitAutograd, library) {
  library.impl("attention", &attention);
}

}  // namespace raingauge
