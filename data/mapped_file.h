// SPDX-License-Identifier: Apache-2.0
// A file mapped read-only into memory, so that a record larger than memory can be read in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace raingauge {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws Error
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Valid for bytes [0, size()). Shrinking the file while it is mapped makes reads beyond its new
  // end fatal: captures must not be rewritten while they are judged.
  const std::byte* data() const { return static_cast<const std::byte*>(data_); }
  std::int64_t size() const { return static_cast<std::int64_t>(size_); }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// Bytes [offset, offset + bytes) of a file; throws Error, also when it ends before them.
void read_file_range(const std::string& path, std::int64_t offset, std::int64_t bytes,
                     void* target);

}  // namespace raingauge
