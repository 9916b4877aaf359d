// SPDX-License-Identifier: Apache-2.0
// raingauge-demo-train: trains the demo DiT for a given time, from scratch or from a checkpoint.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <exception>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/demo/device.h"
#include "data/demo/trainer.h"

namespace raingauge::demo {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Flags {
  std::string device = "cpu", attention = "auto";
  double seconds = 60, schedule_from = 0, schedule_to = 1, decay_from = 0.5;
  std::vector<std::string> phases{"0:8x16x24x40,8x18x22x40", "0.66:21x16x24x12,21x18x22x12"};
  std::string checkpoint_in, weights_in, checkpoint_out, weights_out, log;
  double checkpoint_every = 60, log_every = 5;
  TrainerOptions trainer;
};

void declare(CLI::App& app, Flags& flags) {
  app.add_option("--device", flags.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--attention", flags.attention, "torch's attention on CUDA: auto, cudnn or flash")
      ->check(CLI::IsMember({"auto", "cudnn", "flash"}))
      ->capture_default_str();
  app.add_option("--seconds", flags.seconds, "time for the training loop")->capture_default_str();
  app.add_option("--schedule-from", flags.schedule_from, "part of the schedule done before, 0 to 1")
      ->capture_default_str();
  app.add_option("--schedule-to", flags.schedule_to, "part of the schedule done after, 0 to 1")
      ->capture_default_str();
  app.add_option("--decay-from", flags.decay_from, "where the learning rate starts to fall")
      ->capture_default_str();
  app.add_option("--phase", flags.phases, "FROM:FxHxWxB[,…], repeatable; shapes take turns")
      ->capture_default_str();
  app.add_option("--checkpoint-in", flags.checkpoint_in, "go on from this file");
  app.add_option("--weights-in", flags.weights_in, "start from these weights, new optimiser");
  app.add_option("--checkpoint-out", flags.checkpoint_out, "written now and then and at the end");
  app.add_option("--checkpoint-every", flags.checkpoint_every, "seconds")->capture_default_str();
  app.add_option("--weights-out", flags.weights_out, "averaged weights, bf16, written at the end");
  app.add_option("--log", flags.log, "JSON lines; also printed");
  app.add_option("--log-every", flags.log_every, "seconds")->capture_default_str();
  app.add_option("--learning-rate", flags.trainer.learning_rate)->capture_default_str();
  app.add_option("--average-decay", flags.trainer.average_decay)->capture_default_str();
  app.add_option("--warmup-steps", flags.trainer.warmup_steps)->capture_default_str();
  app.add_option("--seed", flags.trainer.seed)->capture_default_str();
  app.add_option("--width", flags.trainer.model.width)->capture_default_str();
  app.add_option("--layers", flags.trainer.model.layers)->capture_default_str();
}

// Losses stay on the device between two lines of the log, so that the host need not wait for it.
class Log {
 public:
  explicit Log(const std::string& path) {
    if (!path.empty()) file_.open(path, std::ios::app);
  }

  void add(const at::Tensor& losses, const BatchShape& shape) {
    sums_ = sums_.defined() ? sums_ + losses : losses;
    clips_ += shape.clips;
  }

  void line(const Trainer& trainer, double elapsed, double fraction, double rate,
            const BatchShape& shape) {
    const at::Tensor host = sums_.cpu();
    const auto mean = [&](int64_t i) {
      return host[i].item<double>() / std::max(1.0, host[i + 1].item<double>());
    };
    const double span = seconds_since(last_);
    const nlohmann::json line = {{"step", trainer.steps()},
                                 {"clips", trainer.clips()},
                                 {"seconds", elapsed},
                                 {"fraction", fraction},
                                 {"rate", rate},
                                 {"shape", shape.describe()},
                                 {"loss_i2v", mean(0)},
                                 {"loss_t2v", mean(2)},
                                 {"clips_per_second", clips_ / span}};
    write(line);
    sums_ = at::Tensor();
    clips_ = 0;
    last_ = Clock::now();
  }

  void write(const nlohmann::json& line) {
    std::cout << line.dump() << std::endl;
    if (file_.is_open()) file_ << line.dump() << std::endl;
  }

  double idle() const { return seconds_since(last_); }

 private:
  std::ofstream file_;
  at::Tensor sums_;
  double clips_ = 0;
  Clock::time_point last_ = Clock::now();
};

void save(const Trainer& trainer, const Flags& flags) {
  if (!flags.checkpoint_out.empty()) trainer.save(flags.checkpoint_out);
}

void train(Trainer& trainer, const TrainingPlan& plan, const Flags& flags, Log& log) {
  const Clock::time_point start = Clock::now();
  Clock::time_point saved = start;
  double elapsed = 0;
  while (elapsed < flags.seconds) {
    const double fraction =
        flags.schedule_from + (flags.schedule_to - flags.schedule_from) * elapsed / flags.seconds;
    const BatchShape& shape = plan.shape(fraction, trainer.steps());
    const double rate = plan.rate(fraction);
    log.add(trainer.step(shape, rate), shape);
    elapsed = seconds_since(start);
    if (log.idle() >= flags.log_every || elapsed >= flags.seconds) {
      log.line(trainer, elapsed, fraction, rate, shape);
    }
    if (seconds_since(saved) >= flags.checkpoint_every) {
      save(trainer, flags);
      saved = Clock::now();
    }
  }
}

// Which of torch's backends is the fastest depends on the GPU and on torch's version.
void prefer_attention(const std::string& name) {
  using at::SDPBackend;
  if (name == "flash") at::globalContext().setSDPUseCuDNN(false);
  if (name != "cudnn") return;
  std::vector<int64_t> order;
  for (const SDPBackend backend :
       {SDPBackend::cudnn_attention, SDPBackend::flash_attention, SDPBackend::efficient_attention,
        SDPBackend::math, SDPBackend::overrideable}) {
    order.push_back(static_cast<int64_t>(backend));
  }
  at::globalContext().setSDPPriorityOrder(order);
}

Trainer make_trainer(const Flags& flags, at::Device device) {
  if (!flags.checkpoint_in.empty()) {
    return Trainer::resume(flags.checkpoint_in, flags.trainer, device);
  }
  if (!flags.weights_in.empty()) {
    return Trainer::start_from(read_weights(flags.weights_in), flags.trainer, device);
  }
  return Trainer(flags.trainer, device);
}

int run(const Flags& flags) {
  std::vector<Phase> phases;
  for (const std::string& text : flags.phases) phases.push_back(parse_phase(text));
  const TrainingPlan plan(std::move(phases), flags.decay_from);
  const at::Device device = open_device(flags.device);
  prefer_attention(flags.attention);
  Trainer trainer = make_trainer(flags, device);
  Log log(flags.log);
  int64_t parameters = 0;
  for (const ParameterSpec& spec : parameter_specs(trainer.config())) {
    parameters += c10::multiply_integers(spec.shape);
  }
  log.write({{"parameters", parameters}, {"first_step", trainer.steps()}});
  train(trainer, plan, flags, log);
  save(trainer, flags);
  if (!flags.weights_out.empty()) write_weights(flags.weights_out, trainer.averaged());
  return 0;
}

}  // namespace
}  // namespace raingauge::demo

int main(int argc, char** argv) {
  raingauge::demo::Flags flags;
  CLI::App app{"Trains the demo DiT on procedurally generated video."};
  raingauge::demo::declare(app, flags);
  CLI11_PARSE(app, argc, argv);
  try {
    return raingauge::demo::run(flags);
  } catch (const std::exception& error) {
    std::cerr << "raingauge-demo-train: " << error.what() << "\n";
    return 1;
  }
}
