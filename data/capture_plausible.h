// SPDX-License-Identifier: Apache-2.0
// Do the numbers look like what attention of a model on a grid sees? Heuristics: what they find is a
// note, never an error.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "data/segments.h"

namespace raingauge {

// Evidence of one head's keys, on the first visual segment. Fields are absent where the grid is too small
// to tell (fewer than 8 columns or rows), or the keys are constant.
struct KeyEvidence {
  // Mean cosine of keys (their mean removed) that are neighbours in a row, and of keys drawn apart.
  // Learned keys of neighbours are alike; in a wrong token order or layout they are not.
  std::optional<double> neighbours, apart;
  // The least, over channel pairs (2j, 2j+1) and (j, j + D/2), of |mean of the pair| / its rms. Rotation
  // by position turns the fastest pairs through whole circles, so after RoPE some pair has none left.
  std::optional<double> least_mean_share;
};

// k: [tokens, head_dim] in record order.
KeyEvidence key_evidence(std::span<const float> k, std::int64_t head_dim, const Segments& segments);

// What is odd about it, in words; empty when nothing is.
std::string oddities(const KeyEvidence& evidence);

}  // namespace raingauge
