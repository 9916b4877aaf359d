// SPDX-License-Identifier: Apache-2.0
// Dense and sparse attention through the `cpu` kernel, and libtorch's dense attention.
#include <algorithm>
#include <cstdio>
#include <string>

#include "data/error.h"
#include "harness/bench/measure.h"
#include "harness/experiment.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/registry.h"
#include "methods/registry.h"

namespace raingauge::bench {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// Throws unless the kernel's output on this plan passes the gate.
void require_conformance(Kernel& kernel, const Plan& plan, const RecordView& record,
                         KernelArena& arena, int threads) {
  if (const Support reason = kernel.supports(plan, arena.inputs())) throw Unsupported(*reason);
  check_plan(plan, record.key_valid);
  const auto prepared = kernel.prepare(plan, arena.inputs());
  kernel.attend(*prepared, arena.inputs(), arena.outputs());
  AttendOutputs outputs = arena.outputs();
  if (!kernel.gives_lse()) outputs.lse = nullptr;
  ConformanceOptions options;
  options.threads = threads;
  const Conformance result =
      check_conformance(kernel.spec(), plan, arena.inputs(), outputs, options);
  if (!result.ok) throw Error("does not conform: " + result.reason);
}

// One arm: how it is planned (null: dense, nothing to plan) and what it is called.
struct Setting {
  std::string name;
  std::shared_ptr<Method> method;
  int block = 128;
};

struct Phases {
  double plan = 0.0, prepare = 0.0, attend = 0.0;  // seconds, summed over iterations
};

void time_phases(benchmark::State& state, const Setting& setting, const Plan& first, Kernel& kernel,
                 const RecordView& record, KernelArena& arena, Phases& phases) {
  for ([[maybe_unused]] auto _ : state) {
    Plan plan;
    const double plan_seconds = seconds_of([&] {
      if (setting.method) {
        State memory;
        plan = setting.method->plan(record, memory);
      }
    });
    const Plan& executed = setting.method ? plan : first;
    std::unique_ptr<Prepared> prepared;
    const double prepare_seconds =
        seconds_of([&] { prepared = kernel.prepare(executed, arena.inputs()); });
    const double attend_seconds =
        seconds_of([&] { kernel.attend(*prepared, arena.inputs(), arena.outputs()); });
    phases.plan += plan_seconds;
    phases.prepare += prepare_seconds;
    phases.attend += attend_seconds;
    state.SetIterationTime(plan_seconds + prepare_seconds + attend_seconds);
  }
}

void run_attention(benchmark::State& state, Session& session, Input& input, const Setting& setting,
                   Kernel& kernel, int threads, bool is_dense_yardstick) {
  const RecordView record = input.view();
  KernelArena& arena = session.arena(input);
  Plan plan;
  if (setting.method) {
    State memory;
    plan = setting.method->plan(record, memory);
  } else {
    plan = dense_plan(record.heads(), record.tokens(), setting.block);
  }
  const std::string key = setting.name + std::string(kernel.spec().name) + input.label();
  if (!session.passes(state, key,
                      [&] { require_conformance(kernel, plan, record, arena, threads); })) {
    return;
  }
  const AttentionWork work = count_work(plan, record);
  PeakControl control(session, threads, record.q.dtype);
  Phases phases;
  time_phases(state, setting, plan, kernel, record, arena, phases);
  const auto iterations = static_cast<double>(state.iterations());
  const double attend = phases.attend / iterations;
  const double total = attend + (phases.plan + phases.prepare) / iterations;
  control.report(state, work, attend);
  state.counters["density"] = measure_density(plan, record.key_valid).mean_pairs;
  state.counters["plan_ms"] = phases.plan / iterations * 1e3;
  state.counters["prepare_ms"] = phases.prepare / iterations * 1e3;
  state.counters["attend_ms"] = attend * 1e3;
  if (is_dense_yardstick) session.remember_dense(input.label(), threads, {total, work.flops});
  if (const DenseTime* dense = session.dense(input.label(), threads)) {
    state.counters["vs_dense"] = dense->seconds / total;
  }
}

std::string name_of_setting(const Input& input, const std::string& kernel, const std::string& mask,
                            int block, double density, int threads) {
  return "attend/" + input.label() + "/kernel:" + kernel + "/mask:" + mask +
         "/block:" + std::to_string(block) + "/density:" + number(density) +
         "/threads:" + std::to_string(threads);
}

Setting sparse_setting(const std::string& mask, int block, double density, int threads) {
  // Without a sink any density is feasible: frame 0 is a large part of a short clip.
  const std::string preset = mask == "rainfusion2" ? "preset: fixed, " : "";
  const Arm arm =
      parse_arm("{method: " + mask + ", " + preset + "sink: none, block: " + std::to_string(block) +
                ", density: " + number(density) + "}");
  Setting setting;
  setting.name = mask + std::to_string(block) + number(density);
  setting.method = make_method(arm.method, arm.params, {.threads = threads, .base_folder = {}});
  setting.block = block;
  return setting;
}

void run_prediction(benchmark::State& state, Session& session, Input& input, const Method& method,
                    int threads) {
  const RecordView record = input.view();
  State memory;
  const Plan plan = method.plan(record, memory);
  check_plan(plan, record.key_valid);
  PeakControl control(session, threads, record.q.dtype);
  double sum = 0.0;
  for ([[maybe_unused]] auto _ : state) {
    State fresh;
    const double seconds =
        seconds_of([&] { benchmark::DoNotOptimize(method.plan(record, fresh)); });
    sum += seconds;
    state.SetIterationTime(seconds);
  }
  const double seconds = sum / static_cast<double>(state.iterations());
  // Q and K are read once.
  const auto bytes = static_cast<double>(2 * record.heads() * record.tokens() * record.head_dim() *
                                         static_cast<std::int64_t>(size_of(record.q.dtype)));
  control.report(state, {0.0, bytes}, seconds);
  state.counters["density"] = measure_density(plan, record.key_valid).mean_pairs;
  if (const DenseTime* dense = session.dense(input.label(), threads)) {
    state.counters["percent_of_dense"] = 100.0 * seconds / dense->seconds;
  }
}

}  // namespace

void add_attention(Session& session, const std::vector<std::shared_ptr<Input>>& inputs) {
  const Options& options = session.options();
  std::vector<double> densities = options.densities;  // the dense yardstick first
  std::sort(densities.rbegin(), densities.rend());
  for (const int threads : options.threads) {
    const std::shared_ptr<Kernel> kernel =
        find_kernel("cpu").make({.threads = threads, .isa = options.isa});
    for (const auto& input : inputs) {
      for (const double density : densities) {
        for (const std::string& mask : options.masks) {
          for (const int block : options.blocks) {
            const bool dense = density >= 1.0;
            if (dense && mask != options.masks.front()) continue;
            const Setting setting = dense ? Setting{"dense" + std::to_string(block), nullptr, block}
                                          : sparse_setting(mask, block, density, threads);
            const bool yardstick = dense && block == options.blocks.back();
            add_benchmark(
                session,
                name_of_setting(*input, "cpu", dense ? "dense" : mask, block, density, threads),
                [=, &session](benchmark::State& state) {
                  run_attention(state, session, *input, setting, *kernel, threads, yardstick);
                });
          }
        }
      }
    }
  }
}

void add_peers(Session& session, const std::vector<std::shared_ptr<Input>>& inputs) {
  for (const char* name : {"torch_sdpa", "torch_chunked"}) {
    const KernelEntry& entry = find_kernel(name);
    if (!entry.built()) {
      std::fprintf(stderr, "raingauge-bench: %s is left out: %s\n", name,
                   std::string(entry.spec.not_built).c_str());
      continue;
    }
    for (const int threads : session.options().threads) {
      const std::shared_ptr<Kernel> kernel = entry.make({.threads = threads, .isa = {}});
      for (const auto& input : inputs) {
        add_benchmark(session, name_of_setting(*input, name, "dense", 128, 1.0, threads),
                      [=, &session](benchmark::State& state) {
                        run_attention(state, session, *input, {"dense128", nullptr, 128}, *kernel,
                                      threads, false);
                      });
      }
    }
  }
}

void add_prediction(Session& session, const std::vector<std::shared_ptr<Input>>& inputs) {
  const Options& options = session.options();
  for (const int threads : options.threads) {
    for (const auto& input : inputs) {
      for (const std::string& mask : options.masks) {
        for (const int block : options.blocks) {
          const Setting setting = sparse_setting(mask, block, 0.2, threads);
          add_benchmark(session,
                        "predict/" + input->label() + "/mask:" + mask + "/block:" +
                            std::to_string(block) + "/threads:" + std::to_string(threads),
                        [=, &session](benchmark::State& state) {
                          run_prediction(state, session, *input, *setting.method, threads);
                        });
        }
      }
    }
  }
}

}  // namespace raingauge::bench
