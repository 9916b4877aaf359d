// SPDX-License-Identifier: Apache-2.0
// A file mapped read-only into memory.
#include "data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "data/error.h"

namespace raingauge {

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error(path + ": cannot be opened: " + std::strerror(errno));
  struct stat status {};
  int failure = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  if (failure == 0 && status.st_size > 0) {
    size_ = static_cast<std::size_t>(status.st_size);
    data_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data_ == MAP_FAILED) {
      failure = errno;
      data_ = nullptr;
    }
  }
  ::close(descriptor);
  if (failure != 0) throw Error(path + ": cannot be mapped into memory: " + std::strerror(failure));
}

void read_file_range(const std::string& path, std::int64_t offset, std::int64_t bytes,
                     void* target) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error(path + ": cannot be opened: " + std::strerror(errno));
  std::int64_t done = 0;
  ssize_t got = 1;
  while (done < bytes && got != 0) {
    got = ::pread(descriptor, static_cast<char*>(target) + done,
                  static_cast<std::size_t>(bytes - done), offset + done);
    if (got < 0 && errno != EINTR) break;
    done += std::max<ssize_t>(got, 0);
  }
  const int failure = got < 0 ? errno : 0;
  ::close(descriptor);
  if (done == bytes) return;
  throw Error(path + ": cannot be read at byte " + std::to_string(offset + done) + ": " +
              (failure != 0 ? std::strerror(failure) : "the file ends there"));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace raingauge
