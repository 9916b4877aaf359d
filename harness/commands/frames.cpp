// SPDX-License-Identifier: Apache-2.0
// `raingauge frames REFERENCE TEST`: PSNR and SSIM of decoded clips.
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/frames.h"
#include "harness/commands/commands.h"
#include "harness/frame_rows.h"
#include "harness/table.h"

namespace raingauge {

int frames_command(const FramesCommand& options) {
  const Frames reference = read_frames(options.reference);
  const Frames test = read_frames(options.test);
  const nlohmann::json scores = frame_scores(reference, test, options.metrics);
  if (options.json) {
    std::printf("%s\n", scores.dump(1).c_str());
    return 0;
  }
  Table table({{"metric"}, {"mean"}, {"worst frame"}, {"infinite frames"}});
  for (const auto& [name, score] : scores.items()) {
    const auto& per_frame = score.at("per_frame");
    std::size_t worst = 0;
    for (std::size_t i = 1; i < per_frame.size(); ++i) {
      if (per_frame[i].is_null()) continue;
      if (per_frame[worst].is_null() || per_frame[i] < per_frame[worst]) worst = i;
    }
    const auto text = [](const nlohmann::json& value) {
      return value.is_null() ? std::string("inf") : format_number(value.get<double>(), 4);
    };
    table.add_row({name, text(score.at("mean")),
                   std::to_string(worst) + ": " +
                       text(per_frame.empty() ? nlohmann::json() : per_frame[worst]),
                   std::to_string(score.at("infinite").get<int>())});
  }
  std::printf("%s\n", table.text().c_str());
  std::printf(
      "PSNR and SSIM against another run of the same seed measure divergence, not quality.\n");
  return 0;
}

}  // namespace raingauge
