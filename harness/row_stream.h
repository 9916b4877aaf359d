// SPDX-License-Identifier: Apache-2.0
// Reading a stream of a run's folder: lines to rows, rows to whole cells.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace raingauge {

// The `cell` of a row; throws Error, beginning with `where`, when it has none.
std::string cell_of(const nlohmann::json& row, const std::string& where);

// Hands over every whole cell with the place in the file where it ends, in the order written. A cell whose
// last rows are missing is left out at the end of the file, where a kill may have cut it; anywhere else it
// is damage, as is a line that is no row: Error, with file and line.
void for_each_cell(
    const std::filesystem::path& path,
    const std::function<void(std::vector<nlohmann::json>& cell, std::size_t end)>& use);

}  // namespace raingauge
