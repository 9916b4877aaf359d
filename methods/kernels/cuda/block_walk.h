// SPDX-License-Identifier: Apache-2.0
// Which token stands in row r of key tile t of a work item? The index logic of the CUDA kernel,
// compiled for host and device alike, so that it is tested where there is no GPU. C++17, no project
// headers: nvcc reads it.
//
// The keys that a query block keeps form one stream: its key blocks in list order, without the keys
// that key_valid rules out. Tiles cut the stream every kKeyTile keys across block borders, so ragged
// and small blocks waste nothing and only the last tile of a stream is masked.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define RAINGAUGE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RAINGAUGE_HOST_DEVICE inline
#endif

namespace raingauge::cuda_walk {

constexpr int kKeyTile = 64;

// A maximal piece of the stream that is contiguous among the head's valid keys in block order:
// stream index s < stream_end is valid key s + shift.
struct KeyRun {
  std::int32_t shift;
  std::int32_t stream_end;
};

// Query rows [q_first, q_first + q_rows) (positions in block order) of one head and their stream.
struct WorkItem {
  std::int64_t first_run;  // into the runs of all items; one entry beyond the last run is readable
  std::int32_t head;
  std::int32_t q_first;
  std::int32_t q_rows;
  std::int32_t keys;  // length of the stream
};

RAINGAUGE_HOST_DEVICE int tile_count(const WorkItem& item) {
  return (item.keys + kKeyTile - 1) / kKeyTile;
}

// Keys of tile `tile` that exist: kKeyTile but for the last one.
RAINGAUGE_HOST_DEVICE int keys_in_tile(const WorkItem& item, int tile) {
  const int left = item.keys - tile * kKeyTile;
  return left < kKeyTile ? left : kKeyTile;
}

// Walks one stream in ascending stream index. The run after the current one is read ahead: its
// latency is hidden behind the tiles of the current one.
class KeyCursor {
 public:
  RAINGAUGE_HOST_DEVICE void start(const KeyRun* runs, const WorkItem& item) {
    keys_ = item.keys;
    next_ = runs + item.first_run;
    current_ = *next_;
    if (keys_ > 0) ahead_ = *++next_;
  }
  // The valid key at stream index s (never less than in the call before), or -1 beyond the end.
  RAINGAUGE_HOST_DEVICE std::int32_t valid_key(std::int32_t s) {
    if (s >= keys_) return -1;
    while (s >= current_.stream_end) {
      current_ = ahead_;
      if (current_.stream_end < keys_) ahead_ = *++next_;
    }
    return s + current_.shift;
  }

 private:
  const KeyRun* next_ = nullptr;
  KeyRun current_{0, 0};
  KeyRun ahead_{0, 0};
  std::int32_t keys_ = 0;
};

// Shared memory holds rows of `chunks` 16-byte chunks; eight neighbouring rows put the same chunk
// into eight different bank groups.
RAINGAUGE_HOST_DEVICE int swizzled_chunk(int row, int chunk, int chunks) {
  return row * chunks + (chunk ^ (row & 7));
}

}  // namespace raingauge::cuda_walk
