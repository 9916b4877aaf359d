// SPDX-License-Identifier: Apache-2.0
// What surrounds attention: packing, the oracle's block mass, the judge of sampled rows.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "data/error.h"
#include "harness/bench/measure.h"
#include "methods/kernels/cpu/dispatch.h"
#include "methods/kernels/cpu/judge.h"
#include "methods/kernels/cpu/packed_head.h"
#include "methods/kernels/reference.h"

namespace raingauge::bench {
namespace {

std::string part_name(const std::string& part, const Input& input, const std::string& setting,
                      int threads) {
  return part + "/" + input.label() + setting + "/threads:" + std::to_string(threads);
}

// Times `work` in every iteration; mean seconds.
template <class Work>
double time_work(benchmark::State& state, const Work& work) {
  double sum = 0.0;
  for ([[maybe_unused]] auto _ : state) {
    const double seconds = seconds_of(work);
    sum += seconds;
    state.SetIterationTime(seconds);
  }
  return sum / static_cast<double>(state.iterations());
}

RowSample spread_rows(std::int64_t tokens, std::int64_t count) {
  RowSample sample;
  count = std::min(count, tokens);
  for (std::int64_t i = 0; i < count; ++i) {
    sample.tokens.push_back(static_cast<std::int32_t>(i * tokens / count));
  }
  return sample;
}

AttendInputs inputs_of(const RecordView& record) {
  return {record.q, record.k, record.v, record.key_valid, static_cast<float>(record.info->scale)};
}

// The judge's rows against the fp32 reference, which is other code: dense attention of head 0.
void check_rows(const RecordView& record, const RowSample& sample, const RowResults& results,
                int threads) {
  const Plan plan = dense_plan(record.heads(), record.tokens(), 128);
  const ReferenceHead reference(inputs_of(record), plan, 0, threads);
  const auto dim = static_cast<std::size_t>(record.head_dim());
  for (std::size_t i = 0; i < sample.tokens.size(); i += 61) {
    std::vector<float> o(dim);
    float lse = 0.0F;
    const std::int32_t position = sample.tokens[i];
    RowScale scale;
    reference.rows(position / 128, std::span(&position, 1), o.data(), &lse, &scale);
    double worst = std::abs(static_cast<double>(lse) - results.lse[i]);
    for (std::size_t c = 0; c < dim; ++c) {
      const double error =
          std::abs(static_cast<double>(o[c]) - static_cast<double>(results.o[i * dim + c]));
      worst = std::max(worst, error / std::max(scale.error_scale, 1e-30));
    }
    if (!(worst <= 1e-3)) {
      throw Error("row " + std::to_string(position) + " is off the fp32 reference by " +
                  std::to_string(worst));
    }
  }
}

// A row's shares sum to one, and one query block's mass equals the recall of its rows.
void check_mass(const RecordView& record, const std::vector<float>& mass, std::int64_t blocks) {
  for (std::int64_t row = 0; row * blocks < static_cast<std::int64_t>(mass.size()); ++row) {
    double sum = 0.0;
    for (std::int64_t j = 0; j < blocks; ++j) {
      sum += static_cast<double>(mass[static_cast<std::size_t>(row * blocks + j)]);
    }
    if (!(std::abs(sum - 1.0) <= 1e-3)) {
      throw Error("the mass of query block " + std::to_string(row) + " sums to " +
                  std::to_string(sum));
    }
  }
  // Query block 0 keeps its last key block alone: recall = exp(lse of the plan - dense lse).
  Plan plan = dense_plan(record.heads(), record.tokens(), 128);
  const auto last = static_cast<std::int32_t>(blocks - 1);
  plan.lists.columns.assign(static_cast<std::size_t>(plan.heads * plan.q_blocks.blocks), last);
  plan.lists.row_offsets.resize(plan.lists.columns.size() + 1);
  for (std::size_t i = 0; i < plan.lists.row_offsets.size(); ++i) {
    plan.lists.row_offsets[i] = static_cast<std::int64_t>(i);
  }
  const auto size = plan.q_blocks.size(0, 0);
  const RowSample rows = spread_rows(size, size);
  const RowResults kept = evaluate_rows(record, 0, rows, &plan);
  const RowResults all = evaluate_rows(record, 0, rows, nullptr);
  double recall = 0.0;
  for (std::size_t i = 0; i < rows.tokens.size(); ++i) recall += std::exp(kept.lse[i] - all.lse[i]);
  recall /= static_cast<double>(rows.tokens.size());
  const auto got = static_cast<double>(mass[static_cast<std::size_t>(last)]);
  if (!(std::abs(got - recall) <= 1e-2 * recall + 1e-12)) {
    throw Error("mass of (0, " + std::to_string(last) + ") is " + std::to_string(got) +
                ", the judge says " + std::to_string(recall));
  }
}

void run_packing(benchmark::State& state, Session& session, Input& input, int threads) {
  const RecordView record = input.view();
  const cpu::LevelOps& ops = cpu::level_ops(session.options().isa);
  const int dim = static_cast<int>(record.head_dim());
  const cpu::PackShape shape = ops.shape(record.k.dtype, dim);
  Orders order;
  order.tokens = record.tokens();
  const cpu::UnitMap map = cpu::map_units(order, uniform_layout(record.tokens(), 128), 0,
                                          record.key_valid, shape.unit_multiple());
  cpu::HeadPacker packer(ops, shape, shape);
  PeakControl control(session, threads, record.k.dtype);
  const double seconds =
      time_work(state, [&] { packer.pack(record.k, &record.v, 0, map, threads); });
  const double bytes =
      static_cast<double>(record.tokens()) * 2.0 *
          static_cast<double>(record.head_dim() * static_cast<std::int64_t>(size_of(shape.dtype))) +
      static_cast<double>(map.unit_count()) *
          static_cast<double>((shape.k_unit_words() + shape.v_unit_words()) * 4);
  control.report(state, {0.0, bytes}, seconds);
  state.counters["gbytes_per_second"] = bytes / seconds * 1e-9;
  if (const DenseTime* dense = session.dense(input.label(), threads)) {
    state.counters["percent_of_dense"] =
        100.0 * seconds * static_cast<double>(record.heads()) / dense->seconds;
  }
}

void run_oracle(benchmark::State& state, Session& session, Input& input, int threads) {
  const RecordView record = input.view();
  const cpu::LevelOps& ops = cpu::level_ops(session.options().isa);
  const Plan plan = dense_plan(record.heads(), record.tokens(), 128);
  if (!session.passes(state, "oracle" + input.label() + std::to_string(threads), [&] {
        check_mass(record, cpu::block_mass_at(ops, record, 0, plan, threads), plan.k_blocks.blocks);
      })) {
    return;
  }
  PeakControl control(session, threads, record.q.dtype);
  const double seconds = time_work(
      state, [&] { benchmark::DoNotOptimize(cpu::block_mass_at(ops, record, 0, plan, threads)); });
  AttentionWork work = count_work(plan, record);
  const auto heads = static_cast<double>(record.heads());
  control.report(state, {work.flops / heads / 2.0, work.bytes / heads / 2.0}, seconds);
  if (const DenseTime* dense = session.dense(input.label(), threads)) {
    state.counters["over_dense"] = seconds * heads / dense->seconds;
  }
}

void run_rows(benchmark::State& state, Session& session, Input& input, int threads) {
  const RecordView record = input.view();
  const cpu::LevelOps& ops = cpu::level_ops(session.options().isa);
  const RowSample sample = spread_rows(record.tokens(), session.options().rows);
  if (!session.passes(state, "rows" + input.label() + std::to_string(threads), [&] {
        check_rows(record, sample, cpu::evaluate_rows_at(ops, record, 0, sample, nullptr, threads),
                   threads);
      })) {
    return;
  }
  // The judge multiplies in fp32 whatever the inputs are.
  PeakControl control(session, threads, DType::f32);
  const double seconds = time_work(state, [&] {
    benchmark::DoNotOptimize(cpu::evaluate_rows_at(ops, record, 0, sample, nullptr, threads));
  });
  const double pairs =
      static_cast<double>(sample.tokens.size()) * static_cast<double>(record.tokens());
  const AttentionWork work{4.0 * static_cast<double>(record.head_dim()) * pairs, 0.0};
  control.report(state, work, seconds);
  if (const DenseTime* dense = session.dense(input.label(), threads)) {
    state.counters["over_dense_rate"] = seconds / (work.flops / dense->flops * dense->seconds);
  }
}

using Part = void (*)(benchmark::State&, Session&, Input&, int);

void add_part(Session& session, const std::vector<std::shared_ptr<Input>>& inputs,
              const std::string& part, const std::string& setting, Part run) {
  for (const int threads : session.options().threads) {
    for (const auto& input : inputs) {
      add_benchmark(
          session, part_name(part, *input, setting, threads),
          [=, &session](benchmark::State& state) { run(state, session, *input, threads); });
    }
  }
}

}  // namespace

void add_packing(Session& session, const std::vector<std::shared_ptr<Input>>& inputs) {
  add_part(session, inputs, "pack", "/block:128", run_packing);
}

void add_oracle(Session& session, const std::vector<std::shared_ptr<Input>>& inputs) {
  add_part(session, inputs, "oracle", "/block:128", run_oracle);
}

void add_rows(Session& session, const std::vector<std::shared_ptr<Input>>& inputs) {
  add_part(session, inputs, "rows", "/rows:" + std::to_string(session.options().rows), run_rows);
}

}  // namespace raingauge::bench
