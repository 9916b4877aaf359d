// SPDX-License-Identifier: Apache-2.0
// Q, K, V of one synthetic head, token by token. See synthetic_head.cpp for the construction.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "data/synthetic.h"

namespace raingauge {

struct TokenPlace {
  bool visual = false;
  std::array<int, 3> at{};  // frame (references count on), row, column
  int cluster = 0;
};

// Place of every token of a completed spec, in token order.
std::vector<TokenPlace> token_places(const SyntheticSpec& spec, int generation);

class SyntheticHead {
 public:
  SyntheticHead(const SyntheticSpec& completed, int generation, int step, int layer, int head);

  // One row each, [head_dim].
  void fill(std::int64_t token, const TokenPlace& place, float* q, float* k, float* v) const;

 private:
  struct Axis {
    double amplitude = 0.0;           // logit at distance 0
    int pairs = 0;                    // channel pairs (cos, sin)
    std::vector<double> frequencies;  // [pairs], radians a token
    std::vector<float> table;         // [coordinates, 2 * pairs], scaled
  };
  void plan_axes(double strength);
  void tabulate(int axis, int coordinates);
  double axis_sum(int axis, int coordinates) const;
  void plan_bias(const SyntheticSpec& spec);
  void add_noise(std::uint64_t stream, std::int64_t token, double deviation, float* row) const;

  HeadKind kind_;
  int head_dim_;
  double scale_;
  double noise_;
  std::array<Axis, 3> axes_;
  double cluster_logit_ = 0.0;                      // between tokens of one cluster
  std::vector<std::vector<float>> cluster_keys_;    // [clusters][head_dim], unit length
  std::vector<std::vector<float>> cluster_values_;  // [clusters][head_dim], +-1
  // Channel 0 of Q is this constant on visual tokens; channel 0 of K lifts whole groups of keys.
  float query_constant_ = 0.0F;
  float first_frame_key_ = 0.0F;
  float text_key_ = 0.0F;
  std::uint64_t fixed_key_;    // noise that all steps of a (generation, layer, head) share
  std::uint64_t varying_key_;  // noise of this step
};

}  // namespace raingauge
