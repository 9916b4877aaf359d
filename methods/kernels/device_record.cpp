// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/device_record.h"

#include <cstring>
#include <vector>

namespace raingauge {
namespace {

bool is_packed(const TensorView& x) {
  return x.token_stride == x.head_dim && x.head_stride == x.tokens * x.head_dim;
}

DeviceBuffer copied(const TensorView& x, const Device& device) {
  const std::size_t row = static_cast<std::size_t>(x.head_dim) * size_of(x.dtype);
  DeviceBuffer buffer(device, static_cast<std::size_t>(x.heads * x.tokens) * row);
  if (is_packed(x)) {
    buffer.copy_from_host(x.data, buffer.bytes());
    return buffer;
  }
  std::vector<char> bytes(buffer.bytes());
  char* target = bytes.data();
  for (std::int64_t head = 0; head < x.heads; ++head) {
    for (std::int64_t token = 0; token < x.tokens; ++token, target += row) {
      std::memcpy(target, x.row(head, token), row);
    }
  }
  buffer.copy_from_host(bytes.data(), bytes.size());
  return buffer;
}

DeviceMirror::Part part_of(const TensorView& host, const DeviceBuffer& buffer) {
  return {host, contiguous_view(buffer.data(), host.dtype, host.heads, host.tokens, host.head_dim,
                                buffer.device())};
}

}  // namespace

DeviceRecord::DeviceRecord(const RecordView& record, const Device& device)
    : q_(copied(record.q, device)),
      k_(copied(record.k, device)),
      v_(copied(record.v, device)),
      mirror_{part_of(record.q, q_), part_of(record.k, k_), part_of(record.v, v_)},
      host_(record) {
  synchronize_device(device);  // streams that do not wait for the default one find the copies whole
  host_.mirror = &mirror_;
}

RecordView DeviceRecord::on_device() const {
  RecordView view = host_;
  view.q = mirror_.q.device;
  view.k = mirror_.k.device;
  view.v = mirror_.v.device;
  view.mirror = nullptr;
  return view;
}

}  // namespace raingauge
