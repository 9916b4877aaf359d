// SPDX-License-Identifier: Apache-2.0
// How fast is a plan on an NVIDIA GPU? Host side of the block-sparse CUDA kernel: what it covers, the
// work list of a plan, its device copies, the launch.
#include "data/error.h"
#include "methods/kernels/cuda/work.h"
#include "methods/kernels/kernel.h"
#include "methods/kernels/threads.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>

#include "methods/kernels/cuda/forward.h"
#include "methods/kernels/cuda_hopper.h"
#include "methods/kernels/device.h"
#include "methods/kernels/reference.h"
#endif

namespace raingauge {
namespace {

using cuda_walk::KeyRun;
using cuda_walk::WorkItem;

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

// Valid keys before every position of one key order: [tokens + 1].
std::vector<std::int32_t> valid_before(const Plan& plan, std::int64_t head,
                                       const std::uint8_t* key_valid) {
  std::vector<std::int32_t> before(index_of(plan.tokens + 1), 0);
  for (std::int64_t x = 0; x < plan.tokens; ++x) {
    const bool valid = key_valid == nullptr || key_valid[plan.k_order.token(head, x)] != 0;
    before[index_of(x + 1)] = before[index_of(x)] + (valid ? 1 : 0);
  }
  return before;
}

struct HeadWork {
  std::vector<KeyRun> runs;
  std::vector<WorkItem> items;  // first_run counts from this head's first run
};

// Appends the runs of one query block and returns the stream's length.
std::int32_t append_runs(const Plan& plan, std::int64_t head, std::int64_t block,
                         const std::vector<std::int32_t>& before, std::vector<KeyRun>& runs) {
  const std::size_t first = runs.size();
  const std::int32_t* columns = plan.lists.begin(head, block);
  std::int32_t keys = 0;
  for (std::int64_t c = 0; c < plan.lists.count(head, block); ++c) {
    const std::int32_t begin = before[index_of(plan.k_blocks.begin(head, columns[c]))];
    const std::int32_t end = before[index_of(plan.k_blocks.end(head, columns[c]))];
    if (begin == end) continue;
    const std::int32_t shift = begin - keys;
    keys += end - begin;
    if (runs.size() > first && runs.back().shift == shift) {
      runs.back().stream_end = keys;  // neighbours: one run
    } else {
      runs.push_back({shift, keys});
    }
  }
  return keys;
}

HeadWork make_head_work(const Plan& plan, std::int64_t head, const std::uint8_t* key_valid,
                        int row_tile) {
  HeadWork work;
  const std::vector<std::int32_t> before = valid_before(plan, head, key_valid);
  for (std::int64_t block = 0; block < plan.q_blocks.blocks; ++block) {
    const std::int32_t end = plan.q_blocks.end(head, block);
    const auto first_run = static_cast<std::int64_t>(work.runs.size());
    if (plan.q_blocks.size(head, block) == 0) continue;
    const std::int32_t keys = append_runs(plan, head, block, before, work.runs);
    for (std::int32_t q = plan.q_blocks.begin(head, block); q < end; q += row_tile) {
      work.items.push_back(
          {first_run, static_cast<std::int32_t>(head), q, std::min(row_tile, end - q), keys});
    }
  }
  return work;
}

int choose_row_tile(const Plan& plan) {
  for (std::int64_t row = 0; row < plan.q_blocks.rows; ++row) {
    for (std::int64_t b = 0; b < plan.q_blocks.blocks; ++b) {
      if (plan.q_blocks.size(row, b) > 64) return 128;
    }
  }
  return 64;
}

double tiles_of(std::int64_t count, std::int64_t tile) {
  return static_cast<double>((count + tile - 1) / tile);
}

double executed_share(const CudaWork& work, const Plan& plan) {
  double executed = 0.0;
  for (const WorkItem& item : work.items) executed += cuda_walk::tile_count(item);
  return executed / (static_cast<double>(plan.heads) * tiles_of(plan.tokens, work.row_tile) *
                     tiles_of(plan.tokens, cuda_walk::kKeyTile));
}

void check_fits(std::size_t count, const char* what) {
  constexpr auto kLimit = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (count <= kLimit) return;
  throw Unsupported("cuda: " + std::to_string(count) + " " + what + "; at most " +
                    std::to_string(kLimit) + " are possible");
}

}  // namespace

CudaWork make_cuda_work(const Plan& plan, const std::uint8_t* key_valid, int threads) {
  CudaWork work;
  work.row_tile = choose_row_tile(plan);
  for (std::int64_t row = 0; row < plan.k_order.rows; ++row) {
    for (std::int64_t x = 0; x < plan.tokens; ++x) {
      const std::int32_t token = plan.k_order.token(row, x);
      if (key_valid == nullptr || key_valid[token] != 0) work.key_tokens.push_back(token);
    }
  }
  work.valid_keys = static_cast<std::int64_t>(work.key_tokens.size()) / plan.k_order.rows;
  std::vector<HeadWork> heads(index_of(plan.heads));
  parallel_for(threads, plan.heads, [&](std::int64_t head, int) {
    heads[index_of(head)] = make_head_work(plan, head, key_valid, work.row_tile);
  });
  for (HeadWork& head : heads) {
    const auto base = static_cast<std::int64_t>(work.runs.size());
    for (WorkItem& item : head.items) item.first_run += base;
    work.runs.insert(work.runs.end(), head.runs.begin(), head.runs.end());
    work.items.insert(work.items.end(), head.items.begin(), head.items.end());
  }
  work.runs.push_back({0, 0});
  check_fits(work.items.size(), "work items");
  std::stable_sort(work.items.begin(), work.items.end(), [](const WorkItem& a, const WorkItem& b) {
    return cuda_walk::tile_count(a) > cuda_walk::tile_count(b);
  });
  work.density_tiles = executed_share(work, plan);
  return work;
}

KernelSpec cuda_kernel_spec() {
  KernelSpec spec{
      .name = "cuda",
      .help =
          "our block-sparse CUDA kernels (wgmma on sm_90, mma.sync from sm_80 on), bf16 and "
          "f16, head_dim 64 and 128 (on sm_90 every multiple of 8 up to 128)",
      .cpu = false,
      .cuda = true,
      .dense_only = false,
      .folds_permutation = true,
      .converts_output = true};
#ifndef RAINGAUGE_WITH_CUDA
  spec.not_built = "not built (no CUDA compiler was found)";
#endif
  return spec;
}

#ifdef RAINGAUGE_WITH_CUDA
namespace {

// For the mma.sync kernel.
struct CudaPrepared final : Prepared {
  double density_tiles() const override { return tiles; }
  Device device;
  std::int64_t heads = 0, tokens = 0;
  int row_tile = 128;
  std::int32_t item_count = 0;
  std::int64_t q_tokens_stride = 0, key_tokens_stride = 0;
  DeviceBuffer q_tokens, key_tokens, runs, items;
  double tiles = 0.0;
};

void check_launch(int status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(std::string("cuda: ") + what +
              " failed: " + cudaGetErrorString(static_cast<cudaError_t>(status)));
}

// 16-byte loads: address and strides must be whole multiples.
Support check_alignment(const TensorView& view, const char* name) {
  if (view.head_stride % 8 == 0 && view.token_stride % 8 == 0 &&
      reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0) {
    return std::nullopt;
  }
  return std::string("cuda: ") + name +
         " must start at a multiple of 16 bytes and have strides of " +
         "multiples of 8 elements; its strides are " + std::to_string(view.head_stride) + " and " +
         std::to_string(view.token_stride);
}

class CudaKernel final : public Kernel {
 public:
  explicit CudaKernel(const KernelOptions& options)
      : options_(options), spec_(cuda_kernel_spec()) {}
  const KernelSpec& spec() const override { return spec_; }

  Support supports(const Plan& plan, const AttendInputs& inputs) const override {
    const TensorView& q = inputs.q;
    if (q.device.kind != DeviceKind::cuda) return "cuda: inputs must be in CUDA memory";
    if (q.dtype == DType::f32) return "cuda: f32 is not covered; allowed are bf16 and f16";
    if (q.head_dim < 8 || q.head_dim > 128 || q.head_dim % 8 != 0) {
      return "cuda: head_dim " + std::to_string(q.head_dim) +
             " is not covered; allowed are multiples of 8 up to 128";
    }
    if (q.head_dim != 64 && q.head_dim != 128 && !hopper_.covers(inputs)) {
      return "cuda: head_dim " + std::to_string(q.head_dim) +
             " is covered on sm_90 with a positive softmax scale alone; elsewhere 64 and 128 are";
    }
    if (!plan.terms.empty()) {
      return "cuda: the plan adds the output term `" + plan.terms.front().name + "`";
    }
    for (const auto& [view, name] :
         {std::pair{&inputs.q, "q"}, {&inputs.k, "k"}, {&inputs.v, "v"}}) {
      if (const Support reason = check_alignment(*view, name)) return reason;
    }
    return check_capability(q.device);
  }

  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) override {
    check_attend_inputs(plan, inputs);
    if (const Support reason = supports(plan, inputs)) throw Unsupported(*reason);
    if (hopper_.covers(inputs)) return hopper_.prepare(plan, inputs, options_.threads);
    const CudaWork work = make_cuda_work(plan, inputs.key_valid, options_.threads);
    const Device& device = inputs.q.device;
    auto prepared = std::make_unique<CudaPrepared>();
    prepared->device = device;
    prepared->heads = plan.heads;
    prepared->tokens = plan.tokens;
    prepared->row_tile = work.row_tile;
    prepared->item_count = static_cast<std::int32_t>(work.items.size());
    prepared->q_tokens_stride = plan.q_order.rows == 1 ? 0 : plan.tokens;
    prepared->key_tokens_stride = plan.k_order.rows == 1 ? 0 : work.valid_keys;
    prepared->q_tokens = to_device(device, plan.q_order.index);
    prepared->key_tokens = to_device(device, work.key_tokens);
    prepared->runs = to_device(device, work.runs);
    prepared->items = to_device(device, work.items);
    prepared->tiles = work.density_tiles;
    return prepared;
  }

  void attend(const Prepared& prepared, const AttendInputs& inputs,
              const AttendOutputs& outputs) override {
    for (const TensorView* view : {&inputs.q, &inputs.k, &inputs.v}) {
      if (view->device.kind != DeviceKind::cuda || !(view->device == inputs.q.device)) {
        throw Error("cuda: attend() got q, k or v in other memory than one CUDA device's: " +
                    to_string(view->device));
      }
    }
    device_ = inputs.q.device;
    if (hopper_.owns(prepared)) {
      detail_ = "wgmma";
      hopper_.attend(prepared, inputs, outputs);
      return;
    }
    const auto* mine = dynamic_cast<const CudaPrepared*>(&prepared);
    if (mine == nullptr) throw Error("cuda: attend() got what another kernel prepared");
    detail_ = "mma.sync";
    const TensorView& q = inputs.q;
    if (q.heads != mine->heads || q.tokens != mine->tokens || !(q.device == mine->device)) {
      throw Error("cuda: attend() got inputs of another shape or device than prepare()");
    }
    const DeviceGuard guard(q.device);
    const auto element =
        q.dtype == DType::bf16 ? cuda_walk::Element::bf16 : cuda_walk::Element::f16;
    cuda_walk::ForwardParams params = params_of(*mine, inputs, outputs);
    if (params.o == nullptr) {  // only timed: this kernel writes fp32 and nothing else
      const auto bytes = static_cast<std::size_t>(q.heads * q.tokens * q.head_dim) * sizeof(float);
      if (unread_.bytes() < bytes) unread_ = DeviceBuffer(q.device, bytes);
      params.o = unread_.as<float>();
    }
    check_launch(
        cuda_walk::launch_forward(params, element, static_cast<int>(q.head_dim), mine->row_tile),
        "the launch");
  }

  bool takes_device_lists(const Plan& frame, const AttendInputs& inputs) const override {
    return !supports(frame, inputs) && hopper_.covers(inputs) && hopper_.takes_lists(frame);
  }
  KeyBoxes key_boxes(const Plan& frame, const DeviceLists& lists,
                     const AttendInputs& inputs) override {
    return hopper_.key_boxes(frame, lists, inputs);
  }
  std::unique_ptr<Prepared> prepare_on_device(const Plan& frame, const DeviceLists& lists,
                                              const AttendInputs& inputs) override {
    return hopper_.prepare_on_device(frame, lists, inputs);
  }
  bool permutes(const Prepared& prepared) const override {
    return hopper_.owns(prepared) && hopper_.permutes(prepared);
  }
  void permute(const Prepared& prepared, const AttendInputs& inputs) override {
    hopper_.permute(prepared, inputs);
  }

  void synchronize() override { synchronize_device(device_); }
  std::string detail() const override { return detail_; }

 private:
  static Support check_capability(const Device& device) {
    static const std::vector<CudaInfo> kDevices = list_cuda_devices();
    if (device.index < 0 || index_of(device.index) >= kDevices.size()) {
      return "cuda: there is no device " + to_string(device);
    }
    const CudaInfo& info = kDevices[index_of(device.index)];
    if (info.major >= 8) return std::nullopt;
    return "cuda: " + info.name + " is sm_" + std::to_string(info.major) +
           std::to_string(info.minor) + "; sm_80 or later is needed";
  }

  static cuda_walk::ForwardParams params_of(const CudaPrepared& mine, const AttendInputs& inputs,
                                            const AttendOutputs& outputs) {
    cuda_walk::ForwardParams params{};
    params.q = inputs.q.data;
    params.k = inputs.k.data;
    params.v = inputs.v.data;
    params.q_head_stride = inputs.q.head_stride;
    params.q_token_stride = inputs.q.token_stride;
    params.k_head_stride = inputs.k.head_stride;
    params.k_token_stride = inputs.k.token_stride;
    params.v_head_stride = inputs.v.head_stride;
    params.v_token_stride = inputs.v.token_stride;
    params.o = outputs.o;
    params.lse = outputs.lse;
    params.tokens = mine.tokens;
    params.q_tokens = mine.q_tokens.as<std::int32_t>();
    params.q_tokens_stride = mine.q_tokens_stride;
    params.key_tokens = mine.key_tokens.as<std::int32_t>();
    params.key_tokens_stride = mine.key_tokens_stride;
    params.runs = mine.runs.as<KeyRun>();
    params.items = mine.items.as<WorkItem>();
    params.item_count = mine.item_count;
    params.scale_log2 = static_cast<float>(double{inputs.scale} * 1.4426950408889634);
    return params;
  }

  KernelOptions options_;
  KernelSpec spec_;
  Device device_;
  HopperForward hopper_;
  DeviceBuffer unread_;
  std::string detail_;
};

}  // namespace

std::unique_ptr<Kernel> make_cuda_kernel(const KernelOptions& options) {
  return std::make_unique<CudaKernel>(options);
}
#else
std::unique_ptr<Kernel> make_cuda_kernel(const KernelOptions&) {
  throw Unsupported("kernel `cuda`: " + std::string(cuda_kernel_spec().not_built));
}
#endif

}  // namespace raingauge
