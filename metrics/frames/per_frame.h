// SPDX-License-Identifier: Apache-2.0
// Frames are independent: run them on threads, then reduce in frame order.
#pragma once

#include <functional>
#include <vector>

#include "metrics/frames/frame_metric.h"

namespace raingauge {

// value(t) for every frame t, on `threads` threads (0 = all). Rethrows the first exception.
std::vector<double> each_frame(int frames, int threads, const std::function<double(int)>& value);

// NaN when none is finite.
double mean_of_finite(const std::vector<double>& values);

// Mean of the finite values; infinite and undefined ones are counted.
FrameScore mean_over_frames(std::vector<double> per_frame);

// Mean over pixels and channels of the squared difference.
double mean_squared_error(const ClipView& reference, const ClipView& test, int frame);

// 10 log10(255^2 / mse); +Inf for mse = 0.
double psnr_of(double mse);

}  // namespace raingauge
