// SPDX-License-Identifier: Apache-2.0
// Which key blocks does each query block really attend? The oracle behind `oracle_row` and
// `oracle_head`: one streaming pass over Q K^T keeps, for each query row and key block, the local
// maximum and the sum of exponentials; the row's softmax shares follow from those.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "data/error.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/judge.h"
#include "methods/kernels/cpu/packed_head.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using cpu::kMaxTileRows;

// Everything that the query blocks of one head share.
struct MassJob {
  const cpu::LevelOps& ops;
  const RecordView& record;
  const Plan& plan;
  std::int64_t head;
  cpu::PackShape shape;
  const cpu::UnitMap& map;
  const cpu::HeadPacker& packed;
  cpu::ScaleParts scale;
};

struct MassWorkspace {
  explicit MassWorkspace(const MassJob& job)
      : q(cpu::make_buffer<std::uint32_t>(static_cast<std::size_t>(job.shape.depth()) *
                                          kMaxTileRows)),
        scratch(cpu::make_buffer<float>(cpu::scratch_floats(job.shape.head_dim))),
        largest(cpu::make_buffer<float>(
            static_cast<std::size_t>(job.plan.k_blocks.blocks * kMaxTileRows))),
        sum(cpu::make_buffer<float>(
            static_cast<std::size_t>(job.plan.k_blocks.blocks * kMaxTileRows))),
        mass(static_cast<std::size_t>(job.plan.k_blocks.blocks)) {}

  cpu::Buffer<std::uint32_t> q;
  cpu::Buffer<float> scratch, largest, sum;
  std::vector<double> mass;  // summed over the rows of one query block
};

// Adds the rows at positions [first, first + rows), all of them valid.
void add_tile(const MassJob& job, const std::int32_t* tokens, int rows, MassWorkspace& work) {
  for (int r = 0; r < rows; ++r) {
    job.ops.pack_q(job.shape, job.record.q.row(job.head, tokens[r]), job.scale.factor,
                   work.q.get() + r * job.shape.depth());
  }
  cpu::MassTile tile;
  tile.shape = job.shape;
  tile.rows = rows;
  tile.q = work.q.get();
  tile.k = job.packed.k();
  tile.bias = job.map.bias.data();
  tile.full = job.map.full.data();
  tile.block_units = job.map.block_units.data();
  tile.blocks = job.plan.k_blocks.blocks;
  tile.log2_scale = job.scale.log2_scale();
  tile.scratch = work.scratch.get();
  tile.largest = work.largest.get();
  tile.sum = work.sum.get();
  tile.mass = work.mass.data();
  job.ops.mass(tile);
}

void query_block_mass(const MassJob& job, std::int64_t block, MassWorkspace& work, float* mass) {
  std::vector<std::int32_t> tokens;
  const Layout& layout = job.plan.q_blocks;
  for (std::int32_t p = layout.begin(job.head, block); p < layout.end(job.head, block); ++p) {
    const std::int32_t token = job.plan.q_order.token(job.head, p);
    if (job.record.key_valid == nullptr || job.record.key_valid[token] != 0) {
      tokens.push_back(token);
    }
  }
  std::fill(mass, mass + job.plan.k_blocks.blocks, 0.0F);
  if (tokens.empty() || job.map.unit_count() == 0) {
    return;
  }
  std::fill(work.mass.begin(), work.mass.end(), 0.0);
  for (std::size_t first = 0; first < tokens.size(); first += kMaxTileRows) {
    const std::size_t rows = std::min(tokens.size() - first, std::size_t{kMaxTileRows});
    add_tile(job, tokens.data() + first, static_cast<int>(rows), work);
  }
  for (std::size_t j = 0; j < work.mass.size(); ++j) {
    const double mean = work.mass[j] / static_cast<double>(tokens.size());
    if (!std::isfinite(mean)) {
      throw NotFinite("block_mass: the softmax of a query in head " + std::to_string(job.head) +
                      ", query block " + std::to_string(block) +
                      " is not finite: Q or K of this head holds NaN, Inf or values whose product "
                      "overflows");
    }
    mass[j] = static_cast<float>(mean);
  }
}

}  // namespace

std::vector<float> block_mass(const RecordView& record, std::int64_t head, const Plan& plan,
                              int threads) {
  return cpu::block_mass_at(cpu::level_ops(), record, head, plan, threads);
}

std::vector<float> cpu::block_mass_at(const LevelOps& ops, const RecordView& record,
                                      std::int64_t head, const Plan& plan, int threads) {
  check_judged(record, head, &plan);
  PackShape shape = ops.shape(record.q.dtype, static_cast<int>(record.head_dim()));
  if (record.k.dtype != record.q.dtype) {
    shape.products = Products::floats;
  }
  PackShape key_shape = shape;
  key_shape.dtype = record.k.dtype;
  const UnitMap map =
      map_units(plan.k_order, plan.k_blocks, head, record.key_valid, shape.unit_multiple());
  HeadPacker packed(ops, key_shape, std::nullopt);
  packed.pack(record.k, nullptr, head, map, threads);
  const MassJob job{ops, record, plan, head, shape, map, packed, split_scale(record.info->scale)};
  std::vector<MassWorkspace> workspaces;
  for (int worker = 0; worker < resolve_threads(threads); ++worker) {
    workspaces.emplace_back(job);
  }
  const std::int64_t columns = plan.k_blocks.blocks;
  std::vector<float> mass(static_cast<std::size_t>(plan.q_blocks.blocks * columns));
  parallel_for(threads, plan.q_blocks.blocks, [&](std::int64_t block, int worker) {
    query_block_mass(job, block, workspaces[static_cast<std::size_t>(worker)],
                     mass.data() + block * columns);
  });
  return mass;
}

}  // namespace raingauge
