// SPDX-License-Identifier: Apache-2.0
#include "metrics/frames/per_frame.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

namespace raingauge {

std::vector<double> each_frame(int frames, int threads, const std::function<double(int)>& value) {
  std::vector<double> values(static_cast<std::size_t>(frames));
  std::atomic<int> next = 0;
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      for (int t = next++; t < frames; t = next++) values[static_cast<std::size_t>(t)] = value(t);
    } catch (...) {
      const std::scoped_lock lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int wanted = std::min(threads > 0 ? threads : cores, frames);
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < wanted; ++i) others.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return values;
}

double mean_of_finite(const std::vector<double>& values) {
  double sum = 0.0;
  double count = 0.0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    count += 1.0;
  }
  return sum / count;  // 0 / 0 = NaN when there is none
}

FrameScore mean_over_frames(std::vector<double> per_frame) {
  FrameScore score;
  score.mean = mean_of_finite(per_frame);
  for (const double value : per_frame) {
    if (std::isinf(value)) ++score.infinite;
    if (std::isnan(value)) ++score.undefined;
  }
  score.per_frame = std::move(per_frame);
  return score;
}

double mean_squared_error(const ClipView& reference, const ClipView& test, int frame) {
  const std::uint8_t* a = reference.frame(frame);
  const std::uint8_t* b = test.frame(frame);
  const std::int64_t bytes = reference.frame_bytes();
  std::int64_t sum = 0;
  for (std::int64_t begin = 0; begin < bytes; begin += 1 << 14) {
    std::uint32_t part = 0;  // 2^14 * 255^2 < 2^32
    const std::int64_t end = std::min<std::int64_t>(bytes, begin + (1 << 14));
    for (std::int64_t i = begin; i < end; ++i) {
      const int error = int{a[i]} - int{b[i]};
      part += static_cast<std::uint32_t>(error * error);
    }
    sum += part;
  }
  return static_cast<double>(sum) / static_cast<double>(bytes);
}

double psnr_of(double mse) { return 10.0 * std::log10(255.0 * 255.0 / mse); }

}  // namespace raingauge
