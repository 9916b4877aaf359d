// SPDX-License-Identifier: Apache-2.0
// A record of host memory with its tensors on a CUDA device as well.
#pragma once

#include "data/record.h"
#include "methods/kernels/device.h"

namespace raingauge {

class DeviceRecord {
 public:
  // Copies Q, K and V, packed [H, N, D]. Info and key_valid stay the host's; `record` must outlive this.
  DeviceRecord(const RecordView& record, const Device& device);
  DeviceRecord(const DeviceRecord&) = delete;
  DeviceRecord& operator=(const DeviceRecord&) = delete;

  // The host's view, with the mirror.
  const RecordView& host() const { return host_; }
  // The tensors on the device.
  RecordView on_device() const;

 private:
  DeviceBuffer q_, k_, v_;
  DeviceMirror mirror_;
  RecordView host_;
};

}  // namespace raingauge
