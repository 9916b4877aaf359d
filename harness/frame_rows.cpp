// SPDX-License-Identifier: Apache-2.0
#include "harness/frame_rows.h"

#include <algorithm>

#include "data/error.h"
#include "data/frames.h"
#include "harness/rows.h"
#include "metrics/frames/registry.h"

namespace raingauge {
namespace {

using nlohmann::json;

ClipView view_of(const Frames& frames, double fps) {
  return {frames.rgb.data(), static_cast<int>(frames.frames), static_cast<int>(frames.height),
          static_cast<int>(frames.width), fps};
}

double chosen_fps(const Frames& reference, const Frames& test, double fps) {
  for (const double candidate : {fps, test.fps, reference.fps}) {
    if (candidate > 0.0) return candidate;
  }
  return kUsualFps;
}

int identical_frames(const ClipView& reference, const ClipView& test) {
  if (reference.frame_bytes() != test.frame_bytes()) return 0;
  int count = 0;
  for (int t = 0; t < std::min(reference.frames, test.frames); ++t) {
    const auto* frame = reference.frame(t);
    count += std::equal(frame, frame + reference.frame_bytes(), test.frame(t)) ? 1 : 0;
  }
  return count;
}

json numbers(const std::vector<double>& values) {
  json list = json::array();
  for (const double value : values) list.push_back(number_or_null(value));
  return list;
}

json worst_of(const FrameMetricEntry& metric, const FrameScore& score) {
  const int worst = worst_frame(metric, score);
  if (worst < 0) return nullptr;
  const auto index = static_cast<std::size_t>(worst);
  json result = {{"frame", worst * score.step}, {"value", score.per_frame[index]}};
  if (index < score.patches.size()) {
    const Patch& patch = score.patches[index];
    result["patch"] = {
        {"x", patch.x}, {"y", patch.y}, {"width", patch.width}, {"height", patch.height}};
  }
  return result;
}

json score_object(const FrameMetricEntry& metric, const FrameScore& score) {
  json object = {{"mean", number_or_null(score.mean)}, {"per_frame", numbers(score.per_frame)},
                 {"infinite", score.infinite},         {"undefined", score.undefined},
                 {"pairs", metric.of_pairs},           {"step", score.step},
                 {"worst", worst_of(metric, score)},   {"reason", ""}};
  if (!score.reference_per_frame.empty()) {
    object["reference"] = {{"mean", number_or_null(score.reference_mean)},
                           {"per_frame", numbers(score.reference_per_frame)}};
  }
  for (const auto& [name, value] : score.also) {
    object["also"][std::string(name)] = number_or_null(value);
  }
  return object;
}

json scored(const FrameMetricEntry& metric, const ClipView& reference, const ClipView& test,
            int threads) {
  try {
    return score_object(metric, score_frames(metric, reference, test, threads));
  } catch (const Unsupported& refusal) {
    json object = score_object(metric, FrameScore{});
    object["reason"] = refusal.what();
    return object;
  }
}

}  // namespace

json frame_scores(const Frames& reference, const Frames& test,
                  const std::vector<std::string>& metrics, int threads, double fps) {
  std::vector<std::string> names = metrics;
  if (names.empty()) {
    for (const auto& entry : frame_metric_registry()) names.emplace_back(entry.spec.name);
  }
  const double rate = chosen_fps(reference, test, fps);
  const ClipView a = view_of(reference, rate);
  const ClipView b = view_of(test, rate);
  const int identical = identical_frames(a, b);
  json scores = json::object();
  for (const auto& name : names) {
    scores[name] = scored(find_frame_metric(name), a, b, threads);
    scores[name]["identical"] = identical;
  }
  return scores;
}

}  // namespace raingauge
