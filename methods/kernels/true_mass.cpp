// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/true_mass.h"

#include <optional>

#include "methods/kernels/cuda_mass.h"
#include "methods/plan_heads.h"

namespace raingauge {
namespace {

// Some heads of the record in a device's memory.
struct Copies {
  TensorView q, k;
};

std::optional<Copies> copies_of(const RecordView& record, std::int64_t first, std::int64_t heads) {
  if (record.mirror == nullptr) return std::nullopt;
  const auto q = record.mirror->of(record.q.slice_heads(first, heads));
  const auto k = record.mirror->of(record.k.slice_heads(first, heads));
  if (!q || !k) return std::nullopt;
  return Copies{*q, *k};
}

// Orders and layouts alone.
Plan frame_of(const Plan& plan) {
  Plan frame;
  frame.heads = plan.heads;
  frame.tokens = plan.tokens;
  frame.q_order = plan.q_order;
  frame.k_order = plan.k_order;
  frame.q_blocks = plan.q_blocks;
  frame.k_blocks = plan.k_blocks;
  return frame;
}

std::vector<TrueMass> split(const DeviceMass& mass, std::int64_t heads, const Device& device) {
  std::vector<TrueMass> parts;
  const auto pairs = static_cast<std::ptrdiff_t>(mass.mass.size()) / heads;
  for (std::int64_t head = 0; head < heads; ++head) {
    const auto first = mass.mass.begin() + head * pairs;
    parts.push_back({{first, first + pairs}, to_string(device)});
  }
  return parts;
}

std::vector<TrueMass> on_device(const RecordView& record, const Copies& copies, const Plan& frame) {
  const auto scale = static_cast<float>(record.info->scale);
  if (device_mass_supports(copies.q, copies.k, frame, scale)) return {};
  return split(device_block_mass(copies.q, copies.k, frame, record.key_valid, scale),
               copies.q.heads, copies.q.device);
}

}  // namespace

TrueMass true_block_mass(const RecordView& record, std::int64_t head, const Plan& plan,
                         int threads) {
  if (const auto copies = copies_of(record, head, 1)) {
    const auto found = on_device(record, *copies, select_heads(frame_of(plan), {head}));
    if (!found.empty()) return found.front();
  }
  return {block_mass(record, head, plan, threads), "cpu"};
}

std::vector<TrueMass> true_block_masses_on_device(const RecordView& record, const Plan& plan) {
  const auto copies = copies_of(record, 0, record.heads());
  return copies ? on_device(record, *copies, plan) : std::vector<TrueMass>();
}

}  // namespace raingauge
