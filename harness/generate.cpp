// SPDX-License-Identifier: Apache-2.0
// The end-to-end arm: denoise a clip with an arm's attention at every step, decode it, and compare the
// frames with those of dense attention (divergence) and with the true clip (quality).
#include <chrono>
#include <cmath>

#include "data/frames.h"
#include "harness/demo_capture.h"
#include "harness/frame_rows.h"
#include "harness/live_attention.h"
#include "harness/rows.h"
#include "harness/runner.h"
#ifdef RAINGAUGE_WITH_TORCH
#include "data/demo/demo.h"
#endif

namespace raingauge {

#ifdef RAINGAUGE_WITH_TORCH
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// One decoded clip and what it cost.
struct Generated {
  Frames frames;
  double attention_ms = std::nan("");  // not measured for native attention
  double total_ms = 0.0;
  double density = 1.0;
};

// What a row is made of: an arm as generated, and the kernel that executed it ("" = native).
struct GenerateArm {
  Arm arm;
  std::string kernel;
};

class Generation {
 public:
  explicit Generation(const RunContext& context)
      : context_(context),
        plan_(context.experiment.generate),
        model_(demo::Demo::load("", context.device, context.threads)) {}

  void run() {
    const auto arms = all_arms();
    context_.progress.part("generate",
                           static_cast<double>(plan_.clips) * static_cast<double>(arms.size()));
    for (int i = 0; i < plan_.clips; ++i) {
      request_ = request(plan_.seed + static_cast<std::uint64_t>(i));
      dense_.reset();
      for (const auto& arm : arms) clip_of_arm(arm);
    }
  }

 private:
  demo::ClipRequest request(std::uint64_t seed) const {
    demo::ClipRequest request;
    request.seed = seed;
    request.mode =
        plan_.mode == "text_to_video" ? demo::Mode::text_to_video : demo::Mode::image_to_video;
    request.frames = plan_.grid.at(0);
    request.grid_h = plan_.grid.at(1);
    request.grid_w = plan_.grid.at(2);
    request.steps = plan_.steps;
    return request;
  }

  std::string sparse_kernel() const {
    return context_.device.kind == DeviceKind::cuda ? "cuda" : "cpu";
  }

  static Arm dense_arm(const std::string& name) {
    Arm arm;
    arm.name = arm.base = name;
    arm.method = "dense";
    arm.params = {{"block", 128}};
    return arm;
  }

  // Dense by the model's own attention, dense by other kernels (the floor: how far two numerically
  // different dense runs are apart), then the arms.
  std::vector<GenerateArm> all_arms() const {
    std::vector<GenerateArm> arms = {{dense_arm("dense"), ""}};
    std::vector<std::string> others = {sparse_kernel()};
    if (context_.device.kind == DeviceKind::cpu) {
      others.insert(others.end(), {"torch_chunked", "reference"});
    } else {
      others.push_back("torch_sdpa");
    }
    for (int i = 0; i < plan_.floor_runs && i < static_cast<int>(others.size()); ++i) {
      const auto& kernel = others[static_cast<std::size_t>(i)];
      arms.push_back({dense_arm("dense (" + kernel + ")"), kernel});
    }
    for (const auto& arm : generate_arms(context_.experiment))
      arms.push_back({arm, sparse_kernel()});
    return arms;
  }

  void clip_of_arm(const GenerateArm& arm) {
    const auto cell = cell_hash({{"stage", "generate"},
                                 {"weights", model_.weights_sha256()},
                                 {"arm", arm_identity(arm.arm)},
                                 {"name", arm.arm.name},
                                 {"kernel", arm.kernel},
                                 {"device", to_string(context_.device)},
                                 {"seed", request_.seed},
                                 {"clip", {plan_.mode, plan_.grid, plan_.steps}},
                                 {"references", plan_.references},
                                 {"metrics", plan_.metrics}});
    context_.progress.begin("clip " + std::to_string(request_.seed) + ": " + arm.arm.name);
    if (context_.folder.done("generate", cell)) {
      context_.progress.skip(1.0);
      return;
    }
    std::vector<json> rows;
    try {
      const Generated result = generated(arm);
      for (const auto& reference : plan_.references) {
        if (reference == "dense" && arm.arm.name == "dense") continue;
        rows.push_back(row(cell, arm, reference));
        add_result(rows.back(), result, reference);
      }
    } catch (const std::exception& error) {
      rows = {row(cell, arm, "")};
      rows.back()["outcome"] = name_of(outcome_of(error));
      rows.back()["reason"] = error.what();
    }
    if (rows.empty()) rows.push_back(row(cell, arm, ""));
    context_.folder.append("generate", rows);
    context_.progress.advance(1.0);
  }

  json row(const std::string& cell, const GenerateArm& arm, const std::string& reference) const {
    json row = {{"schema", kRowSchema},
                {"cell", cell},
                {"clip", request_.seed},
                {"seed", request_.seed},
                {"mode", plan_.mode},
                {"grid", plan_.grid},
                {"steps", plan_.steps},
                {"arm", arm.arm.name},
                {"method", arm.arm.method},
                {"params", arm.arm.canonical()},
                {"kernel", arm.kernel.empty() ? "native" : arm.kernel},
                {"device", to_string(context_.device)},
                {"outcome", "ok"},
                {"reason", ""},
                {"reference", reference},
                {"metrics", json::object()}};
    add_calibration(row, arm.arm);
    return row;
  }

  void add_result(json& row, const Generated& result, const std::string& reference) {
    const Frames& other = reference == "truth" ? truth() : dense().frames;
    row["metrics"] = frame_scores(other, result.frames, plan_.metrics, context_.threads);
    row["density_pairs"] = result.density;
    row["attention_ms"] = number_or_null(result.attention_ms);
    row["total_ms"] = result.total_ms;
  }

  Generated generated(const GenerateArm& arm) {
    if (arm.arm.name == "dense") return dense();
    LiveAttention live(arm.arm, arm.kernel, model_.segments(request_),
                       "clip " + std::to_string(request_.seed), context_.device, context_.threads);
    demo::ClipOptions options;
    options.attention = [&live, this](const demo::AttentionCall& call) {
      const auto view = [&](const std::uint16_t* data) {
        return contiguous_view(data, DType::bf16, call.heads, call.tokens, call.head_dim,
                               context_.device);
      };
      live({call.site, call.scale, view(call.q), view(call.k), view(call.v), call.o});
    };
    Generated result = denoise(options);
    result.attention_ms = live.milliseconds();
    result.density = live.density();
    save(arm.arm.name, result.frames);
    return result;
  }

  Generated denoise(demo::ClipOptions& options) const {
    options.progress = [this](int done, int steps) {
      context_.progress.note(static_cast<double>(done) / steps);
    };
    const auto start = std::chrono::steady_clock::now();
    Generated result;
    result.frames = model_.generate(request_, options);
    result.total_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    return result;
  }

  const Generated& dense() {
    if (!dense_) {
      demo::ClipOptions native;
      dense_ = denoise(native);
      save("dense", dense_->frames);
      save("truth", truth());
    }
    return *dense_;
  }

  const Frames& truth() {
    truth_ = model_.truth(request_);
    return truth_;
  }

  // Raw frames beside the rows, for `raingauge frames` and for pictures.
  void save(const std::string& arm, const Frames& frames) const {
    const fs::path folder = context_.folder.path() / "frames";
    fs::create_directories(folder);
    write_npy((folder / (arm + ".clip" + std::to_string(request_.seed) + ".npy")).string(), frames);
  }

  const RunContext& context_;
  const GeneratePlan& plan_;
  demo::Demo model_;
  demo::ClipRequest request_;
  std::optional<Generated> dense_;
  Frames truth_;
};

}  // namespace

void run_generate(const RunContext& context) { Generation(context).run(); }

#else

void run_generate(const RunContext&) {
  throw Unsupported("generate: the demo DiT needs libtorch, which this build does not have");
}

#endif

std::vector<Arm> generate_arms(const Experiment& experiment) {
  const auto& plan = experiment.generate;
  std::vector<Arm> arms;
  for (const auto& name : plan.arms) {
    for (const Arm* match : match_arms(experiment.arms, name)) {
      Arm arm = *match;
      arm.dense_steps = plan.dense_steps.empty() ? arm.dense_steps : plan.dense_steps;
      arm.dense_layers = plan.dense_layers.empty() ? arm.dense_layers : plan.dense_layers;
      if (plan.density >= 0.0 && arm.params.contains("density")) {
        arm.params["density"] = plan.density;
        arm.density = plan.density;
        arm.name = name;
      }
      arms.push_back(arm);
      if (plan.density >= 0.0) break;  // the density factor does not matter: one arm stands for all
    }
  }
  return arms;
}

}  // namespace raingauge
