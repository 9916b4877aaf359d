// SPDX-License-Identifier: Apache-2.0
// Block-sparse attention on the CPU. One head at a time: its K and V are packed once (token order,
// conversion and transposition in one gather), then every query block streams over its list of
// packed keys with an online softmax. bf16 inputs use bf16 products (matrix tiles or pairs) where the
// CPU has them (P is then rounded to bf16 as well, the row sums are not); everything else is fp32.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "data/error.h"
#include "data/plan_keys.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/packed_head.h"
#include "methods/kernels/kernel.h"
#include "methods/kernels/reference.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using cpu::kMaxTileRows;
using cpu::kUnit;

// Up to kMaxTileRows rows of one query block: one item of the queue.
struct Item {
  std::int32_t block = 0;
  std::int32_t first = 0;  // position in block order
  std::int32_t rows = 0;
  std::int64_t units = 0;  // packed units that its list covers
};

class CpuPrepared final : public Prepared {
 public:
  CpuPrepared(const Plan& plan, const std::uint8_t* key_valid, int unit_multiple) : plan_(plan) {
    items_.resize(static_cast<std::size_t>(plan.heads));
    double executed = 0.0;
    double all = 0.0;
    std::vector<std::int64_t> units;
    const std::int64_t group = std::int64_t{kUnit} * unit_multiple;
    for (std::int64_t head = 0; head < plan.heads; ++head) {
      if (head == 0 || !keys_shared(plan, key_valid)) {
        units = valid_keys(plan, key_valid, head);
        for (std::int64_t& count : units) {
          count = (count + group - 1) / group * unit_multiple;
        }
      }
      std::int64_t total = 0;
      for (const std::int64_t count : units) {
        total += count;
      }
      executed += add_items(head, units);
      all += static_cast<double>(plan.tokens) * static_cast<double>(total);
    }
    density_tiles_ = all > 0.0 ? executed / all : 0.0;
  }

  double density_tiles() const override { return density_tiles_; }
  const Plan& plan() const { return plan_; }
  const std::vector<Item>& items(std::int64_t head) const {
    return items_[static_cast<std::size_t>(head)];
  }

 private:
  // Longest first; equals stay in block order. Returns the executed (row, unit) pairs.
  double add_items(std::int64_t head, const std::vector<std::int64_t>& units) {
    std::vector<Item>& items = items_[static_cast<std::size_t>(head)];
    double executed = 0.0;
    for (std::int64_t b = 0; b < plan_.q_blocks.blocks; ++b) {
      const std::int32_t size = plan_.q_blocks.size(head, b);
      if (size == 0) {
        continue;
      }
      std::int64_t length = 0;
      const std::int32_t* columns = plan_.lists.begin(head, b);
      for (std::int64_t c = 0; c < plan_.lists.count(head, b); ++c) {
        length += units[static_cast<std::size_t>(columns[c])];
      }
      const std::int32_t tiles = (size + kMaxTileRows - 1) / kMaxTileRows;
      for (std::int32_t t = 0; t < tiles; ++t) {  // of nearly equal size
        const auto first = static_cast<std::int32_t>(std::int64_t{size} * t / tiles);
        const auto last = static_cast<std::int32_t>(std::int64_t{size} * (t + 1) / tiles);
        items.push_back({static_cast<std::int32_t>(b), plan_.q_blocks.begin(head, b) + first,
                         last - first, length});
      }
      executed += static_cast<double>(size) * static_cast<double>(length);
    }
    std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
      return a.rows * a.units > b.rows * b.units;
    });
    return executed;
  }

  const Plan& plan_;
  std::vector<std::vector<Item>> items_;  // per head
  double density_tiles_ = 0.0;
};

// Scratch of one worker.
struct Workspace {
  explicit Workspace(const cpu::PackShape& shape)
      : q(cpu::make_buffer<std::uint32_t>(static_cast<std::size_t>(shape.depth()) * kMaxTileRows)),
        scratch(cpu::make_buffer<float>(cpu::scratch_floats(shape.head_dim))) {}

  cpu::Buffer<std::uint32_t> q;
  cpu::Buffer<float> scratch;
  std::vector<std::int32_t> units;
  float* out[kMaxTileRows] = {};
  float lse[kMaxTileRows] = {};
};

// What all items of one head share.
struct HeadJob {
  const cpu::LevelOps& ops;
  const Plan& plan;
  const AttendInputs& inputs;
  const AttendOutputs& outputs;
  std::int64_t head;
  cpu::PackShape shape;
  const cpu::UnitMap& map;
  const cpu::HeadPacker& packed;
  cpu::ScaleParts scale;
};

void run_item(const HeadJob& job, const Item& item, Workspace& work) {
  const std::int64_t dim = job.shape.head_dim;
  const std::int64_t base = job.head * job.plan.tokens;
  for (std::int32_t r = 0; r < item.rows; ++r) {
    const std::int64_t token = job.plan.q_order.token(job.head, item.first + r);
    job.ops.pack_q(job.shape, job.inputs.q.row(job.head, token), job.scale.factor,
                   work.q.get() + r * job.shape.depth());
    work.out[r] = job.outputs.o + (base + token) * dim;
  }
  work.units.clear();
  const std::int32_t* columns = job.plan.lists.begin(job.head, item.block);
  for (std::int64_t c = 0; c < job.plan.lists.count(job.head, item.block); ++c) {
    const auto block = static_cast<std::size_t>(columns[c]);
    for (std::int64_t u = job.map.block_units[block]; u < job.map.block_units[block + 1]; ++u) {
      work.units.push_back(static_cast<std::int32_t>(u));
    }
  }
  cpu::AttendTile tile;
  tile.shape = job.shape;
  tile.rows = item.rows;
  tile.q = work.q.get();
  tile.k = job.packed.k();
  tile.v = job.packed.v();
  tile.bias = job.map.bias.data();
  tile.full = job.map.full.data();
  tile.units = work.units.data();
  tile.unit_count = static_cast<std::int64_t>(work.units.size());
  tile.log2_scale = job.scale.log2_scale();
  tile.scratch = work.scratch.get();
  tile.out = work.out;
  tile.lse = work.lse;
  job.ops.attend(tile);
  if (job.outputs.lse == nullptr) {
    return;
  }
  for (std::int32_t r = 0; r < item.rows; ++r) {
    job.outputs.lse[base + job.plan.q_order.token(job.head, item.first + r)] = work.lse[r];
  }
}

class CpuKernel final : public Kernel {
 public:
  explicit CpuKernel(const KernelOptions& options);

  const KernelSpec& spec() const override { return spec_; }

  Support supports(const Plan& plan, const AttendInputs& inputs) const override {
    if (!plan.terms.empty())
      return "the plan adds '" + plan.terms.front().name + "' to the masked output";
    if (inputs.q.device.kind != DeviceKind::cpu) {
      return "inputs are on " + to_string(inputs.q.device) + "; cpu reads host memory";
    }
    if (inputs.q.head_dim % 8 != 0 || inputs.q.head_dim > cpu::kMaxHeadDim) {
      return "head_dim " + std::to_string(inputs.q.head_dim) +
             "; cpu covers multiples of 8 up to " + std::to_string(cpu::kMaxHeadDim);
    }
    return std::nullopt;
  }

  std::unique_ptr<Prepared> prepare(const Plan& plan, const AttendInputs& inputs) override {
    check(plan, inputs);
    const int dim = static_cast<int>(inputs.q.head_dim);
    return std::make_unique<CpuPrepared>(plan, inputs.key_valid,
                                         ops_.shape(inputs.q.dtype, dim).unit_multiple());
  }

  void attend(const Prepared& prepared, const AttendInputs& inputs,
              const AttendOutputs& outputs) override;

 private:
  void check(const Plan& plan, const AttendInputs& inputs) const {
    if (const Support reason = supports(plan, inputs)) {
      throw Unsupported("cpu: " + *reason);
    }
    check_attend_inputs(plan, inputs);
  }

  KernelSpec spec_;
  const cpu::LevelOps& ops_;
  int threads_ = 1;
  // Packed K and V of one head and the workers' scratch, kept from call to call: memory fresh from
  // the system costs as much as the packing itself.
  std::mutex memory_mutex_;
  cpu::PackShape memory_shape_;
  std::unique_ptr<cpu::HeadPacker> packer_;
  std::vector<Workspace> workspaces_;
};

void CpuKernel::attend(const Prepared& prepared, const AttendInputs& inputs,
                       const AttendOutputs& outputs) {
  const auto* ready = dynamic_cast<const CpuPrepared*>(&prepared);
  if (ready == nullptr || outputs.o == nullptr) {
    throw Error("cpu: attend() needs what its own prepare() returned, and memory for the output");
  }
  const Plan& plan = ready->plan();
  check(plan, inputs);
  const cpu::PackShape shape = ops_.shape(inputs.q.dtype, static_cast<int>(inputs.q.head_dim));
  const cpu::ScaleParts scale = cpu::split_scale(static_cast<double>(inputs.scale));
  const std::lock_guard lock(memory_mutex_);
  if (packer_ == nullptr || !(shape == memory_shape_)) {
    packer_ = std::make_unique<cpu::HeadPacker>(ops_, shape, shape);
    workspaces_.clear();
    for (int worker = 0; worker < threads_; ++worker) {
      workspaces_.emplace_back(shape);
    }
    memory_shape_ = shape;
  }
  cpu::HeadPacker& packed = *packer_;
  cpu::UnitMap map;
  const bool map_shared =
      plan.k_blocks.rows == 1 && (plan.k_order.identity || plan.k_order.rows == 1);
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    if (head == 0 || !map_shared) {
      map = cpu::map_units(plan.k_order, plan.k_blocks, head, inputs.key_valid,
                           shape.unit_multiple());
    }
    packed.pack(inputs.k, &inputs.v, head, map, threads_);
    const HeadJob job{ops_, plan, inputs, outputs, head, shape, map, packed, scale};
    const std::vector<Item>& items = ready->items(head);
    parallel_for(threads_, static_cast<std::int64_t>(items.size()),
                 [&](std::int64_t item, int worker) {
                   run_item(job, items[static_cast<std::size_t>(item)],
                            workspaces_[static_cast<std::size_t>(worker)]);
                 });
  }
}

}  // namespace

KernelSpec cpu_kernel_spec() {
  KernelSpec spec{};
  spec.name = "cpu";
  spec.help =
      "block-sparse attention on the CPU (AMX bf16, AVX-512 bf16, AVX-512, AVX2 or portable)";
  return spec;
}

CpuKernel::CpuKernel(const KernelOptions& options)
    : spec_(cpu_kernel_spec()),
      ops_(cpu::level_ops(options.isa)),
      threads_(resolve_threads(options.threads)) {}

std::unique_ptr<Kernel> make_cpu_kernel(const KernelOptions& options) {
  return std::make_unique<CpuKernel>(options);
}

}  // namespace raingauge
