// SPDX-License-Identifier: Apache-2.0
// Orders that look at the record: made from its content (k-means), or chosen for each head (PARO).
#include <algorithm>
#include <map>

#include "data/error.h"
#include "data/random.h"
#include "methods/arrangement.h"
#include "methods/kernels/threads.h"
#include "methods/orders/registry.h"

namespace raingauge {
namespace {

// Every head takes the arrangement that it would have under the order chosen for it; blocks and roles
// are the same under all.
TokenOrders chosen_orders(const RecordView& record, const ArrangementSpec& spec,
                          const OrderEntry& entry, int threads) {
  TokenOrders orders;
  orders.chosen.resize(static_cast<std::size_t>(record.heads()));
  parallel_for(threads, record.heads(), [&](std::int64_t head, int) {
    orders.chosen[static_cast<std::size_t>(head)] =
        entry.choose({record, head, spec.order.at("params"), spec.base_folder});
  });
  std::map<std::string, Orders> known;
  orders.q.rows = static_cast<int>(record.heads());
  orders.q.tokens = record.tokens();
  orders.q.identity = false;
  for (const auto& name : orders.chosen) {
    if (!known.contains(name)) {
      ArrangementSpec one = spec;
      one.order = {{"name", name}, {"params", nlohmann::json::object()}};
      known[name] = arrange(record.info->segments, record.tokens(), one).order;
    }
    for (std::int64_t p = 0; p < record.tokens(); ++p) {
      orders.q.index.push_back(known.at(name).token(0, p));
    }
  }
  orders.k = orders.q;
  return orders;
}

}  // namespace

TokenOrders token_orders(const RecordView& record, const Arrangement& arrangement,
                         const ArrangementSpec& spec, int threads) {
  const OrderEntry& entry = find_order(spec.order.at("name").get<std::string>());
  if (!entry.from_content()) return {arrangement.order, arrangement.order, {}};
  if (entry.choose != nullptr) return chosen_orders(record, spec, entry, threads);
  TokenOrders orders;
  const auto tokens = static_cast<std::size_t>(record.tokens());
  for (Orders* of : {&orders.q, &orders.k}) {
    of->rows = static_cast<int>(record.heads());
    of->tokens = record.tokens();
    of->identity = false;
    of->index.resize(static_cast<std::size_t>(record.heads()) * tokens);
  }
  parallel_for(threads, 2 * record.heads(), [&](std::int64_t item, int) {
    const std::int64_t head = item / 2;
    const TensorView& x = item % 2 == 0 ? record.q : record.k;
    std::int32_t* index = (item % 2 == 0 ? orders.q : orders.k).index.data() +
                          static_cast<std::size_t>(head) * tokens;
    for (std::int64_t p = 0; p < record.tokens(); ++p) index[p] = arrangement.order.token(0, p);
    const auto number = record.info->heads.at(static_cast<std::size_t>(head));
    for (const auto& run : arrangement.runs) {
      const std::vector<std::int32_t> before(index + run.begin, index + run.end);
      const auto seed =
          hash_seed({spec.seed, static_cast<std::uint64_t>(number),
                     static_cast<std::uint64_t>(item % 2), static_cast<std::uint64_t>(run.begin)});
      const auto picked = entry.make_from_content({x, head, before, seed, spec.order.at("params")});
      for (std::size_t i = 0; i < picked.size(); ++i) {
        index[static_cast<std::size_t>(run.begin) + i] =
            before.at(static_cast<std::size_t>(picked[i]));
      }
    }
  });
  return orders;
}

}  // namespace raingauge
