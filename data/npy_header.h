// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy, versions 1 to 3: magic, version, length of the header, a Python dict literal with
// the keys descr, fortran_order and shape, then the elements.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace raingauge {

struct NpyHeader {
  std::string descr;  // "<f4", "|u1" …
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Leaves the stream at the first element; throws Error naming `path`.
NpyHeader read_npy_header(std::ifstream& file, const std::string& path);

// "[2, 3]"
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace raingauge
