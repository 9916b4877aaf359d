// SPDX-License-Identifier: Apache-2.0
// Which devices are there, and memory on them. In builds without CUDA the list is the host alone and
// every attempt to use a CUDA device throws Unsupported with the reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/tensor_view.h"

namespace raingauge {

struct CudaInfo {
  int index = 0;
  std::string name;
  std::string pci_bus;       // "0000:1b:00.0"
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::int64_t memory_bytes = 0;
  int driver_version = 0;  // as CUDA counts: 13000 = 13.0
  int runtime_version = 0;
};

// Empty when there is none; `why` (may be null) then says so: not built, no driver, no device.
std::vector<CudaInfo> list_cuda_devices(std::string* why = nullptr);

struct DeviceInfo {
  Device device;
  std::string description;  // "NVIDIA H200, sm_90, 132 multiprocessors, 139.8 GiB"
};
// The host first, then the CUDA devices: what `raingauge list devices` prints.
std::vector<DeviceInfo> list_devices();

// Throws Unsupported unless `device` is the host or a CUDA device that exists here.
void check_device(const Device& device);

// Owns plain device memory (never managed). Host devices get ordinary memory, so that code above
// need not care. Throws Error naming the size when memory runs out.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const Device& device, std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  void* data() { return data_; }
  const void* data() const { return data_; }
  template <typename T>
  T* as() {
    return static_cast<T*>(data_);
  }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  const Device& device() const { return device_; }

  // Blocking copies of at most bytes().
  void copy_from_host(const void* source, std::size_t bytes);
  void copy_to_host(void* target, std::size_t bytes) const;

 private:
  Device device_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Copies memory that somebody else owns on `device` to the host, after the work that fills it.
void copy_to_host(const Device& device, const void* source, void* target, std::size_t bytes);

// … and the other way.
void copy_from_host(const Device& device, const void* source, void* target, std::size_t bytes);

// A device copy of a host array.
template <typename T>
DeviceBuffer to_device(const Device& device, const std::vector<T>& host) {
  DeviceBuffer buffer(device, host.size() * sizeof(T));
  buffer.copy_from_host(host.data(), host.size() * sizeof(T));
  return buffer;
}

// Makes a CUDA device current and restores the former one; nothing for the host.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Device& device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int former_ = -1;
};

// Milliseconds of work on a device, phase by phase: between CUDA events on the default stream, or by
// the host's clock. On CUDA devices start() first writes more than any L2 holds: what is timed finds L2
// without its inputs, and the device is busy while the host launches. Whether that was long enough is
// seen by the first event: as long as it has not come when the last mark is launched, no launch is part
// of the time. Where it has, the next start() writes twice as much, up to kMostFlushes.
class DeviceTimer {
 public:
  explicit DeviceTimer(const Device& device);
  ~DeviceTimer();
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;

  void start();
  void mark();                                           // the end of a phase
  std::vector<double> finish();                          // waits for the work; one entry a mark
  bool launch_hidden() const { return launch_hidden_; }  // of the last finish(); true on the host

  static constexpr int kMostFlushes = 128;  // some 25 ms of an H100

 private:
  struct Events;
  Device device_;
  std::unique_ptr<Events> events_;
  std::vector<std::chrono::steady_clock::time_point> host_marks_;
  bool launch_hidden_ = true;
};

// What a latency row says of the caches before every sample.
std::string cache_state(const Device& device);

// Waits for all work on the device and throws Error when any of it failed.
void synchronize_device(const Device& device);

}  // namespace raingauge
