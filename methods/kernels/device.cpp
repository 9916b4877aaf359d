// SPDX-License-Identifier: Apache-2.0
// Devices and device memory through the CUDA runtime (linked statically), or the host alone.
#include "methods/kernels/device.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <new>
#include <thread>
#include <utility>

#include "data/error.h"

#ifdef RAINGAUGE_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace raingauge {
namespace {

#ifdef RAINGAUGE_WITH_CUDA
void check_cuda(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // errors that are not sticky must not surface at the next call
  throw Error("CUDA: " + what + ": " + cudaGetErrorString(status) + " (" +
              cudaGetErrorName(status) + ")");
}

CudaInfo describe_cuda(int index) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index),
             "properties of device " + std::to_string(index));
  CudaInfo info;
  info.index = index;
  info.name = static_cast<const char*>(properties.name);
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem);
  std::array<char, 32> bus{};
  check_cuda(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), index),
             "PCI address of device " + std::to_string(index));
  info.pci_bus = bus.data();
  check_cuda(cudaDriverGetVersion(&info.driver_version), "driver version");
  check_cuda(cudaRuntimeGetVersion(&info.runtime_version), "runtime version");
  return info;
}
#else
[[noreturn]] void throw_not_built(const Device& device) {
  throw Unsupported("device " + to_string(device) +
                    ": this build has no CUDA (no CUDA compiler was found)");
}
#endif

std::string describe(const CudaInfo& info) {
  char gib[32];
  std::snprintf(gib, sizeof gib, "%.1f GiB", static_cast<double>(info.memory_bytes) / (1 << 30));
  return info.name + ", sm_" + std::to_string(info.major) + std::to_string(info.minor) + ", " +
         std::to_string(info.multiprocessors) + " multiprocessors, " + gib;
}

}  // namespace

std::vector<CudaInfo> list_cuda_devices(std::string* why) {
  std::vector<CudaInfo> devices;
#ifdef RAINGAUGE_WITH_CUDA
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    if (why != nullptr) *why = std::string("no CUDA device: ") + cudaGetErrorString(status);
    return devices;
  }
  for (int index = 0; index < count; ++index) devices.push_back(describe_cuda(index));
  if (devices.empty() && why != nullptr) *why = "no CUDA device";
#else
  if (why != nullptr) *why = "not built (no CUDA compiler was found)";
#endif
  return devices;
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices;
  devices.push_back({Device{}, "host, " + std::to_string(std::thread::hardware_concurrency()) +
                                   " hardware threads"});
  for (const CudaInfo& info : list_cuda_devices()) {
    devices.push_back({Device{DeviceKind::cuda, info.index}, describe(info)});
  }
  return devices;
}

void check_device(const Device& device) {
  if (device.kind == DeviceKind::cpu) return;
  std::string why;
  const std::size_t count = list_cuda_devices(&why).size();
  if (count == 0) throw Unsupported("device " + to_string(device) + ": " + why);
  if (device.index < 0 || static_cast<std::size_t>(device.index) >= count) {
    throw Unsupported("device " + to_string(device) +
                      " does not exist: allowed are cuda:0 to cuda:" + std::to_string(count - 1));
  }
}

DeviceBuffer::DeviceBuffer(const Device& device, std::size_t bytes)
    : device_(device), bytes_(bytes) {
  if (bytes == 0) return;
  if (device.kind == DeviceKind::cpu) {
    data_ = ::operator new (bytes, std::align_val_t{64}, std::nothrow);
    if (data_ == nullptr) throw Error("out of memory: " + std::to_string(bytes) + " bytes");
    return;
  }
#ifdef RAINGAUGE_WITH_CUDA
  const DeviceGuard guard(device);
  check_cuda(cudaMalloc(&data_, bytes),
             "allocating " + std::to_string(bytes) + " bytes on " + to_string(device));
#else
  throw_not_built(device);
#endif
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ == nullptr) return;
  if (device_.kind == DeviceKind::cpu) {
    ::operator delete (data_, std::align_val_t{64});
    return;
  }
#ifdef RAINGAUGE_WITH_CUDA
  (void)cudaFree(data_);  // a destructor must not throw; a sticky error surfaces at the next call
#endif
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void copy_to_host(const Device& device, const void* source, void* target, std::size_t bytes) {
  if (device.kind == DeviceKind::cpu) {
    std::memcpy(target, source, bytes);
    return;
  }
#ifdef RAINGAUGE_WITH_CUDA
  const DeviceGuard guard(device);
  check_cuda(cudaMemcpy(target, source, bytes, cudaMemcpyDeviceToHost),
             "copying " + std::to_string(bytes) + " bytes from " + to_string(device));
#else
  throw_not_built(device);
#endif
}

void copy_from_host(const Device& device, const void* source, void* target, std::size_t bytes) {
  if (device.kind == DeviceKind::cpu) {
    std::memcpy(target, source, bytes);
    return;
  }
#ifdef RAINGAUGE_WITH_CUDA
  const DeviceGuard guard(device);
  check_cuda(cudaMemcpy(target, source, bytes, cudaMemcpyHostToDevice),
             "copying " + std::to_string(bytes) + " bytes to " + to_string(device));
#else
  throw_not_built(device);
#endif
}

void DeviceBuffer::copy_from_host(const void* source, std::size_t bytes) {
  if (bytes > bytes_) {
    throw Error("copying " + std::to_string(bytes) + " bytes into a device buffer of " +
                std::to_string(bytes_));
  }
  if (bytes == 0) return;
  if (device_.kind == DeviceKind::cpu) {
    std::memcpy(data_, source, bytes);
    return;
  }
#ifdef RAINGAUGE_WITH_CUDA
  check_cuda(cudaMemcpy(data_, source, bytes, cudaMemcpyHostToDevice),
             "copying " + std::to_string(bytes) + " bytes to " + to_string(device_));
#endif
}

void DeviceBuffer::copy_to_host(void* target, std::size_t bytes) const {
  if (bytes > bytes_) {
    throw Error("copying " + std::to_string(bytes) + " bytes from a device buffer of " +
                std::to_string(bytes_));
  }
  if (bytes == 0) return;
  if (device_.kind == DeviceKind::cpu) {
    std::memcpy(target, data_, bytes);
    return;
  }
#ifdef RAINGAUGE_WITH_CUDA
  check_cuda(cudaMemcpy(target, data_, bytes, cudaMemcpyDeviceToHost),
             "copying " + std::to_string(bytes) + " bytes from " + to_string(device_));
#endif
}

DeviceGuard::DeviceGuard(const Device& device) {
  if (device.kind == DeviceKind::cpu) return;
#ifdef RAINGAUGE_WITH_CUDA
  check_cuda(cudaGetDevice(&former_), "current device");
  check_cuda(cudaSetDevice(device.index), "selecting " + to_string(device));
#else
  throw_not_built(device);
#endif
}

DeviceGuard::~DeviceGuard() {
#ifdef RAINGAUGE_WITH_CUDA
  if (former_ >= 0) (void)cudaSetDevice(former_);
#endif
}

#ifdef RAINGAUGE_WITH_CUDA
namespace {
constexpr std::size_t kFlushBytes = std::size_t{512} << 20;
constexpr int kFlushes = 4;  // as in peers/tensors.py

// One for all timers of a device that are alive.
std::shared_ptr<DeviceBuffer> flush_buffer(const Device& device) {
  static std::map<int, std::weak_ptr<DeviceBuffer>> buffers;
  std::shared_ptr<DeviceBuffer> buffer = buffers[device.index].lock();
  if (buffer == nullptr) {
    buffer = std::make_shared<DeviceBuffer>(device, kFlushBytes);
    buffers[device.index] = buffer;
  }
  return buffer;
}
}  // namespace

struct DeviceTimer::Events {
  std::vector<cudaEvent_t> marks;  // made as they are needed, used again
  std::size_t used = 0;
  std::shared_ptr<DeviceBuffer> flush;
  int flushes = kFlushes;
  explicit Events(const Device& device) : flush(flush_buffer(device)) {}
  ~Events() {
    for (const cudaEvent_t event : marks) (void)cudaEventDestroy(event);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  void record() {
    if (used == marks.size()) {
      cudaEvent_t event = nullptr;
      check_cuda(cudaEventCreate(&event), "creating an event");
      marks.push_back(event);
    }
    check_cuda(cudaEventRecord(marks[used++], nullptr), "recording an event");
  }
  // Asked before anything waits: has the device not even begun?
  bool ahead() {
    const cudaError_t status = cudaEventQuery(marks[0]);
    if (status != cudaErrorNotReady) check_cuda(status, "asking for the first event");
    const bool hidden = status == cudaErrorNotReady;
    // "Not ready" is no error; one that came before must stay.
    if (cudaPeekAtLastError() == cudaErrorNotReady) (void)cudaGetLastError();
    if (!hidden) flushes = std::min(2 * flushes, kMostFlushes);
    return hidden;
  }
  std::vector<double> phases() const {
    check_cuda(cudaEventSynchronize(marks[used - 1]), "waiting for what was timed");
    std::vector<double> result;
    for (std::size_t i = 1; i < used; ++i) {
      float milliseconds = 0.0F;
      check_cuda(cudaEventElapsedTime(&milliseconds, marks[i - 1], marks[i]), "reading events");
      result.push_back(double{milliseconds});
    }
    return result;
  }
};
#else
struct DeviceTimer::Events {
  void record() {}
  bool ahead() { return true; }
  std::vector<double> phases() const { return {}; }
};
#endif

DeviceTimer::DeviceTimer(const Device& device) : device_(device) {
  if (device.kind == DeviceKind::cpu) return;
  const DeviceGuard guard(device);
#ifdef RAINGAUGE_WITH_CUDA
  events_ = std::make_unique<Events>(device);
#endif
}

DeviceTimer::~DeviceTimer() = default;

void DeviceTimer::start() {
  host_marks_.clear();
#ifdef RAINGAUGE_WITH_CUDA
  if (events_ != nullptr) {
    const DeviceGuard guard(device_);
    for (int i = 0; i < events_->flushes; ++i) {
      check_cuda(cudaMemsetAsync(events_->flush->data(), i, kFlushBytes, nullptr), "flushing L2");
    }
    events_->used = 0;
  }
#endif
  mark();
}

void DeviceTimer::mark() {
  if (events_ == nullptr) {
    host_marks_.push_back(std::chrono::steady_clock::now());
    return;
  }
  const DeviceGuard guard(device_);
  events_->record();
}

std::vector<double> DeviceTimer::finish() {
  if (events_ != nullptr) {
    const DeviceGuard guard(device_);
    launch_hidden_ = events_->ahead();
    return events_->phases();
  }
  std::vector<double> result;
  for (std::size_t i = 1; i < host_marks_.size(); ++i) {
    result.push_back(
        std::chrono::duration<double, std::milli>(host_marks_[i] - host_marks_[i - 1]).count());
  }
  return result;
}

std::string cache_state(const Device& device) {
  return device.kind == DeviceKind::cuda
             ? "L2 flushed before every sample (at least 4 x 512 MiB written)"
             : "as the sample before left it";
}

void synchronize_device(const Device& device) {
  if (device.kind == DeviceKind::cpu) return;
  const DeviceGuard guard(device);
#ifdef RAINGAUGE_WITH_CUDA
  check_cuda(cudaDeviceSynchronize(), "waiting for " + to_string(device));
#endif
}

}  // namespace raingauge
