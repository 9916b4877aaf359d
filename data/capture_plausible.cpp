// SPDX-License-Identifier: Apache-2.0
#include "data/capture_plausible.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace raingauge {
namespace {

constexpr int kLeastSide = 8;
constexpr double kKeptMean = 0.5;       // of a pair's rms: beyond it nothing has turned
constexpr double kUnlikeAtMost = 0.02;  // a cosine of neighbours that says nothing

using Rows = std::vector<const float*>;

std::vector<double> mean_of(const Rows& rows, std::size_t dim) {
  std::vector<double> mean(dim, 0.0);
  for (const float* row : rows) {
    for (std::size_t c = 0; c < dim; ++c) mean[c] += row[c];
  }
  for (double& value : mean) value /= static_cast<double>(rows.size());
  return mean;
}

double cosine(const float* a, const float* b, const std::vector<double>& mean) {
  double dot = 0.0;
  double aa = 0.0;
  double bb = 0.0;
  for (std::size_t c = 0; c < mean.size(); ++c) {
    const double x = a[c] - mean[c];
    const double y = b[c] - mean[c];
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa > 0.0 && bb > 0.0 ? dot / std::sqrt(aa * bb) : 0.0;
}

// Mean cosine of rows `stride` apart; `same_row`: only where both lie in one row of the grid.
double mean_cosine(const Rows& rows, std::size_t stride, std::size_t row_length, bool same_row,
                   const std::vector<double>& mean) {
  double sum = 0.0;
  std::size_t count = 0;
  for (std::size_t i = 0; i + stride < rows.size(); ++i) {
    if (same_row && i % row_length + stride >= row_length) continue;
    sum += cosine(rows[i], rows[i + stride], mean);
    ++count;
  }
  return count == 0 ? 0.0 : sum / static_cast<double>(count);
}

double least_share(const Rows& rows, const std::vector<double>& mean, std::size_t dim) {
  std::vector<double> square(dim, 0.0);
  for (const float* row : rows) {
    for (std::size_t c = 0; c < dim; ++c) square[c] += double{row[c]} * double{row[c]};
  }
  for (double& value : square) value /= static_cast<double>(rows.size());
  double least = 1.0;
  const auto pair = [&](std::size_t a, std::size_t b) {
    const double rms = square[a] + square[b];
    if (rms > 0.0)
      least = std::min(least, std::sqrt((mean[a] * mean[a] + mean[b] * mean[b]) / rms));
  };
  for (std::size_t j = 0; j + 1 < dim; j += 2) pair(j, j + 1);
  for (std::size_t j = 0; j < dim / 2; ++j) pair(j, j + dim / 2);
  return least;
}

}  // namespace

KeyEvidence key_evidence(std::span<const float> k, std::int64_t head_dim,
                         const Segments& segments) {
  KeyEvidence evidence;
  const auto found =
      std::find_if(segments.begin(), segments.end(), [](const Segment& s) { return s.visual(); });
  const bool large =
      found != segments.end() && found->width >= kLeastSide && found->height >= kLeastSide;
  if (!large || head_dim < 2) return evidence;
  const auto dim = static_cast<std::size_t>(head_dim);
  Rows rows;
  for (std::int64_t t = found->start; t < found->end(); ++t) {
    rows.push_back(k.data() + static_cast<std::size_t>(t) * dim);
  }
  const auto mean = mean_of(rows, dim);
  const auto width = static_cast<std::size_t>(found->width);
  evidence.neighbours = mean_cosine(rows, 1, width, true, mean);
  evidence.apart = mean_cosine(rows, rows.size() / 2 + width / 2 + 1, width, false, mean);
  evidence.least_mean_share = least_share(rows, mean, dim);
  return evidence;
}

std::string oddities(const KeyEvidence& evidence) {
  std::string text;
  if (evidence.least_mean_share && *evidence.least_mean_share > kKeptMean) {
    text = "every channel pair of k keeps a mean over the grid of at least " +
           std::to_string(*evidence.least_mean_share) +
           " of its size, which rotation by position would have averaged out: was it taken before "
           "RoPE, or has the model none?";
  }
  if (evidence.neighbours && std::abs(*evidence.neighbours) <= kUnlikeAtMost &&
      *evidence.neighbours <= *evidence.apart + kUnlikeAtMost) {
    text += std::string(text.empty() ? "" : "; ") +
            "keys of neighbouring tokens are no more alike (cosine " +
            std::to_string(*evidence.neighbours) +
            ") than keys apart: random numbers, or another token order or layout than the segments "
            "say?";
  }
  return text;
}

}  // namespace raingauge
