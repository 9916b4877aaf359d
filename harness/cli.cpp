// SPDX-License-Identifier: Apache-2.0
#include "harness/cli.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <string_view>

#include "data/error.h"
#include "harness/commands/commands.h"
#include "harness/source.h"

namespace raingauge {
namespace {

// Every subcommand stores its work here; parsing only fills in options.
using Action = std::function<int()>;

constexpr const char* kFooter =
    "Examples:\n"
    "  raingauge run experiments/quickstart.yaml            replay, judge, time, compare frames\n"
    "  raingauge run experiments/quickstart.yaml --dry-run  what it would do, and how much\n"
    "  raingauge list methods                               what can be compared\n"
    "  raingauge explain rainfusion2                        its keys, defaults and sources\n"
    "Exit codes: 0 done; 1 usage or configuration error; 2 a row is incorrect, invalid_plan,\n"
    "not_finite or failed (--strict: also unsupported, infeasible, skipped), or `compare` found\n"
    "something worse (--strict: undecided); 3 nothing matched.";

void add_machine(CLI::App* app, std::string& device, int& threads) {
  app->add_option("--device", device, "cpu or cuda:N")->capture_default_str();
  app->add_option("--threads", threads, "CPU threads (0 = all)")->capture_default_str();
}

void add_run(CLI::App& app, Action& action) {
  auto options = std::make_shared<RunCommand>();
  auto* command = app.add_subcommand("run", "run an experiment: replay, judge, time, report");
  command->add_option("experiment", options->experiment, "EXPERIMENT.yaml")->required();
  command->add_option("--out", options->out, "folder of the run (default: runs/<name>)");
  command->add_option("--set", options->overrides, "override a key, for example rf2.density=0.3")
      ->allow_extra_args(false);
  command->add_option("--only", options->only, "run this arm alone: reruns a row of a report");
  add_machine(command, options->device, options->threads);
  command->add_flag("--dry-run", options->dry_run,
                    "print arms, cells, memory and time; compute nothing");
  command->add_flag("--fresh", options->fresh, "discard what the folder holds");
  command->add_flag("--strict", options->strict,
                    "unsupported, infeasible and skipped rows count as bad");
  command->add_flag("--quiet", options->quiet, "no progress");
  command->callback([&action, options] { action = [options] { return run_command(*options); }; });
}

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<ReportCommand>();
  auto* command = app.add_subcommand("report", "tables of finished runs");
  command->add_option("runs", options->runs, "folders of runs")->required();
  command->add_option("--format", options->formats, "any of console,html,md,csv,json,tex")
      ->capture_default_str();
  command->callback(
      [&action, options] { action = [options] { return report_command(*options); }; });
}

void add_compare(CLI::App& app, Action& action) {
  auto options = std::make_shared<CompareCommand>();
  auto* command = app.add_subcommand("compare", "is run B better, worse, or the same as run A?");
  command->add_option("a", options->a, "folder of run A")->required();
  command->add_option("b", options->b, "folder of run B")->required();
  command
      ->add_option("--tolerance", options->tolerance,
                   "METRIC=VALUE: a difference that counts as none (total_ms: relative)")
      ->allow_extra_args(false);
  command->add_flag("--json", options->json, "for programs");
  command->add_flag("--strict", options->strict, "undecided counts as worse (exit code 2)");
  command->callback(
      [&action, options] { action = [options] { return compare_command(*options); }; });
}

void add_schedule(CLI::App& app, Action& action) {
  auto options = std::make_shared<ScheduleCommand>();
  auto* command = app.add_subcommand(
      "schedule", "the cheapest setting for every layer, step and head under an error bound");
  command->add_option("run", options->run, "folder of a run")->required();
  command
      ->add_option("--max-error", options->max_error,
                   "METRIC=VALUE; a metric that is better high counts as 1 - value")
      ->required();
  command->add_option("--out", options->out, "JSON file for {method: schedule, path: FILE}")
      ->required();
  command->callback(
      [&action, options] { action = [options] { return schedule_command(*options); }; });
}

void add_list(CLI::App& app, Action& action) {
  auto list = std::make_shared<ListCommand>();
  auto* command = app.add_subcommand("list", "what this build knows");
  command
      ->add_option("what", list->what,
                   "methods, orders, selectors, scores, metrics, kernels or devices")
      ->required();
  command->add_flag("--json", list->json, "for programs");
  command->callback([&action, list] { action = [list] { return list_command(*list); }; });

  auto explain = std::make_shared<ExplainCommand>();
  auto* explain_app =
      app.add_subcommand("explain", "keys, defaults, ranges and sources of one name");
  explain_app->add_option("name", explain->name, "a name of any list")->required();
  explain_app->add_flag("--json", explain->json, "for programs");
  explain_app->callback(
      [&action, explain] { action = [explain] { return explain_command(*explain); }; });
}

void add_selection(CLI::App* command, const std::shared_ptr<CaptureCommand>& options) {
  command->add_option("--records", options->records, "record numbers (default: all)")
      ->delimiter(',');
  command->add_option("--heads", options->heads, "original head numbers (default: all)")
      ->delimiter(',');
  command->add_option("--layers", options->layers, "layers (default: all)")->delimiter(',');
  command->add_option("--steps", options->steps, "steps (default: all)")->delimiter(',');
}

// How arrays of another program are to be read.
void add_import(CLI::App* command, const std::shared_ptr<CaptureCommand>& options) {
  command->add_option("--grid", options->grid, "from arrays: frames,height,width in tokens")
      ->delimiter(',');
  command->add_option("--text-pos", options->text_pos, "from arrays: where text stands")
      ->check(CLI::IsMember({"front", "back"}));
  command->add_option("--layout", options->layout, "from arrays: heads first or tokens first")
      ->check(CLI::IsMember({"hnd", "nhd", "bhnd", "bnhd"}));
  command->add_option("--as-step", options->step, "from arrays: its step")->capture_default_str();
  command->add_option("--as-layer", options->layer, "from arrays: its layer")
      ->capture_default_str();
  command->add_option("--as-branch", options->branch, "from arrays: its guidance branch")
      ->capture_default_str();
  command->add_option("--scale", options->scale, "from arrays: softmax(scale * q.k)");
}

void add_parity(CLI::App& app, Action& action) {
  auto options = std::make_shared<ParityCommand>();
  auto* command = app.add_subcommand(
      "parity", "does another program give the output, or the mask, that ours gives?");
  command->add_option("ours", options->ours, "a file of `attend --out` or of `plan --out`")
      ->required();
  command->add_option("theirs", options->theirs, ".npy, .safetensors, or another such file")
      ->required();
  command->add_option("--tensor", options->tensor, "its name, where a file holds several");
  command->add_option("--layout", options->layout, "heads first or tokens first (default: told)")
      ->check(CLI::IsMember({"hnd", "nhd"}));
  command->add_option("--tolerance", options->tolerance, "of the relative L2 distance of a head")
      ->capture_default_str();
  command->add_flag("--json", options->json, "for programs");
  command->callback(
      [&action, options] { action = [options] { return parity_command(*options); }; });
}

void add_capture(CLI::App& app, Action& action) {
  auto* capture = app.add_subcommand("capture", "look at, check, cut and make captures");
  capture->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, int (*run)(const CaptureCommand&)) {
    auto options = std::make_shared<CaptureCommand>();
    auto* command = capture->add_subcommand(name, help);
    command->callback(
        [&action, options, run] { action = [options, run] { return run(*options); }; });
    return std::pair{command, options};
  };
  for (const auto& [name, help, run] :
       {std::tuple{"info", "records, shapes, grids, bytes", &capture_info_command},
        std::tuple{"validate", "deep check: finite, hashes, scale, completeness",
                   &capture_validate_command}}) {
    auto [command, options] = add(name, help, run);
    command->add_option("capture", options->capture, "CAPTURE.h5")->required();
    command->add_flag("--json", options->json, "for programs");
  }
  for (const auto& [name, help, run] :
       {std::tuple{"slice", "copy some records and heads", &capture_slice_command},
        std::tuple{"convert", "to and from .safetensors and folders of .npy; dtype, compression",
                   &capture_convert_command}}) {
    auto [command, options] = add(name, help, run);
    command->add_option("capture", options->capture, "CAPTURE.h5")->required();
    command->add_option("--out", options->out, "file to write")->required();
    add_selection(command, options);
    command->add_option("--dtype", options->dtype, "f32, f16 or bf16 (default: as stored)");
    command->add_flag("--compress", options->compress, "shuffle + gzip-1, chunked");
    command->add_flag("--overwrite", options->overwrite, "replace an existing file");
    if (std::string_view(name) == "convert") add_import(command, options);
  }
  auto [diff, diff_options] =
      add("diff", "are two captures the same, record by record?", capture_diff_command);
  diff->add_option("capture", diff_options->capture, "CAPTURE.h5")->required();
  diff->add_option("other", diff_options->other, "CAPTURE.h5")->required();
  diff->add_option("--tolerance", diff_options->tolerance, "of the relative L2 distance of a head")
      ->capture_default_str();
  diff->add_flag("--json", diff_options->json, "for programs");
  for (const auto& [name, help, run] :
       {std::tuple{"synth", "write planted records: '{model: flux, heads: 4}'",
                   &capture_synth_command},
        std::tuple{"record", "record the demo DiT: '{clips: 1, mode: image_to_video}'",
                   &capture_record_command}}) {
    auto [command, options] = add(name, help, run);
    command->add_option("spec", options->spec, "an inline YAML mapping")->capture_default_str();
    command->add_option("--out", options->out, "file to write")->required();
    add_selection(command, options);
    command->add_flag("--compress", options->compress, "shuffle + gzip-1, chunked");
    command->add_flag("--overwrite", options->overwrite, "replace an existing file");
    add_machine(command, options->device, options->threads);
  }
}

void add_plans(CLI::App& app, Action& action) {
  const auto add = [&](const char* name, const char* help, int (*run)(const PlanCommand&),
                       const char* out_flag) {
    auto options = std::make_shared<PlanCommand>();
    auto* command = app.add_subcommand(name, help);
    command->add_option("capture", options->capture, "CAPTURE.h5")->required();
    command->add_option("--record", options->record, "number in /records/")->capture_default_str();
    command
        ->add_option("--arm", options->arm,
                     "inline YAML '{method: rainfusion2, density: 0.2}' or EXPERIMENT.yaml:NAME")
        ->required();
    command->add_option(out_flag, options->out, "file to write")->required();
    command->add_option("--match", options->match, "nominal, or density: solve for measured pairs")
        ->check(CLI::IsMember({"nominal", "density"}))
        ->capture_default_str();
    command->add_option("--threads", options->threads, "CPU threads (0 = all)")
        ->capture_default_str();
    command->callback(
        [&action, options, run] { action = [options, run] { return run(*options); }; });
    return std::pair{command, options};
  };
  auto [plan, plan_options] =
      add("plan", "write what an arm decides for a record", plan_command, "--out");
  plan->add_option("--heads", plan_options->heads, "original head numbers (default: all)")
      ->delimiter(',');
  plan->add_flag("--json", plan_options->json, "for programs");
  auto [attend, attend_options] = add(
      "attend", "run one kernel on one record and arm; write o and lse", attend_command, "--out");
  attend->add_option("--heads", attend_options->heads, "original head numbers (default: all)")
      ->delimiter(',');
  attend->add_option("--kernel", attend_options->kernel,
                     "a name of `raingauge list kernels`, or python:FILE (default: ours)");
  attend->add_option("--device", attend_options->device, "cpu or cuda:N")->capture_default_str();
  auto [mask, mask_options] = add("mask", "draw the block mask of one head", mask_command, "--png");
  mask->add_option("--head", mask_options->head, "original head number")->capture_default_str();
}

void add_calibrate(CLI::App& app, Action& action) {
  auto options = std::make_shared<CalibrateCommand>();
  auto* command = app.add_subcommand(
      "calibrate", "write what a method learns from captures, for the key `calibration`");
  command->add_option("inputs", options->inputs, "one EXPERIMENT.yaml, or CAPTURE.h5 files")
      ->required();
  command
      ->add_option("--arm", options->arm,
                   "a method, or any method with an order, that has a key `calibration`: "
                   "'{method: paro}', '{method: rainfusion2, order: paro}'")
      ->required();
  command->add_option("--out", options->out, "file to write")->required();
  command->add_option("--layers", options->layers, "layers (default: all)")->delimiter(',');
  command->add_option("--steps", options->steps, "steps (default: all)")->delimiter(',');
  command->add_option("--heads", options->heads, "original head numbers (default: all)")
      ->delimiter(',');
  command->add_flag("--overwrite", options->overwrite, "replace an existing file");
  add_machine(command, options->device, options->threads);
  command->callback(
      [&action, options] { action = [options] { return calibrate_command(*options); }; });
}

void add_generate(CLI::App& app, Action& action) {
  auto options = std::make_shared<GenerateCommand>();
  auto* command = app.add_subcommand("generate", "denoise a clip of the demo DiT with any arm");
  command->add_option("--arm", options->arm, "inline YAML or EXPERIMENT.yaml:NAME")
      ->capture_default_str();
  command->add_option("--out", options->out, "CLIP.mp4, .y4m, .npy or a folder of PNG files")
      ->required();
  command->add_option("--seed", options->seed, "of scene and noise")->capture_default_str();
  command->add_option("--mode", options->mode, "image_to_video or text_to_video")
      ->check(CLI::IsMember({"image_to_video", "text_to_video"}))
      ->capture_default_str();
  command->add_option("--grid", options->grid, "frames,height,width in tokens")
      ->delimiter(',')
      ->expected(3)
      ->capture_default_str();
  command->add_option("--steps", options->steps, "denoising steps")->capture_default_str();
  command->add_option("--kernel", options->kernel,
                      "kernel that executes the plans (default: ours)");
  add_machine(command, options->device, options->threads);
  command->add_flag("--json", options->json, "for programs");
  command->callback(
      [&action, options] { action = [options] { return generate_command(*options); }; });
}

void add_frames(CLI::App& app, Action& action) {
  auto options = std::make_shared<FramesCommand>();
  auto* command = app.add_subcommand(
      "frames", "compare two clips: PSNR, SSIM, warping error, flow, flicker, motion");
  command
      ->add_option("reference", options->reference,
                   "PNG folder, .npy, .y4m, .mp4 or FILE.h5:/frames/ARM")
      ->required();
  command->add_option("test", options->test, "likewise")->required();
  command
      ->add_option("--metrics", options->metrics,
                   "names, see `raingauge list metrics` (default: all)")
      ->delimiter(',');
  command->add_option("--fps", options->fps,
                      "frames a second, for dynamic_degree (default: the file's, else 16)");
  command->add_option("--flow", options->flow, "optical flow of the metrics of motion: dis")
      ->capture_default_str();
  command->add_option("--worst", options->worst,
                      "PNG of the worst patch: reference, test, difference x8");
  command->add_option("--threads", options->threads, "CPU threads (0 = all)")
      ->capture_default_str();
  command->add_flag("--json", options->json, "for programs");
  command->callback(
      [&action, options] { action = [options] { return frames_command(*options); }; });
}

}  // namespace

int run_cli(int argc, char** argv) {
  CLI::App app(
      "raingauge: replays captured attention of diffusion transformers through sparse methods "
      "and measures what is lost and gained");
  app.name("raingauge");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("raingauge ") + RAINGAUGE_VERSION);
  app.require_subcommand(1);
  Action action;
  add_run(app, action);
  add_report(app, action);
  add_compare(app, action);
  add_schedule(app, action);
  add_list(app, action);
  add_capture(app, action);
  add_parity(app, action);
  add_plans(app, action);
  add_calibrate(app, action);
  add_generate(app, action);
  add_frames(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 1;
  }
  try {
    return action();
  } catch (const NothingMatches& error) {
    std::fprintf(stderr, "raingauge: %s\n", error.what());
    return 3;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "raingauge: out of memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "raingauge: %s\n", error.what());
  }
  return 1;
}

}  // namespace raingauge
