// SPDX-License-Identifier: Apache-2.0
// PAROAttention (arXiv 2506.16054): which of the six axis orders turns a head's attention into blocks?
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "data/record.h"

namespace raingauge {

// Their numbering: 0 FHW, 1 FWH, 2 HWF, 3 HFW, 4 WHF, 5 WFH.
inline constexpr std::size_t kAxisOrders = 6;
inline constexpr std::array<const char*, kAxisOrders> kAxisOrderNames = {
    "axis_thw", "axis_twh", "axis_hwt", "axis_htw", "axis_wht", "axis_wth"};

struct AxisProbe {
  int block = 64;         // their blocks, of the mask and of quantisation
  int stride = 8;         // every stride-th query block is looked at
  double share = 0.9;     // a block is near-empty when this share of its entries …
  double epsilon = 1e-3;  // … lies below this probability
  double alpha = 0.5;     // weight of sparsity against quantisation (not published)
};

// Of the softmax P in blocks of video queries x video keys.
struct AxisStatistics {
  double near_empty = 0.0;      // share of blocks that are near-empty (M_sparse)
  double peak_over_mean = 0.0;  // mean over blocks of max / mean (M_quant)
};
using AxisTable = std::array<AxisStatistics, kAxisOrders>;

// One head, all six orders. Costs 6 / stride of a dense Q K^T.
AxisTable axis_statistics(const RecordView& record, std::int64_t head, const AxisProbe& probe);

// The order with the least alpha * (1 - M_sparse) / sum + (1 - alpha) * M_quant / sum, sums over the
// six orders; the first of equals. Their eq. 3 minimises M_sparse itself, against its own definition
// (more near-empty blocks are better): 1 - M_sparse is what they must mean.
std::size_t choose_axis_order(const AxisTable& table, double alpha);

}  // namespace raingauge
