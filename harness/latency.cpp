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

// Every arena holds tensors of its own.
std::uint64_t next_contents() {
  static std::uint64_t last = 0;
  return ++last;
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
    inputs_ = {on_device(record.q, q_),
               on_device(record.k, k_),
               on_device(record.v, v_),
               record.key_valid,
               static_cast<float>(record.info->scale),
               next_contents()};
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

// A contender with its plan handed over, or why that failed.
class Lane {
 public:
  Lane(const Contender& contender, const RecordView& record, KernelArena& arena)
      : contender_(contender),
        record_(record),
        inputs_(arena.inputs()),
        monitor_(inputs_.q.device) {
    attempt([&] {
      run_ =
          contender.kernel->open_run(*contender.plan, inputs_, arena.outputs(), contender.planner);
      if (contender.planner != nullptr) timer_ = std::make_unique<DeviceTimer>(inputs_.q.device);
    });
  }

  bool failed() const { return !times_.failure.empty(); }
  PhaseTimes& times() { return times_; }
  const PhaseTimes& times() const { return times_; }

  // `reuse`: what the host decided or prepared in an earlier round may be used again.
  void round(bool counted, bool reuse) {
    if (failed()) return;
    attempt([&] {
      PhaseSample sample = hidden_sample(reuse);
      times_.plan_device = run_->plans_on();
      if (times_.plan_device.empty()) sample.plan = plan(reuse);
      if (!counted) return;
      keep(sample);
      if (const auto state = monitor_.read()) times_.gpu.push_back(*state);
    });
  }

 private:
  // A sample whose launch took longer than the device was kept busy is taken again, with the device kept
  // busy for longer. Whoever waits for the device in between can never be hidden: after one round of
  // that his samples are taken as they are, and rows say so.
  PhaseSample hidden_sample(bool reuse) {
    PhaseSample sample = run_->sample(reuse);
    for (int i = 0; !sample.launch_hidden && !never_hidden_ && i < kMoreTries; ++i) {
      PhaseSample next = run_->sample(true);
      if (next.prepared_before && !sample.prepared_before) {
        next.prepare = sample.prepare;
        next.prepared_before = false;
      }
      sample = next;
    }
    never_hidden_ = never_hidden_ || !sample.launch_hidden;
    return sample;
  }

  // The method's decision alone, for kernels that are given it. NaN where there is none, or an earlier
  // one is used again.
  double plan(bool reuse) {
    plan_reused_ = false;
    times_.plan_device = "none";
    if (contender_.method == nullptr) return std::nan("");
    if (contender_.planner != nullptr) {
      times_.plan_device = to_string(inputs_.q.device);
      timer_->start();
      contender_.planner->plan(inputs_.q, inputs_.k);
      timer_->mark();
      return timer_->finish().at(0);
    }
    times_.plan_device = "cpu";
    plan_reused_ = reuse && planned_;
    if (plan_reused_) return std::nan("");
    planned_ = true;
    State state;
    const auto start = Clock::now();
    const Plan plan = contender_.method->plan(record_, state);
    return milliseconds_since(start);
  }

  void keep(const PhaseSample& sample) {
    double total = 0.0;
    const auto add = [&](Timing& timing, double value) {
      if (std::isnan(value)) return;
      timing.samples.push_back(value);
      total += value;
    };
    add(times_.plan, sample.plan);
    add(times_.permute, sample.permute);
    add(times_.prepare, sample.prepare);
    add(times_.attend, sample.attend);
    add(times_.unpermute, sample.unpermute);
    // Sums of what was measured in this round, of all phases or none.
    if (!plan_reused_) {
      times_.total_given_prepare.samples.push_back(
          total - (std::isnan(sample.prepare) ? 0.0 : sample.prepare));
      if (!sample.prepared_before) times_.total.samples.push_back(total);
    }
    if (!sample.launch_hidden) ++times_.launches_seen;
    times_.density_tiles = run_->density_tiles();
    times_.kernel_detail = contender_.kernel->detail();
  }

  template <typename Work>
  void attempt(Work work) {
    try {
      work();
    } catch (const std::exception& error) {
      times_.failure = error.what();
      run_.reset();
    }
  }

  const Contender& contender_;
  const RecordView& record_;
  const AttendInputs& inputs_;
  GpuMonitor monitor_;
  std::unique_ptr<TimedRun> run_;
  static constexpr int kMoreTries = 5;  // doublings from DeviceTimer's first flush to its most
  std::unique_ptr<DeviceTimer> timer_;
  bool never_hidden_ = false, planned_ = false, plan_reused_ = false;
  PhaseTimes times_;
};

// By the total; by attend where phases of the host were not measured in every round.
bool quiet_enough(const PhaseTimes& times, const LatencyPlan& settings) {
  if (!times.failure.empty()) return true;
  const bool whole = times.total.samples.size() == times.attend.samples.size();
  const Timing& judged = whole ? times.total : times.attend;
  return static_cast<int>(judged.samples.size()) >= settings.min_samples &&
         judged.iqr() <= settings.max_noise * judged.median();
}

// Whether phases of the host are measured in this round. Warm-up measures them once.
bool host_takes_part(const LatencyPlan& settings, bool counted, int round) {
  if (settings.host_samples < 0) return true;
  return counted ? round < settings.host_samples : round == 0;
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
                                        const std::function<void(double done)>& progress,
                                        const std::function<void(bool counted)>& every_round) {
  std::vector<PhaseTimes> times;
  const std::size_t group = settings.interleave ? contenders.size() : 1;
  for (std::size_t first = 0; first < contenders.size(); first += group) {
    std::vector<std::unique_ptr<Lane>> lanes;
    for (std::size_t i = first; i < first + group; ++i) {
      lanes.push_back(std::make_unique<Lane>(contenders[i], record, arena));
    }
    const auto one_round = [&](bool counted, int round) {
      const bool reuse = !host_takes_part(settings, counted, round);
      for (auto& lane : lanes) lane->round(counted, reuse);
      if (every_round) every_round(counted);
    };
    const auto quiet = [&] {
      return std::all_of(lanes.begin(), lanes.end(),
                         [&](const auto& lane) { return quiet_enough(lane->times(), settings); });
    };
    for (int i = 0; i < settings.warmup; ++i) one_round(false, i);
    const double budget_ms = 1000.0 * settings.max_seconds * static_cast<double>(group);
    const auto start = Clock::now();
    for (int round = 0;
         round < settings.min_samples || (!quiet() && milliseconds_since(start) < budget_ms);
         ++round) {
      one_round(true, round);
      progress(static_cast<double>(first + group) / static_cast<double>(contenders.size()));
    }
    for (auto& lane : lanes) times.push_back(std::move(lane->times()));
  }
  for (auto& t : times) t.noisy = !quiet_enough(t, settings);
  return times;
}

}  // namespace raingauge
