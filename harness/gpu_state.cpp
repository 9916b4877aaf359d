// SPDX-License-Identifier: Apache-2.0
#include "harness/gpu_state.h"

#include <dlfcn.h>

#include <cstdint>

#include "methods/kernels/device.h"

namespace raingauge {

// The functions of nvml.h that are used, with its types: nvmlReturn_t is an enum (0 = success),
// nvmlDevice_t a pointer.
struct GpuMonitor::Library {
  using Init = int (*)();
  using ByBus = int (*)(const char*, void**);
  using Value = int (*)(void*, unsigned*);
  using Typed = int (*)(void*, int, unsigned*);
  using Bits = int (*)(void*, unsigned long long*);

  void* file = nullptr;
  Init init = nullptr;
  Init shutdown = nullptr;
  ByBus by_bus = nullptr;
  Value power = nullptr;        // milliwatts
  Typed clock = nullptr;        // type 1: SM; MHz
  Typed temperature = nullptr;  // type 0: the chip
  Bits throttle = nullptr;
  bool ready = false;

  Library() : file(::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (file == nullptr) return;
    load(init, "nvmlInit_v2");
    load(shutdown, "nvmlShutdown");
    load(by_bus, "nvmlDeviceGetHandleByPciBusId_v2");
    load(power, "nvmlDeviceGetPowerUsage");
    load(clock, "nvmlDeviceGetClockInfo");
    load(temperature, "nvmlDeviceGetTemperature");
    load(throttle, "nvmlDeviceGetCurrentClocksThrottleReasons");
    ready = init != nullptr && by_bus != nullptr && init() == 0;
  }
  ~Library() {
    if (ready && shutdown != nullptr) shutdown();
    if (file != nullptr) ::dlclose(file);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <typename Function>
  void load(Function& function, const char* name) {
    function = reinterpret_cast<Function>(::dlsym(file, name));
  }

  static std::shared_ptr<const Library> shared() {
    static std::weak_ptr<const Library> loaded;
    auto library = loaded.lock();
    if (library == nullptr) {
      library = std::make_shared<Library>();
      loaded = library;
    }
    return library;
  }
};

GpuMonitor::GpuMonitor(const Device& device) {
  if (device.kind == DeviceKind::cpu) return;
  library_ = Library::shared();
  if (!library_->ready) return;
  for (const CudaInfo& info : list_cuda_devices()) {
    if (info.index == device.index && library_->by_bus(info.pci_bus.c_str(), &handle_) != 0) {
      handle_ = nullptr;
    }
  }
}

GpuMonitor::~GpuMonitor() = default;

std::optional<GpuState> GpuMonitor::read() const {
  if (handle_ == nullptr) return std::nullopt;
  GpuState state;
  unsigned value = 0;
  unsigned long long bits = 0;
  if (library_->clock != nullptr && library_->clock(handle_, 1, &value) == 0) {
    state.sm_mhz = static_cast<int>(value);
  }
  if (library_->power != nullptr && library_->power(handle_, &value) == 0) {
    state.power_w = value / 1000.0;
  }
  if (library_->temperature != nullptr && library_->temperature(handle_, 0, &value) == 0) {
    state.temperature_c = static_cast<int>(value);
  }
  if (library_->throttle != nullptr && library_->throttle(handle_, &bits) == 0) {
    state.throttle = static_cast<long long>(bits);
  }
  return state;
}

nlohmann::json gpu_states_json(const std::vector<GpuState>& states) {
  if (states.empty()) return nullptr;
  nlohmann::json result = {{"sm_mhz", nlohmann::json::array()},
                           {"power_w", nlohmann::json::array()},
                           {"temperature_c", nlohmann::json::array()},
                           {"throttle", nlohmann::json::array()}};
  for (const GpuState& state : states) {
    result["sm_mhz"].push_back(state.sm_mhz);
    result["power_w"].push_back(state.power_w);
    result["temperature_c"].push_back(state.temperature_c);
    result["throttle"].push_back(state.throttle);
  }
  return result;
}

}  // namespace raingauge
