// SPDX-License-Identifier: Apache-2.0
// `raingauge frames REFERENCE TEST`: every frame metric of two decoded clips.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/frames.h"
#include "harness/commands/commands.h"
#include "harness/frame_rows.h"
#include "harness/table.h"
#include "metrics/frames/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

void check_options(const FramesCommand& options) {
  for (const auto& name : options.metrics) find_frame_metric(name);
  if (options.flow != "dis") {
    throw Unsupported(
        "--flow " + options.flow +
        ": allowed is dis (OpenCV's DIS, preset medium). Networks such as FastFlowNet "
        "are not ported: their weights cannot be used");
  }
  if (!(options.fps == 0.0 || (options.fps > 0.0 && options.fps <= 1000.0))) {
    throw Error("--fps " + std::to_string(options.fps) + ": allowed: in (0, 1000]");
  }
}

void warn_if_lossy(const std::string& source, const Frames& frames) {
  if (frames.lossy.empty()) return;
  std::fprintf(
      stderr,
      "raingauge: warning: %s: the frames went through %s: every number below measures that "
      "as well. Compare .npy, PNG folders or frames in .h5 where you can.\n",
      source.c_str(), frames.lossy.c_str());
}

std::string text_of(const json& value) {
  return value.is_null() ? "n/a" : format_number(value.get<double>(), 4);
}

std::string worst_text(const json& score) {
  const json& worst = score.at("worst");
  if (worst.is_null()) return "";
  const auto frame = worst.at("frame").get<int>();
  std::string text = std::to_string(frame);
  if (score.at("pairs").get<bool>()) {
    text += "-" + std::to_string(frame + score.at("step").get<int>());
  }
  return text + ": " + text_of(worst.at("value"));
}

std::vector<std::string> table_row(const std::string& name, const json& score) {
  const auto& unit = find_frame_metric(name).spec.unit;
  // All frames identical: the mean is infinite, not missing.
  const bool all_infinite = score.at("mean").is_null() && score.at("infinite") > 0;
  return {name,
          all_infinite ? "inf" : text_of(score.at("mean")),
          unit == "1" ? "" : std::string(unit),
          score.contains("reference") ? text_of(score["reference"].at("mean")) : "",
          worst_text(score),
          std::to_string(score.at("infinite").get<int>()),
          std::to_string(score.at("undefined").get<int>())};
}

// What no column holds: reasons, places, companions of a mean.
void print_notes(const std::string& name, const json& score) {
  if (const auto reason = score.at("reason").get<std::string>(); !reason.empty()) {
    std::printf("n/a: %s\n", reason.c_str());
  }
  if (const json& worst = score.at("worst"); !worst.is_null() && worst.contains("patch")) {
    const json& patch = worst["patch"];
    std::printf("%s: worst in frame %d, columns from %d, rows from %d, %d x %d pixels\n",
                name.c_str(), worst.at("frame").get<int>(), patch.at("x").get<int>(),
                patch.at("y").get<int>(), patch.at("width").get<int>(),
                patch.at("height").get<int>());
  }
  if (!score.contains("also")) return;
  std::string also;
  for (const auto& [key, value] : score.at("also").items()) {
    also += (also.empty() ? " " : ", ") + key + " " + text_of(value);
  }
  std::printf("%s:%s\n", name.c_str(), also.c_str());
}

void print_scores(const json& scores, const Frames& reference) {
  Table table({{"metric"},
               {"mean", Align::right},
               {"unit"},
               {"reference alone", Align::right},
               {"worst frame"},
               {"infinite", Align::right},
               {"undefined", Align::right}});
  for (const auto& [name, score] : scores.items()) table.add_row(table_row(name, score));
  std::printf("%s\n", table.text().c_str());
  for (const auto& [name, score] : scores.items()) print_notes(name, score);
  std::printf("%d of %lld frames are identical. Means leave infinite and undefined values out.\n",
              scores.empty() ? 0 : scores.begin().value().at("identical").get<int>(),
              static_cast<long long>(reference.frames));
  std::printf("Against another run of the same seed these measure divergence, not quality.\n");
}

// reference | test | difference x8 of the worst patch, each pixel four times as wide.
void write_worst(const std::string& path, const Frames& reference, const Frames& test,
                 int threads) {
  const json worst =
      frame_scores(reference, test, {"psnr_worst_patch"}, threads)["psnr_worst_patch"]["worst"];
  if (worst.is_null()) throw Error(path + ": the clips are identical, there is no worst patch");
  const json& patch = worst.at("patch");
  const auto crop = [&](const Frames& clip) {
    return crop_frame(clip, worst.at("frame"), patch.at("x"), patch.at("y"), patch.at("width"),
                      patch.at("height"), 4);
  };
  const Frames a = crop(reference);
  const Frames b = crop(test);
  Frames row{3, a.height, a.width, a.rgb};
  for (const Frames& next : {b, difference_frames(a, b)}) {
    row.rgb.insert(row.rgb.end(), next.rgb.begin(), next.rgb.end());
  }
  const Frames* clips[] = {&row};
  const int columns[] = {0, 1, 2};
  write_png(path, contact_sheet(clips, columns, 4));
}

}  // namespace

int frames_command(const FramesCommand& options) {
  check_options(options);
  const Frames reference = read_frames(options.reference);
  const Frames test = read_frames(options.test);
  warn_if_lossy(options.reference, reference);
  warn_if_lossy(options.test, test);
  const json scores = frame_scores(reference, test, options.metrics, options.threads, options.fps);
  if (!options.metrics.empty()) {
    for (const json& score : scores) {
      const auto reason = score.at("reason").get<std::string>();
      if (!reason.empty()) throw Unsupported(reason);  // it was asked for by name
    }
  }
  if (!options.worst.empty()) write_worst(options.worst, reference, test, options.threads);
  if (options.json) {
    std::printf("%s\n", scores.dump(1).c_str());
  } else {
    print_scores(scores, reference);
  }
  return 0;
}

}  // namespace raingauge
