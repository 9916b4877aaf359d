// SPDX-License-Identifier: Apache-2.0
#include "data/demo/training_plan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>
#include <sstream>

#include "data/demo/scene.h"
#include "data/error.h"

namespace raingauge::demo {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

template <typename T>
bool parse_number(const std::string& text, T& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

bool parse_shape(const std::string& text, BatchShape& shape) {
  const std::vector<std::string> parts = split(text, 'x');
  const std::array<int*, 4> fields{&shape.frames, &shape.grid_h, &shape.grid_w, &shape.clips};
  if (parts.size() != fields.size()) return false;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (!parse_number(parts[i], *fields[i]) || *fields[i] < 1) return false;
  }
  return shape.frames >= 2 && shape.frames <= kTimelineFrames;
}

}  // namespace

std::string BatchShape::describe() const {
  return std::to_string(frames) + "x" + std::to_string(grid_h) + "x" + std::to_string(grid_w) +
         "x" + std::to_string(clips);
}

Phase parse_phase(const std::string& text) {
  Phase phase;
  const auto colon = text.find(':');
  bool good = colon != std::string::npos && parse_number(text.substr(0, colon), phase.from);
  for (const std::string& part : split(good ? text.substr(colon + 1) : "", ',')) {
    phase.shapes.emplace_back();
    good = good && parse_shape(part, phase.shapes.back());
  }
  good = good && phase.from >= 0.0 && phase.from <= 1.0;  // false for NaN
  if (!good || phase.shapes.empty()) {
    throw Error("phase: got '" + text + "', wanted FROM:FxHxWxB[,FxHxWxB…] with FROM from 0 to 1 " +
                "and 2 to 21 frames, e.g. 0.66:21x16x24x12");
  }
  return phase;
}

TrainingPlan::TrainingPlan(std::vector<Phase> phases, double decay_from)
    : phases_(std::move(phases)), decay_from_(decay_from) {
  std::sort(phases_.begin(), phases_.end(),
            [](const Phase& a, const Phase& b) { return a.from < b.from; });
  if (phases_.empty() || phases_.front().from > 0.0) {
    throw Error("training plan: the first phase must start at 0");
  }
}

const BatchShape& TrainingPlan::shape(double fraction, std::int64_t step) const {
  const Phase* current = &phases_.front();
  for (const Phase& phase : phases_) {
    if (phase.from <= fraction) current = &phase;
  }
  return current->shapes[static_cast<std::size_t>(step) % current->shapes.size()];
}

double TrainingPlan::rate(double fraction) const {
  if (fraction <= decay_from_) return 1.0;
  const double along = std::min(1.0, (fraction - decay_from_) / (1.0 - decay_from_));
  return kLastRate + (1.0 - kLastRate) * 0.5 * (1.0 + std::cos(std::numbers::pi * along));
}

}  // namespace raingauge::demo
