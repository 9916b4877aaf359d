// SPDX-License-Identifier: Apache-2.0
// From segments to blocks: applies a token order to the visual tokens, gives frame 0 and text blocks
// of their own where asked, and says which block holds what.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/plan.h"
#include "data/record.h"

namespace raingauge {

enum class BlockRole : std::uint8_t { visual, pinned_frame, text, pad };

enum class Frame0 {
  in_place,    // the order moves frame 0 like any other (released RainFusion2.0 code)
  segregated,  // frame 0 in blocks of its own, last, beside text (paper, section 3.4)
};

struct ArrangementSpec {
  nlohmann::json order = {{"name", "raster"}, {"params", nlohmann::json::object()}};
  Frame0 frame0 = Frame0::segregated;
  int block_q = 128;
  int block_k = 128;
  std::string base_folder;        // paths in the order's parameters are relative to it
  std::uint64_t seed = 0;         // of orders that draw
  bool pin_middle_frame = false;  // the control `another_frame`: frames/2 instead of frame 0
  // The released code's index arithmetic: [permuted video][text], video and text pooled apart, and
  // pooled block x applied to tokens 128x… of the whole sequence.
  bool mindie = false;
  // Blocks cut over the whole sequence, every segment where it stands in the record, as methods do
  // that know no text (SpargeAttn, XAttention): the order acts inside each visual segment, a block may
  // hold video and text, frame 0 stays in place.
  bool whole_sequence = false;
  // whole_sequence: key blocks of zero keys, ranked like any other and then cropped (XAttention's
  // padding).
  std::int64_t phantom_key_blocks = 0;
};

// Positions [begin, end) that hold one grid (or what is left of it beside a pinned frame).
struct OrderedRun {
  std::int32_t begin = 0;
  std::int32_t end = 0;
};

// One order for queries, keys and all heads. Scores are computed on `score_*` blocks; the plan
// executes `q_blocks`, `k_blocks`. They differ only in mindie mode, where score block x stands for
// executed block x and one beyond the last is dropped.
struct Arrangement {
  Orders order;
  Layout score_q, score_k;
  Layout q_blocks, k_blocks;
  std::vector<BlockRole> q_roles, k_roles;  // of the score blocks
  std::int64_t phantom_key_blocks = 0;      // trailing score_k blocks without tokens
  std::optional<Windows> windows;
  std::vector<OrderedRun> runs;  // where the order acts; what lies outside keeps its place
  // Why the pinned frame has no blocks of its own (an order that mixes frames, in place); empty: it
  // has. A sink then is `unsupported`.
  std::string pin_problem;
};

// Regions in block order: each visual segment in its order, then the pinned frame (segregated), then
// text, then pad; every region starts a block. Throws Unsupported for combinations that the order or
// the released code refuses.
Arrangement arrange(const Segments& segments, std::int64_t tokens, const ArrangementSpec& spec);

// The orders of queries and keys. Under an order made from content (spec.order) the runs of the
// arrangement, which then are raster, are reordered for every head; otherwise both are
// arrangement.order. The blocks are the arrangement's in either case.
struct TokenOrders {
  Orders q, k;
  std::vector<std::string>
      chosen;  // [H]: the order of each head, under one that chooses; else empty
};
TokenOrders token_orders(const RecordView& record, const Arrangement& arrangement,
                         const ArrangementSpec& spec, int threads);

}  // namespace raingauge
