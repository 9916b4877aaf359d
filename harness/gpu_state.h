// SPDX-License-Identifier: Apache-2.0
// In what state was the GPU when a sample was taken? Clocks, power and what held the clocks back, from
// NVIDIA's management library, which is loaded where it is there and never changes a setting.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "data/tensor_view.h"

namespace raingauge {

struct GpuState {
  int sm_mhz = -1;        // -1: the library does not say
  double power_w = -1.0;  // drawn by the board
  int temperature_c = -1;
  long long throttle = -1;  // NVML's bits of clock event reasons; 0 and 1 (idle) hold nothing back
};

class GpuMonitor {
 public:
  explicit GpuMonitor(const Device& device);  // of the host: reads nothing
  ~GpuMonitor();
  GpuMonitor(const GpuMonitor&) = delete;
  GpuMonitor& operator=(const GpuMonitor&) = delete;

  // nullopt on the host and where the library cannot be used.
  std::optional<GpuState> read() const;

 private:
  struct Library;
  std::shared_ptr<const Library> library_;
  void* handle_ = nullptr;
};

// {sm_mhz: […], power_w: […], temperature_c: […], throttle: […]}, one entry a sample; null when empty.
nlohmann::json gpu_states_json(const std::vector<GpuState>& states);

}  // namespace raingauge
