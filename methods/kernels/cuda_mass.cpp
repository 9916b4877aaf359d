// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/cuda_mass.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "data/error.h"
#include "methods/kernels/cuda/boxes.h"
#include "methods/kernels/device.h"

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>

#include "methods/kernels/cuda/gather.h"
#include "methods/kernels/cuda/mass.h"
#endif

namespace raingauge {

Support device_mass_supports(const TensorView& q, const TensorView& k, const Plan& plan,
                             float scale) {
#ifndef RAINGAUGE_WITH_CUDA
  (void)q, (void)k, (void)plan, (void)scale;
  return "block mass on a device: not built (no CUDA compiler was found)";
#else
  if (q.device.kind != DeviceKind::cuda || !(k.device == q.device)) {
    return "block mass on a device: q and k must be in one CUDA device's memory";
  }
  if (q.dtype == DType::f32 || k.dtype != q.dtype)
    return "block mass on a device: bf16 or f16 only";
  if (q.head_dim < 8 || q.head_dim > 128 || q.head_dim % 8 != 0)
    return "block mass on a device: head_dim must be a multiple of 8 up to 128";
  if (!(scale > 0.0F)) return "block mass on a device: the scale must be positive";
  if (plan.q_order.rows != 1 || plan.k_order.rows != 1 || plan.q_blocks.rows != 1 ||
      plan.k_blocks.rows != 1) {
    return "block mass on a device: all heads must share orders and layouts";
  }
  for (const TensorView* view : {&q, &k}) {
    if (view->head_stride % 8 != 0 || view->token_stride % 8 != 0 ||
        reinterpret_cast<std::uintptr_t>(view->data) % 16 != 0) {
      return "block mass on a device: rows must be 16-byte aligned";
    }
  }
  const auto devices = list_cuda_devices();
  const auto index = static_cast<std::size_t>(q.device.index);
  if (index >= devices.size() || devices[index].major != 9 || devices[index].minor != 0) {
    return "block mass on a device: " + to_string(q.device) + " is not of compute capability 9.0";
  }
  return std::nullopt;
#endif
}

#ifdef RAINGAUGE_WITH_CUDA
namespace {

using cuda_walk::TileItem;

void check(int status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(std::string("block mass on a device: ") + what +
              " failed: " + cudaGetErrorString(static_cast<cudaError_t>(status)));
}

std::vector<TileItem> tiles_of(const Plan& plan, std::int64_t heads) {
  std::vector<TileItem> items;
  const auto tokens = static_cast<std::int32_t>(plan.tokens);
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int32_t q = 0; q < tokens; q += cuda_walk::kMassRows) {
      items.push_back(
          {0, static_cast<std::int32_t>(h), q, std::min(cuda_walk::kMassRows, tokens - q), 0});
    }
  }
  return items;
}

// Everything on the device that groups of heads use one after another.
struct MassJob {
  MassJob(const TensorView& q_view, const TensorView& k_view, const Plan& p,
          const std::uint8_t* key_valid, float softmax_scale, std::int64_t workspace)
      : q(q_view), k(k_view), plan(p), device(q.device), frame(make_box_frame(p, key_valid)) {
    const std::int64_t level_bytes = frame.boxes * plan.tokens * std::int64_t{sizeof(float)};
    group =
        std::clamp<std::int64_t>(workspace / std::max<std::int64_t>(level_bytes, 1), 1, q.heads);
    const std::int64_t length = frame.boxes * frame.box_keys;
    const auto bytes = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    levels = DeviceBuffer(device, bytes(group * level_bytes));
    lse = DeviceBuffer(device, bytes(group * plan.tokens) * sizeof(float));
    mass = DeviceBuffer(device,
                        bytes(group * plan.q_blocks.blocks * plan.k_blocks.blocks) * sizeof(float));
    items = to_device(device, tiles_of(plan, group));
    per_head = static_cast<std::int32_t>(tiles_of(plan, 1).size());
    q_tokens = to_device(device, plan.q_order.index);
    q_offsets = to_device(device, plan.q_blocks.offsets);
    first_box = to_device(device, frame.first_box);
    counter = to_device(device, std::vector<std::int32_t>{0, 0});
    scale_log2 = static_cast<float>(double{softmax_scale} * 1.4426950408889634);
    if (!frame.in_place) {
      slots = to_device(device, frame.slots);
      valid = to_device(device, frame.valid);
      keys = DeviceBuffer(device, bytes(group * length * k.head_dim) * 2);
      unread = DeviceBuffer(device, keys.bytes());
    }
    if (key_valid == nullptr) return;
    std::vector<std::uint8_t> counts(bytes(plan.tokens));
    for (std::int64_t x = 0; x < plan.tokens; ++x) {
      counts[bytes(x)] = key_valid[plan.q_order.token(0, x)];
    }
    row_counts = to_device(device, counts);
  }

  const TensorView& q;
  const TensorView& k;
  const Plan& plan;
  Device device;
  BoxFrame frame;
  std::int64_t group = 1;  // heads at once
  std::int32_t per_head = 0;
  float scale_log2 = 0.0F;
  DeviceBuffer levels, lse, mass, items, q_tokens, q_offsets, first_box, counter, slots, valid,
      keys, unread, row_counts;
};

const void* head_of(const TensorView& x, std::int64_t head) {
  return static_cast<const char*>(x.data) + head * x.head_stride * 2;
}

cuda_walk::KeyTensor keys_of(MassJob& job, std::int64_t first, std::int64_t heads) {
  const TensorView& k = job.k;
  const void* data = head_of(k, first);
  if (job.frame.in_place) return {data, k.head_stride, k.token_stride, k.tokens};
  const std::int64_t length = job.frame.boxes * job.frame.box_keys;
  const cuda_walk::GatherParams params{data,
                                       data,
                                       k.head_stride,
                                       k.token_stride,
                                       k.head_stride,
                                       k.token_stride,
                                       job.slots.as<std::int32_t>(),
                                       0,
                                       job.keys.data(),
                                       job.unread.data(),
                                       length,
                                       static_cast<std::int32_t>(heads),
                                       static_cast<std::int32_t>(k.head_dim)};
  check(cuda_walk::launch_gather(params, nullptr), "gathering keys");
  return {job.keys.data(), length * k.head_dim, k.head_dim, length};
}

void measure(MassJob& job, std::int64_t first, std::int64_t heads) {
  const cuda_walk::KeyTensor keys = keys_of(job, first, heads);
  cuda_walk::MassParams params{};
  cuda_walk::SparseParams& a = params.attend;
  a.q = head_of(job.q, first);
  a.q_head_stride = job.q.head_stride;
  a.q_token_stride = job.q.token_stride;
  a.q_tokens = job.q_tokens.bytes() == 0 ? nullptr : job.q_tokens.as<std::int32_t>();
  a.lse = job.lse.as<float>();
  a.lse_head_stride = job.plan.tokens;
  a.items = job.items.as<TileItem>();
  a.item_count = static_cast<std::int32_t>(heads) * job.per_head;
  a.table = {job.frame.in_place ? nullptr : job.valid.as<std::int32_t>(), 0,
             static_cast<std::int32_t>(job.plan.tokens), job.frame.box_keys};
  a.heads = static_cast<std::int32_t>(heads);
  a.group = 1;
  a.scale_log2 = job.scale_log2;
  a.counter = job.counter.as<std::int32_t>();
  params.boxes = static_cast<std::int32_t>(job.frame.boxes);
  params.positions = static_cast<std::int32_t>(job.plan.tokens);
  params.levels = job.levels.as<float>();
  const auto element =
      job.q.dtype == DType::bf16 ? cuda_walk::Element::bf16 : cuda_walk::Element::f16;
  check(cuda_walk::launch_levels_sm90(params, keys, element, static_cast<int>(job.q.head_dim),
                                      nullptr),
        "the levels");
  const cuda_walk::ShareParams shares{
      job.levels.as<float>(),
      job.lse.as<float>(),
      job.q_offsets.as<std::int32_t>(),
      job.first_box.as<std::int32_t>(),
      job.row_counts.bytes() == 0 ? nullptr : job.row_counts.as<std::uint8_t>(),
      a.heads,
      params.boxes,
      params.positions,
      static_cast<std::int32_t>(job.plan.q_blocks.blocks),
      static_cast<std::int32_t>(job.plan.k_blocks.blocks),
      job.mass.as<float>()};
  check(cuda_walk::launch_shares(shares, nullptr), "the shares");
}

}  // namespace

DeviceMass device_block_mass(const TensorView& q, const TensorView& k, const Plan& plan,
                             const std::uint8_t* key_valid, float scale,
                             std::int64_t workspace_bytes) {
  if (const Support reason = device_mass_supports(q, k, plan, scale)) throw Unsupported(*reason);
  const DeviceGuard guard(q.device);
  MassJob job(q, k, plan, key_valid, scale, workspace_bytes);
  const auto pairs = static_cast<std::size_t>(plan.q_blocks.blocks * plan.k_blocks.blocks);
  const auto tokens = static_cast<std::size_t>(plan.tokens);
  DeviceMass result;
  result.mass.resize(static_cast<std::size_t>(q.heads) * pairs);
  result.lse.resize(static_cast<std::size_t>(q.heads) * tokens);
  std::vector<float> by_position(static_cast<std::size_t>(job.group) * tokens);
  for (std::int64_t first = 0; first < q.heads; first += job.group) {
    const std::int64_t heads = std::min(job.group, q.heads - first);
    const auto count = static_cast<std::size_t>(heads);
    measure(job, first, heads);
    synchronize_device(q.device);
    job.mass.copy_to_host(result.mass.data() + static_cast<std::size_t>(first) * pairs,
                          count * pairs * sizeof(float));
    job.lse.copy_to_host(by_position.data(), count * tokens * sizeof(float));
    for (std::size_t h = 0; h < count; ++h) {
      float* lse = result.lse.data() + (static_cast<std::size_t>(first) + h) * tokens;
      for (std::int64_t x = 0; x < plan.tokens; ++x) {
        lse[plan.q_order.token(0, x)] = by_position[h * tokens + static_cast<std::size_t>(x)];
      }
    }
  }
  for (std::size_t i = 0; i < result.mass.size(); ++i) {
    if (std::isfinite(result.mass[i])) continue;
    throw NotFinite("block mass on a device: the softmax of a query in head " +
                    std::to_string(i / pairs) +
                    " is not finite: Q or K of this head holds NaN, Inf or values whose product "
                    "overflows");
  }
  return result;
}
#else
DeviceMass device_block_mass(const TensorView& q, const TensorView& k, const Plan& plan,
                             const std::uint8_t* /*key_valid*/, float scale,
                             std::int64_t /*workspace_bytes*/) {
  throw Unsupported(*device_mass_supports(q, k, plan, scale));
}
#endif

}  // namespace raingauge
