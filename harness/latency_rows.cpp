// SPDX-License-Identifier: Apache-2.0
#include "harness/latency_rows.h"

#include "harness/gpu_state.h"
#include "harness/roofline.h"
#include "harness/rows.h"
#include "methods/kernels/device.h"

namespace raingauge {
namespace {

using nlohmann::json;

// The share of samples in which the device was still busy with the flush when all was launched.
double hidden_share(const PhaseTimes& times) {
  const auto samples = static_cast<double>(times.attend.samples.size());
  return 1.0 - times.launches_seen / samples;
}

void describe(json& row, const TimedArm& arm, const PhaseTimes& times, const LatencyScene& scene) {
  const auto density = measure_density(arm.plan, scene.record.key_valid);
  row["heads"] = scene.record.heads();
  row["tokens"] = scene.record.tokens();
  row["head_dim"] = scene.record.head_dim();
  row["dtype"] = name_of(scene.record.q.dtype);
  row["nominal_density"] = number_or_null(arm.plan.nominal_density);
  row["density_pairs"] = density.mean_pairs;
  row["density_tiles"] = times.density_tiles;
  row["plan_device"] = times.plan_device;
  row["plan_hamming"] = arm.plan_hamming < 0 ? json() : json(arm.plan_hamming);
  row["host_plan_reason"] = arm.host_reason;
  row["caches"] = cache_state(scene.device);
  row["launch_hidden"] = scene.device.kind == DeviceKind::cpu ? json() : json(hidden_share(times));
  row["gpu"] = gpu_states_json(times.gpu);
  row["threads"] = scene.threads;
  row["kernel_detail"] = times.kernel_detail;
  row["noisy"] = times.noisy;
}

void add_times(json& row, const PhaseTimes& times, const DenseTimes& dense) {
  const auto phase = [](const Timing& timing) {
    return timing.samples.empty() ? json() : timing.to_json();
  };
  const double attend_ms = times.attend.median();
  row["plan_ms"] = phase(times.plan);
  row["permute_ms"] = phase(times.permute);  // null: the kernel reads tokens through the order
  row["prepare_ms"] = phase(times.prepare);
  row["attend_ms"] = phase(times.attend);
  row["unpermute_ms"] = phase(times.unpermute);
  row["total_ms"] = phase(times.total);
  row["total_given_prepare_ms"] = phase(times.total_given_prepare);
  row["speedup_vs_dense"] = number_or_null(dense.best_ms / times.total.median());
  row["speedup_given_prepare"] = number_or_null(dense.best_ms / times.total_given_prepare.median());
  row["speedup_attend"] = number_or_null(dense.best_ms / attend_ms);
  row["dense_kernel"] = dense.best;
  row["dense_ms"] = number_or_null(dense.best_ms);
  row["dense_kernels"] = dense.all;
}

// Work counted from the plan, and how much of the machine's measured peak its time is. Of GPUs the
// peak is not measured here: null.
void add_roofline(json& row, const Plan& plan, double attend_ms, const LatencyScene& scene) {
  const AttentionWork work = count_work(plan, scene.record);
  const double gflops = work.flops / (attend_ms * 1e6);
  const bool known = scene.peak.gflops > 0.0;
  row["flops"] = work.flops;
  row["bytes"] = work.bytes;
  row["tflops_effective"] = gflops * 1e-3;
  row["peak_gflops"] = known ? json(scene.peak.gflops) : json();
  row["peak_arithmetic"] = known ? json(scene.peak.arithmetic) : json();
  row["percent_of_peak"] = known ? number_or_null(100.0 * gflops / scene.peak.gflops) : json();
  row["load1"] = number_or_null(load_average_1());
}

// The whole of which attention is a part: its other parts do not get faster. Attention is taken with all
// its phases but prepare: a model hands its kernel lists in that kernel's own form.
void add_block(json& row, double attention_ms, double dense_ms, const AroundAttention& around) {
  const double rest = around.rest.median();
  row["surroundings"] = around.what;
  row["surroundings_ms"] = around.rest.to_json();
  row["dense_inline_ms"] =
      around.whole.to_json();  // libtorch's own dense attention inside: a check
  row["block_ms"] = rest + attention_ms;
  row["attention_share"] = attention_ms / (rest + attention_ms);
  row["dense_attention_share"] = number_or_null(dense_ms / (rest + dense_ms));
  row["block_speedup_vs_dense"] = number_or_null((rest + dense_ms) / (rest + attention_ms));
}

}  // namespace

void fill_latency_row(json& row, const TimedArm& arm, const PhaseTimes& times,
                      const DenseTimes& dense, const LatencyScene& scene) {
  describe(row, arm, times, scene);
  add_times(row, times, dense);
  add_roofline(row, arm.plan, times.attend.median(), scene);
  if (!scene.around.what.empty()) {
    add_block(row, times.total_given_prepare.median(), dense.best_ms, scene.around);
  }
}

}  // namespace raingauge
