// SPDX-License-Identifier: Apache-2.0
#include "harness/latency.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "methods/kernels/device.h"

namespace raingauge {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return std::nan("");
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const auto high = std::min(low + 1, values.size() - 1);
  return values[low] + (place - static_cast<double>(low)) * (values[high] - values[low]);
}

class HostArena : public KernelArena {
 public:
  explicit HostArena(const RecordView& record)
      : o_(static_cast<std::size_t>(record.heads() * record.tokens() * record.head_dim())),
        lse_(static_cast<std::size_t>(record.heads() * record.tokens())) {
    inputs_ = {record.q, record.k, record.v, record.key_valid,
               static_cast<float>(record.info->scale)};
    outputs_ = {o_.data(), lse_.data()};
  }
  const AttendInputs& inputs() const override { return inputs_; }
  const AttendOutputs& outputs() const override { return outputs_; }
  AttendOutputs host_outputs() override { return outputs_; }

 private:
  std::vector<float> o_, lse_;
  AttendInputs inputs_;
  AttendOutputs outputs_;
};

// Packed copy of a view in host memory: [H, N, D] without gaps.
std::vector<char> packed(const TensorView& view) {
  const auto row_bytes = static_cast<std::size_t>(view.head_dim) * size_of(view.dtype);
  std::vector<char> bytes(static_cast<std::size_t>(view.heads * view.tokens) * row_bytes);
  auto* target = bytes.data();
  for (std::int64_t head = 0; head < view.heads; ++head) {
    for (std::int64_t token = 0; token < view.tokens; ++token, target += row_bytes) {
      std::copy_n(static_cast<const char*>(view.row(head, token)), row_bytes, target);
    }
  }
  return bytes;
}

class CudaArena : public KernelArena {
 public:
  CudaArena(const RecordView& record, const Device& device)
      : elements_(static_cast<std::size_t>(record.heads() * record.tokens() * record.head_dim())),
        rows_(static_cast<std::size_t>(record.heads() * record.tokens())),
        q_(to_device(device, packed(record.q))),
        k_(to_device(device, packed(record.k))),
        v_(to_device(device, packed(record.v))),
        o_(device, elements_ * sizeof(float)),
        lse_(device, rows_ * sizeof(float)) {
    const auto on_device = [&](const TensorView& host, const DeviceBuffer& buffer) {
      return contiguous_view(buffer.data(), host.dtype, host.heads, host.tokens, host.head_dim,
                             device);
    };
    inputs_ = {on_device(record.q, q_), on_device(record.k, k_), on_device(record.v, v_),
               record.key_valid, static_cast<float>(record.info->scale)};
    outputs_ = {o_.as<float>(), lse_.as<float>()};
  }
  const AttendInputs& inputs() const override { return inputs_; }
  const AttendOutputs& outputs() const override { return outputs_; }
  AttendOutputs host_outputs() override {
    host_o_.resize(elements_);
    host_lse_.resize(rows_);
    o_.copy_to_host(host_o_.data(), elements_ * sizeof(float));
    lse_.copy_to_host(host_lse_.data(), rows_ * sizeof(float));
    return {host_o_.data(), host_lse_.data()};
  }

 private:
  std::size_t elements_, rows_;
  DeviceBuffer q_, k_, v_, o_, lse_;
  std::vector<float> host_o_, host_lse_;
  AttendInputs inputs_;
  AttendOutputs outputs_;
};

void time_once(const Contender& contender, const RecordView& record, KernelArena& arena,
               PhaseTimes* times) {
  double plan_ms = 0.0;
  if (contender.method != nullptr) {
    State state;
    const auto start = Clock::now();
    const Plan plan = contender.method->plan(record, state);
    plan_ms = milliseconds_since(start);
  }
  const auto prepare_start = Clock::now();
  const auto prepared = contender.kernel->prepare(*contender.plan, arena.inputs());
  contender.kernel->synchronize();
  const double prepare_ms = milliseconds_since(prepare_start);
  const auto attend_start = Clock::now();
  contender.kernel->attend(*prepared, arena.inputs(), arena.outputs());
  contender.kernel->synchronize();
  const double attend_ms = milliseconds_since(attend_start);
  if (times == nullptr) return;
  times->plan.samples.push_back(plan_ms);
  times->prepare.samples.push_back(prepare_ms);
  times->attend.samples.push_back(attend_ms);
  times->total.samples.push_back(plan_ms + prepare_ms + attend_ms);
  times->density_tiles = prepared->density_tiles();
  times->kernel_detail = contender.kernel->detail();
}

bool quiet_enough(const PhaseTimes& times, const LatencyPlan& settings) {
  return static_cast<int>(times.total.samples.size()) >= settings.min_samples &&
         times.total.iqr() <= settings.max_noise * times.total.median();
}

}  // namespace

double Timing::median() const { return quantile(samples, 0.5); }
double Timing::iqr() const { return quantile(samples, 0.75) - quantile(samples, 0.25); }

nlohmann::json Timing::to_json() const {
  return {{"median", median()}, {"iqr", iqr()}, {"n", samples.size()}, {"samples", samples}};
}

std::unique_ptr<KernelArena> make_arena(const RecordView& record, const Device& device) {
  if (device.kind == DeviceKind::cuda) return std::make_unique<CudaArena>(record, device);
  return std::make_unique<HostArena>(record);
}

std::vector<PhaseTimes> time_contenders(const std::vector<Contender>& contenders,
                                        const RecordView& record, KernelArena& arena,
                                        const LatencyPlan& settings,
                                        const std::function<void(double done)>& progress) {
  std::vector<PhaseTimes> times(contenders.size());
  const std::size_t group = settings.interleave ? contenders.size() : 1;
  for (std::size_t first = 0; first < contenders.size(); first += group) {
    const auto one_round = [&](bool counted) {
      for (std::size_t i = first; i < first + group; ++i) {
        time_once(contenders[i], record, arena, counted ? &times[i] : nullptr);
      }
    };
    const auto quiet = [&] {
      return std::all_of(times.begin() + std::ptrdiff_t(first),
                         times.begin() + std::ptrdiff_t(first + group),
                         [&](const PhaseTimes& t) { return quiet_enough(t, settings); });
    };
    for (int i = 0; i < settings.warmup; ++i) one_round(false);
    const double budget_ms = 1000.0 * settings.max_seconds * static_cast<double>(group);
    const auto start = Clock::now();
    for (int round = 0;
         round < settings.min_samples || (!quiet() && milliseconds_since(start) < budget_ms);
         ++round) {
      one_round(true);
      progress(static_cast<double>(first + group) / static_cast<double>(contenders.size()));
    }
  }
  for (auto& t : times) t.noisy = !quiet_enough(t, settings);
  return times;
}

}  // namespace raingauge
