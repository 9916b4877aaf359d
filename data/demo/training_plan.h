// SPDX-License-Identifier: Apache-2.0
// What a training run does when: which batches, and the learning rate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace raingauge::demo {

struct BatchShape {
  int frames = 0, grid_h = 0, grid_w = 0, clips = 0;
  std::string describe() const;  // "8x16x24x42"
};

// From `from` (a fraction of the whole schedule) on, the shapes take turns, one a step.
struct Phase {
  double from = 0;
  std::vector<BatchShape> shapes;
};

// "0.66:21x16x24x12,21x18x22x12" = frames x rows x columns of tokens x clips a step.
Phase parse_phase(const std::string& text);

class TrainingPlan {
 public:
  // `decay_from`: the fraction at which the rate starts to fall, by a cosine, to kLastRate.
  TrainingPlan(std::vector<Phase> phases, double decay_from);

  const BatchShape& shape(double fraction, std::int64_t step) const;
  double rate(double fraction) const;  // factor of the learning rate, without the warm-up

  static constexpr double kLastRate = 0.02;

 private:
  std::vector<Phase> phases_;
  double decay_from_;
};

}  // namespace raingauge::demo
