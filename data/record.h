// SPDX-License-Identifier: Apache-2.0
// One record: Q, K, V of one (step, layer, branch, batch item) of a generation, after QK-norm and
// RoPE, with its segments. `RecordInfo` is what can be known without reading the tensors.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/segments.h"
#include "data/site.h"
#include "data/tensor_view.h"

namespace raingauge {

struct RecordInfo {
  int number = 0;          // the six digits in /records/
  std::string capture;     // file path or "synthetic:<name>"
  std::string generation;  // identity of the clip (prompt x seed), unit of resampling
  Site site;
  double scale = 0.0;      // softmax(scale * q.k)
  std::string layer_name;  // the model's name of the layer; may be empty
  int layers_total = -1;   // -1: not recorded
  double timestep = std::numeric_limits<double>::quiet_NaN();
  double sigma = std::numeric_limits<double>::quiet_NaN();
  std::string kind = "self";  // `self` or `joint`
  std::vector<int> heads;     // original head numbers, one per stored head
  int heads_total = 0;
  bool rope_applied = true;
  std::string sha256_q, sha256_k, sha256_v;  // of the raw stored elements; may be empty
  DType dtype = DType::bf16;
  std::int64_t tokens = 0;
  std::int64_t head_dim = 0;
  Segments segments;
  bool has_output = false;     // dataset `o`
  bool has_key_valid = false;  // dataset `key_valid`

  std::int64_t head_count() const { return static_cast<std::int64_t>(heads.size()); }
};

// Copies of Q, K and V in a device's memory, for what is computed there in the host's stead.
struct DeviceMirror {
  struct Part {
    TensorView host, device;
  };
  Part q, k, v;

  // The device's copy of `x`, whole or some of its heads, whatever view of Q, K or V it is; nullopt when it
  // is none.
  std::optional<TensorView> of(const TensorView& x) const {
    for (const Part* part : {&q, &k, &v}) {
      const auto step = part->host.head_stride * static_cast<std::int64_t>(size_of(x.dtype));
      const auto distance =
          static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(x.data) -
                                    reinterpret_cast<std::uintptr_t>(part->host.data));
      if (!(x.device == part->host.device) || x.dtype != part->host.dtype || step == 0 ||
          x.token_stride != part->host.token_stride || x.head_stride != part->host.head_stride ||
          x.tokens != part->host.tokens || x.head_dim != part->host.head_dim || distance < 0 ||
          distance % step != 0 || distance / step + x.heads > part->host.heads) {
        continue;
      }
      return part->device.slice_heads(distance / step, x.heads);
    }
    return std::nullopt;
  }
};

// What methods and kernels see. Non-owning; head index i stands for original head info->heads[i].
struct RecordView {
  const RecordInfo* info = nullptr;
  TensorView q, k, v;                       // [H, N, D]
  const std::uint8_t* key_valid = nullptr;  // [N], host memory, null when every key is valid
  const DeviceMirror* mirror = nullptr;     // null: the tensors are nowhere else

  std::int64_t heads() const { return q.heads; }
  std::int64_t tokens() const { return q.tokens; }
  std::int64_t head_dim() const { return q.head_dim; }
};

// Owns (or maps) the tensors behind a view.
class Record {
 public:
  virtual ~Record() = default;
  virtual const RecordInfo& info() const = 0;
  virtual RecordView view() const = 0;
};

}  // namespace raingauge
