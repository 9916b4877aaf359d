// SPDX-License-Identifier: Apache-2.0
#include "harness/mask_pictures.h"

#include <algorithm>

#include "harness/rows.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr std::int64_t kHeads = 4;
constexpr std::size_t kMostBytes = std::size_t{4} << 20;

std::string bits_of(const BlockLists& lists, std::int64_t head, std::int64_t columns) {
  const std::int64_t pairs = lists.query_blocks * columns;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>((pairs + 7) / 8), 0);
  for (std::int64_t i = 0; i < lists.query_blocks; ++i) {
    for (std::int64_t n = 0; n < lists.count(head, i); ++n) {
      const std::int64_t pair = i * columns + lists.begin(head, i)[n];
      bytes[static_cast<std::size_t>(pair / 8)] |= static_cast<std::uint8_t>(0x80 >> (pair % 8));
    }
  }
  return base64(bytes);
}

json head_picture(const RecordView& record, const Plan& plan, const Density& density,
                  std::int64_t head) {
  const auto columns = plan.k_blocks.blocks;
  json picture = {{"head", record.info->heads.at(static_cast<std::size_t>(head))},
                  {"density", density.pairs.at(static_cast<std::size_t>(head))},
                  {"rows", plan.q_blocks.blocks},
                  {"columns", columns},
                  {"kept", bits_of(plan.lists, head, columns)}};
  if (plan.forced) picture["forced"] = bits_of(*plan.forced, head, columns);
  return picture;
}

}  // namespace

std::string base64(const std::vector<std::uint8_t>& bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) group = (group << 8U) | (j < left ? bytes[i + j] : 0U);
    for (std::size_t j = 0; j < 4; ++j)
      text += j <= left ? kDigits[(group >> (18U - 6U * j)) & 63U] : '=';
  }
  return text;
}

json mask_pictures(const RecordView& record,
                   const std::vector<std::pair<std::string, const Plan*>>& plans) {
  json out = {
      {"record", record_label(*record.info)}, {"arms", json::array()}, {"left_out", json::array()}};
  std::size_t bytes = 0;
  for (const auto& [name, plan] : plans) {
    const auto heads = std::min(kHeads, plan->heads);
    bytes += static_cast<std::size_t>(heads * plan->q_blocks.blocks * plan->k_blocks.blocks) / 3;
    if (bytes > kMostBytes) {
      out["left_out"].push_back(name);
      continue;
    }
    const auto density = measure_density(*plan, record.key_valid);
    json pictures = json::array();
    for (std::int64_t head = 0; head < heads; ++head)
      pictures.push_back(head_picture(record, *plan, density, head));
    out["arms"].push_back({{"arm", name}, {"heads", pictures}});
  }
  return out;
}

}  // namespace raingauge
