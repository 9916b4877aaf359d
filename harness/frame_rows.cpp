// SPDX-License-Identifier: Apache-2.0
#include "harness/frame_rows.h"

#include "harness/rows.h"
#include "metrics/frames/registry.h"

namespace raingauge {
namespace {

ClipView view_of(const Frames& frames) {
  return {frames.rgb.data(), static_cast<int>(frames.frames), static_cast<int>(frames.height),
          static_cast<int>(frames.width)};
}

}  // namespace

nlohmann::json frame_scores(const Frames& reference, const Frames& test,
                            const std::vector<std::string>& metrics, int threads) {
  std::vector<std::string> names = metrics;
  if (names.empty()) {
    for (const auto& entry : frame_metric_registry()) names.emplace_back(entry.spec.name);
  }
  nlohmann::json scores = nlohmann::json::object();
  for (const auto& name : names) {
    const FrameScore score =
        score_frames(find_frame_metric(name), view_of(reference), view_of(test), threads);
    nlohmann::json per_frame = nlohmann::json::array();
    for (const double value : score.per_frame) per_frame.push_back(number_or_null(value));
    scores[name] = {{"mean", number_or_null(score.mean)},
                    {"per_frame", per_frame},
                    {"infinite", score.infinite}};
  }
  return scores;
}

}  // namespace raingauge
