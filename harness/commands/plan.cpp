// SPDX-License-Identifier: Apache-2.0
// `raingauge plan`, `attend` and `mask`: one arm on one record.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/attention_file.h"
#include "data/capture.h"
#include "data/frames.h"
#include "data/plan_file.h"
#include "harness/commands/commands.h"
#include "harness/latency.h"
#include "harness/rows.h"
#include "methods/kernels/device.h"
#include "methods/kernels/registry.h"
#include "methods/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

// A record, an arm, and what the arm decided for it.
struct Planned {
  Arm arm;
  std::unique_ptr<Record> record;
  Plan plan;
};

Planned plan_record(const PlanCommand& options, const std::vector<int>& heads) {
  Planned planned;
  planned.arm = parse_arm(options.arm);
  const Capture capture = Capture::open(options.capture);
  planned.record = capture.load(capture.record(options.record), heads);
  MethodOptions method;
  method.match = options.match == "density" ? DensityMatch::measured : DensityMatch::nominal;
  method.threads = options.threads;
  method.base_folder = planned.arm.base_folder;
  State state;
  const RecordView view = planned.record->view();
  planned.plan = make_method(planned.arm.method, planned.arm.params, method)->plan(view, state);
  check_plan(planned.plan, view.key_valid);
  return planned;
}

// Exit code 2 and a message for what would be a row's outcome: unsupported, infeasible …
int refused(const std::exception& error) {
  std::fprintf(stderr, "raingauge: %s: %s\n", name_of(outcome_of(error)), error.what());
  return 2;
}

template <typename Work>
int with_outcome(Work work) {
  try {
    return work();
  } catch (const Unsupported& error) {
    return refused(error);
  } catch (const Infeasible& error) {
    return refused(error);
  } catch (const InvalidPlan& error) {
    return refused(error);
  } catch (const NotFinite& error) {
    return refused(error);
  }
}

}  // namespace

int plan_command(const PlanCommand& options) {
  return with_outcome([&] {
    const Planned planned = plan_record(options, options.heads);
    const auto& info = planned.record->info();
    PlanFile file;
    file.plan = planned.plan;
    file.capture = options.capture;
    file.record = std::to_string(options.record);
    file.arm = planned.arm.canonical().dump();
    file.method = planned.arm.method;
    file.heads = info.heads;
    file.nominal_density.assign(info.heads.size(), planned.plan.nominal_density);
    write_plan(options.out, file, true);
    const auto density = measure_density(planned.plan, planned.record->view().key_valid);
    if (options.json) {
      const json out = {{"path", options.out},
                        {"heads", info.heads},
                        {"density_pairs", density.pairs},
                        {"density_blocks", density.blocks},
                        {"nominal_density", number_or_null(planned.plan.nominal_density)},
                        {"query_blocks", planned.plan.q_blocks.blocks},
                        {"key_blocks", planned.plan.k_blocks.blocks}};
      std::printf("%s\n", out.dump(1).c_str());
    } else {
      std::printf("%s: %lld heads, %lld x %lld blocks, density %.4f of pairs, %.4f of blocks\n",
                  options.out.c_str(), static_cast<long long>(planned.plan.heads),
                  static_cast<long long>(planned.plan.q_blocks.blocks),
                  static_cast<long long>(planned.plan.k_blocks.blocks), density.mean_pairs,
                  density.mean_blocks);
    }
    return 0;
  });
}

int attend_command(const PlanCommand& options) {
  return with_outcome([&] {
    const Device device = parse_device(options.device);
    check_device(device);
    const Planned planned = plan_record(options, options.heads);
    const auto& info = planned.record->info();
    const std::string name = usual_kernel(options.kernel, device.kind);
    const auto kernel = make_kernel(name, {.threads = options.threads, .isa = {}});
    const auto arena = make_arena(planned.record->view(), device);
    if (const Support reason = kernel->supports(planned.plan, arena->inputs())) {
      throw Unsupported("kernel " + name + ": " + *reason);
    }
    const auto prepared = kernel->prepare(planned.plan, arena->inputs());
    kernel->attend(*prepared, arena->inputs(), arena->outputs());
    kernel->synchronize();
    const AttendOutputs host = arena->host_outputs();
    AttentionFile file;
    file.heads = info.head_count();
    file.tokens = info.tokens;
    file.head_dim = info.head_dim;
    const auto rows = static_cast<std::size_t>(file.heads * file.tokens);
    file.o.assign(host.o, host.o + rows * static_cast<std::size_t>(file.head_dim));
    if (kernel->gives_lse()) file.lse.assign(host.lse, host.lse + rows);
    file.head_numbers = info.heads;
    file.attributes = {{"capture", options.capture},
                       {"record", std::to_string(options.record)},
                       {"arm", planned.arm.canonical().dump()},
                       {"kernel", name},
                       {"device", to_string(device)}};
    write_attention_file(options.out, file);
    std::printf("%s: o [%lld, %lld, %lld]%s\n", options.out.c_str(),
                static_cast<long long>(file.heads), static_cast<long long>(file.tokens),
                static_cast<long long>(file.head_dim), file.lse.empty() ? ", no lse" : ", lse");
    return 0;
  });
}

// One pixel square a block pair: kept (blue), forced (orange), left out (near white).
int mask_command(const PlanCommand& options) {
  return with_outcome([&] {
    const Planned planned = plan_record(options, {options.head});
    const Plan& plan = planned.plan;
    const auto rows = plan.q_blocks.blocks;
    const auto columns = plan.k_blocks.blocks;
    const auto cell = std::max<std::int64_t>(1, 768 / std::max(rows, columns));
    Frames image{1, rows * cell, columns * cell, {}};
    image.rgb.assign(static_cast<std::size_t>(image.height * image.width * 3), 244);
    const auto paint = [&](const BlockLists& lists, std::array<std::uint8_t, 3> colour) {
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t n = 0; n < lists.count(0, i); ++n) {
          const auto column = lists.begin(0, i)[n];
          for (std::int64_t y = i * cell; y < (i + 1) * cell; ++y) {
            for (std::int64_t x = column * cell; x < (column + 1) * cell; ++x) {
              std::copy_n(colour.begin(), 3, image.rgb.begin() + (y * image.width + x) * 3);
            }
          }
        }
      }
    };
    paint(plan.lists, {31, 97, 170});
    if (plan.forced) paint(*plan.forced, {222, 132, 33});
    write_png(options.out, image);
    std::printf("%s: %lld x %lld blocks; blue kept by score, orange forced\n", options.out.c_str(),
                static_cast<long long>(rows), static_cast<long long>(columns));
    return 0;
  });
}

}  // namespace raingauge
