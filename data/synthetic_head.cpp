// SPDX-License-Identifier: Apache-2.0
// Q, K, V of one synthetic head. With p(i) a vector of (cos, sin) pairs of the token's coordinates
// at fixed frequencies, p(i).p(j) depends on i - j alone, as after RoPE. Frequencies at the
// quantiles of a half normal distribution of width s make it a Gaussian exp(-s^2 x^2 / 2) of the
// distance x along an axis, so a logit A times it gives softmax weights that fall like a Gaussian
// of deviation 1 / (s sqrt(A)) tokens: locality with a known radius. Content noise is added to Q, K
// and V.
#include "data/synthetic_head.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/random.h"

namespace raingauge {
namespace {

constexpr int kClusters = 24;
constexpr int kCell = 3;  // side of the cubes of one content cluster, in tokens
constexpr double kClusterLogit = 7.0;
constexpr double kFirstFrameMass = 0.75;
constexpr double kStepCorrelation = 0.8;  // of the noise of two steps

struct AxisPlan {
  double logit;      // A
  double deviation;  // of the softmax weights, in tokens
};

// Frame, row, column. A logit of 0 leaves the axis out: every distance weighs the same.
std::array<AxisPlan, 3> axis_plans(HeadKind kind) {
  switch (kind) {
    case HeadKind::local:
      return {{{8.0, 0.8}, {8.0, 0.8}, {8.0, 0.8}}};
    case HeadKind::temporal:
      return {{{0.0, 1.0}, {9.0, 0.45}, {9.0, 0.45}}};
    case HeadKind::sink:
      return {{{0.0, 1.0}, {3.0, 4.0}, {3.0, 4.0}}};
    case HeadKind::textural:
    case HeadKind::random:
      return {{{0.0, 1.0}, {0.0, 1.0}, {0.0, 1.0}}};
  }
  return {};
}

// z with P(|Z| < z) = p for a standard normal Z, by Newton's method on erf.
double half_normal_quantile(double p) {
  double z = p;
  for (int i = 0; i < 50; ++i) {
    const double density = std::sqrt(2.0 / std::acos(-1.0)) * std::exp(-z * z / 2.0);
    z -= (std::erf(z / std::sqrt(2.0)) - p) / density;
  }
  return z;
}

// Irwin-Hall: the sum of four uniform bytes is within 2 % of a normal density and costs half a
// hash.
inline float near_normal(std::uint32_t bits) {
  const std::uint32_t sum =
      (bits & 0xffU) + ((bits >> 8) & 0xffU) + ((bits >> 16) & 0xffU) + (bits >> 24);
  constexpr float kMean = 4.0F * 127.5F;
  constexpr float kInverseDeviation = 1.0F / 147.8006F;  // sqrt(4 (256^2 - 1) / 12)
  return (static_cast<float>(sum) - kMean) * kInverseDeviation;
}

std::vector<float> signs(std::uint64_t key, int count) {
  std::vector<float> row(static_cast<std::size_t>(count));
  for (std::size_t c = 0; c < row.size(); ++c) row[c] = (mix64(key ^ mix64(c)) & 1U) ? 1.0F : -1.0F;
  return row;
}

// Cubes of kCell tokens get a cluster each by hash, so that a cluster is scattered over the clip.
int cluster_of(std::uint64_t key, const std::array<int, 3>& at) {
  const std::uint64_t cell = hash_seed({key, static_cast<std::uint64_t>(at[0] / kCell),
                                        static_cast<std::uint64_t>(at[1] / kCell),
                                        static_cast<std::uint64_t>(at[2] / kCell)});
  return static_cast<int>(below(cell, kClusters));
}

}  // namespace

std::vector<TokenPlace> token_places(const SyntheticSpec& spec, int generation) {
  const std::uint64_t key = hash_seed({spec.seed, 0xc1, static_cast<std::uint64_t>(generation)});
  std::vector<TokenPlace> places;
  const auto text = static_cast<std::size_t>(spec.text_tokens);
  if (spec.text_first == 1) places.resize(text);
  const int frames = spec.frames + spec.references;
  for (int t = 0; t < frames; ++t) {
    for (int y = 0; y < spec.height; ++y) {
      for (int x = 0; x < spec.width; ++x) {
        TokenPlace place;
        place.visual = true;
        place.at = {t, y, x};
        place.cluster = cluster_of(key, place.at);
        places.push_back(place);
      }
    }
  }
  if (spec.text_first == 0) places.resize(places.size() + text);
  return places;
}

SyntheticHead::SyntheticHead(const SyntheticSpec& spec, int generation, int step, int layer,
                             int head)
    : kind_(spec.kinds[static_cast<std::size_t>(head) % spec.kinds.size()]),
      head_dim_(spec.head_dim),
      scale_(1.0 / std::sqrt(static_cast<double>(spec.head_dim))),
      noise_(kind_ == HeadKind::random ? 1.0 : spec.noise) {
  const auto g = static_cast<std::uint64_t>(generation);
  const auto l = static_cast<std::uint64_t>(layer);
  const auto h = static_cast<std::uint64_t>(head);
  fixed_key_ = hash_seed({spec.seed, 0xf1, g, l, h});
  varying_key_ = hash_seed({spec.seed, 0x5e, g, l, h, static_cast<std::uint64_t>(step)});
  // Layers, heads and generations differ a little in how sharp they are.
  plan_axes(0.95 + 0.15 * uniform01(fixed_key_));
  const std::array<int, 3> sides{spec.frames + spec.references, spec.height, spec.width};
  for (int axis = 0; axis < 3; ++axis) {
    tabulate(axis, sides[static_cast<std::size_t>(axis)]);
  }
  for (int c = 0; c < kClusters; ++c) {
    const auto cluster = static_cast<std::uint64_t>(c);
    cluster_keys_.push_back(signs(hash_seed({spec.seed, 0x6b, l, h, cluster}), head_dim_));
    cluster_keys_.back()[0] = 0.0F;  // channel 0 is the bias
    cluster_values_.push_back(signs(hash_seed({spec.seed, 0x76, l, h, cluster}), head_dim_));
  }
  cluster_logit_ = kind_ == HeadKind::textural ? kClusterLogit : 0.0;
  const auto length =
      static_cast<float>(std::sqrt(cluster_logit_ / (scale_ * static_cast<double>(head_dim_ - 1))));
  for (auto& row : cluster_keys_) {
    for (float& value : row) value *= length;
  }
  plan_bias(spec);
}

// Shares the channel pairs after the first (whose channel 0 is the bias) among the axes in use.
void SyntheticHead::plan_axes(double strength) {
  const auto plans = axis_plans(kind_);
  const auto used = std::count_if(plans.begin(), plans.end(),
                                  [](const AxisPlan& plan) { return plan.logit > 0.0; });
  if (used == 0) return;
  const int pairs = (head_dim_ - 2) / 2 / static_cast<int>(used);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (!(plans[axis].logit > 0.0)) continue;
    axes_[axis].amplitude = plans[axis].logit * strength;
    axes_[axis].pairs = pairs;
    const double width = 1.0 / (plans[axis].deviation * std::sqrt(plans[axis].logit));
    for (int m = 0; m < pairs; ++m) {
      axes_[axis].frequencies.push_back(width * half_normal_quantile((m + 0.5) / pairs));
    }
  }
}

void SyntheticHead::tabulate(int axis, int coordinates) {
  Axis& a = axes_[static_cast<std::size_t>(axis)];
  if (a.pairs == 0) return;
  const double factor = std::sqrt(a.amplitude / (scale_ * a.pairs));
  for (int x = 0; x < coordinates; ++x) {
    for (const double frequency : a.frequencies) {
      a.table.push_back(static_cast<float>(factor * std::cos(frequency * x)));
      a.table.push_back(static_cast<float>(factor * std::sin(frequency * x)));
    }
  }
}

// Sum of exp(logit) over one axis, seen from its middle.
double SyntheticHead::axis_sum(int axis, int coordinates) const {
  const Axis& a = axes_[static_cast<std::size_t>(axis)];
  double sum = 0.0;
  for (int x = 0; x < coordinates; ++x) {
    double logit = 0.0;
    for (const double frequency : a.frequencies) {
      logit += a.amplitude / a.pairs * std::cos(frequency * (x - coordinates / 2));
    }
    sum += std::exp(logit);
  }
  return sum;
}

// The bias logits of first-frame keys (sink heads) and of text keys. The structure is a product
// over the axes, so the softmax denominator of a query in the middle is known in closed form.
void SyntheticHead::plan_bias(const SyntheticSpec& spec) {
  if (kind_ == HeadKind::random) return;
  const int frames = spec.frames + spec.references;
  const double plane = axis_sum(1, spec.height) * axis_sum(2, spec.width);
  const double clusters = 1.0 + (std::exp(cluster_logit_) - 1.0) / kClusters;
  double denominator = axis_sum(0, frames) * plane * clusters;
  double sink_logit = 0.0;
  if (kind_ == HeadKind::sink && frames > 1) {
    // share / (1 - share) = e^b / (frames - 1), since every frame holds the same plane.
    sink_logit = std::log(kFirstFrameMass / (1.0 - kFirstFrameMass) * (frames - 1));
    denominator = plane * (std::exp(sink_logit) + frames - 1);
  }
  double text_logit = 0.0;
  if (spec.text_tokens > 0) {
    text_logit = std::log(spec.text_mass / (1.0 - spec.text_mass) * denominator / spec.text_tokens);
  }
  // Both factors of the larger product get the same size, which rounds best.
  const double largest = std::max(std::abs(sink_logit), std::abs(text_logit));
  if (!(largest > 0.0)) return;
  const double constant = std::sqrt(largest / scale_);
  query_constant_ = static_cast<float>(constant);
  first_frame_key_ = static_cast<float>(sink_logit / (scale_ * constant));
  text_key_ = static_cast<float>(text_logit / (scale_ * constant));
}

void SyntheticHead::add_noise(std::uint64_t stream, std::int64_t token, double deviation,
                              float* row) const {
  const auto shared = static_cast<float>(deviation * std::sqrt(kStepCorrelation));
  const auto own = static_cast<float>(deviation * std::sqrt(1.0 - kStepCorrelation));
  const auto first = static_cast<std::uint64_t>(token) * static_cast<std::uint64_t>(head_dim_);
  const std::uint64_t fixed = fixed_key_ ^ (stream << 60);
  const std::uint64_t varying = varying_key_ ^ (stream << 60);
  for (int c = 0; c < head_dim_; c += 2) {
    const std::uint64_t counter = first + static_cast<std::uint64_t>(c);
    const std::uint64_t a = mix64(fixed + counter);
    const std::uint64_t b = mix64(varying + counter);
    row[c] += shared * near_normal(static_cast<std::uint32_t>(a)) +
              own * near_normal(static_cast<std::uint32_t>(b));
    if (c + 1 == head_dim_) break;
    row[c + 1] += shared * near_normal(static_cast<std::uint32_t>(a >> 32)) +
                  own * near_normal(static_cast<std::uint32_t>(b >> 32));
  }
}

void SyntheticHead::fill(std::int64_t token, const TokenPlace& place, float* q, float* k,
                         float* v) const {
  const auto width = static_cast<std::size_t>(head_dim_);
  std::fill_n(q, width, 0.0F);
  std::fill_n(v, width, 0.0F);
  if (place.visual) {
    float* target = q + 2;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const auto channels = 2 * static_cast<std::size_t>(axes_[axis].pairs);
      const auto row = static_cast<std::size_t>(place.at[axis]) * channels;
      std::copy_n(axes_[axis].table.data() + row, channels, target);
      target += channels;
    }
    const auto& cluster = cluster_keys_[static_cast<std::size_t>(place.cluster)];
    if (cluster_logit_ > 0.0) std::copy_n(cluster.data(), width, q);
    std::copy_n(cluster_values_[static_cast<std::size_t>(place.cluster)].data(), width, v);
  }
  std::copy_n(q, width, k);
  add_noise(1, token, noise_, q);
  add_noise(2, token, noise_, k);
  add_noise(3, token, 0.5, v);
  if (kind_ == HeadKind::random) return;
  q[0] = place.visual ? query_constant_ : 0.0F;
  k[0] = !place.visual ? text_key_ : place.at[0] == 0 ? first_frame_key_ : 0.0F;
}

}  // namespace raingauge
