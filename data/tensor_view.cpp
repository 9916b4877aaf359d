// SPDX-License-Identifier: Apache-2.0
// How a device is written and read: `cpu`, `cuda`, `cuda:1`.
#include "data/tensor_view.h"

#include <charconv>
#include <string_view>

#include "data/error.h"

namespace raingauge {

std::string to_string(const Device& device) {
  if (device.kind == DeviceKind::cpu) return "cpu";
  return "cuda:" + std::to_string(device.index);
}

Device parse_device(const std::string& text) {
  if (text == "cpu") return {DeviceKind::cpu, 0};
  if (text == "cuda") return {DeviceKind::cuda, 0};
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    const char* begin = text.data() + kPrefix.size();
    const char* end = text.data() + text.size();
    int index = 0;
    const auto result = std::from_chars(begin, end, index);
    if (begin != end && result.ec == std::errc() && result.ptr == end && index >= 0) {
      return {DeviceKind::cuda, index};
    }
  }
  throw Error("unknown device `" + text + "`: allowed are cpu, cuda and cuda:N with N >= 0");
}

}  // namespace raingauge
