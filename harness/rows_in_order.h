// SPDX-License-Identifier: Apache-2.0
// Cells that are computed side by side and written in their own order, each as soon as all before it are
// there: what a kill loses is the cells in flight.
#pragma once

#include <cstddef>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "harness/results.h"

namespace raingauge {

class RowsInOrder {
 public:
  // `count` cells of one stream of `folder`, which must outlive this.
  RowsInOrder(RunFolder& folder, std::string stream, std::size_t count)
      : folder_(folder), stream_(std::move(stream)), waiting_(count) {}

  // The rows of cell `index`, once for every index; none where nothing is to be written. Thread safe. One of
  // the threads writes while the others go on.
  void put(std::size_t index, std::vector<nlohmann::json> rows);

 private:
  // Rows of the next cells that are there; empty when the next one is not.
  std::vector<nlohmann::json> next_rows(bool& any);

  RunFolder& folder_;
  std::string stream_;
  std::mutex mutex_;
  std::vector<std::optional<std::vector<nlohmann::json>>> waiting_;
  std::size_t next_ = 0;
  bool writing_ = false;
};

}  // namespace raingauge
