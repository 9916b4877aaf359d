// SPDX-License-Identifier: Apache-2.0
#include "harness/rows_in_order.h"

#include <iterator>
#include <utility>

namespace raingauge {

std::vector<nlohmann::json> RowsInOrder::next_rows(bool& any) {
  std::vector<nlohmann::json> rows;
  for (any = false; next_ < waiting_.size() && waiting_[next_]; ++next_, any = true) {
    std::move(waiting_[next_]->begin(), waiting_[next_]->end(), std::back_inserter(rows));
    waiting_[next_]->clear();
  }
  return rows;
}

void RowsInOrder::put(std::size_t index, std::vector<nlohmann::json> rows) {
  std::unique_lock lock(mutex_);
  waiting_.at(index) = std::move(rows);
  if (writing_) return;  // that thread looks again before it stops
  writing_ = true;
  for (bool any = true; any;) {
    const auto ready = next_rows(any);
    lock.unlock();
    folder_.append(stream_, ready);
    lock.lock();
  }
  writing_ = false;
}

}  // namespace raingauge
