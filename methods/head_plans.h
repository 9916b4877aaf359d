// SPDX-License-Identifier: Apache-2.0
// Plans whose heads differ in order or in blocks: each head is decided alone, then they are joined.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/plan.h"
#include "data/segments.h"
#include "methods/plan_heads.h"

namespace raingauge {

// Position in block order -> token; null is the record's own order. Heads that share an order share
// the pointer.
using SharedOrder = std::shared_ptr<const std::vector<std::int32_t>>;

struct HeadPlan {
  SharedOrder q_order, k_order;
  std::vector<std::int32_t> q_offsets, k_offsets;  // block boundaries
  KeptRows kept;                                   // [query blocks], ascending
  KeptRows forced;  // the part of `kept` that no choice made; may be empty altogether
};

// What all heads share is stored once; heads with fewer blocks get empty ones at the end.
Plan join_heads(const std::vector<HeadPlan>& heads, std::int64_t tokens);

// The one video of a record, for methods that are defined on frames. Throws Unsupported, naming
// `method`, for images, several visual segments or none.
const Segment& only_video(const Segments& segments, const std::string& method);

// Tokens of all segments of a role, in sequence order.
std::vector<std::int32_t> tokens_of(const Segments& segments, Role role);

}  // namespace raingauge
