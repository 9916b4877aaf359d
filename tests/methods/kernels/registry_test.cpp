// SPDX-License-Identifier: Apache-2.0
// Is the table of kernels whole, and are devices named and guarded as they should be?
#include "methods/kernels/registry.h"

#include <gtest/gtest.h>

#include <set>

#include "data/error.h"
#include "methods/kernels/device.h"

namespace raingauge {
namespace {

TEST(KernelRegistry, ListsTheKernelsOfTheDefFileOnce) {
  std::set<std::string> names;
  for (const KernelEntry& entry : kernel_registry()) {
    EXPECT_TRUE(names.insert(std::string(entry.spec.name)).second) << entry.spec.name;
    EXPECT_FALSE(entry.spec.help.empty()) << entry.spec.name;
    EXPECT_NE(entry.factory, nullptr);
    EXPECT_EQ(&find_kernel(entry.spec.name), &entry);
  }
  for (const char* name : {"reference", "cpu", "torch_sdpa", "torch_chunked", "cuda"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_TRUE(find_kernel("reference").built());
  EXPECT_TRUE(find_kernel("cpu").built());
}

TEST(KernelRegistry, UnknownNamesListTheKnownAndTheNearest) {
  try {
    find_kernel("torch_spda");
    FAIL() << "an unknown kernel was found";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("torch_spda"), std::string::npos) << message;
    EXPECT_NE(message.find("'torch_sdpa'?"), std::string::npos) << message;
    EXPECT_NE(message.find("reference, cpu"), std::string::npos) << message;
  }
}

TEST(Devices, TheHostComesFirstAndUnknownOnesAreRefused) {
  const auto devices = list_devices();
  ASSERT_FALSE(devices.empty());
  EXPECT_EQ(devices[0].device.kind, DeviceKind::cpu);
  EXPECT_NO_THROW(check_device(Device{}));
  EXPECT_THROW(check_device({DeviceKind::cuda, 4711}), Unsupported);
  std::string why;
  if (list_cuda_devices(&why).empty()) {
    EXPECT_FALSE(why.empty());
    EXPECT_THROW(DeviceBuffer({DeviceKind::cuda, 0}, 16), Error);
  }
}

TEST(Devices, BuffersCarryTheirBytes) {
  const std::vector<int> numbers = {1, 2, 3};
  DeviceBuffer buffer = to_device(Device{}, numbers);
  DeviceBuffer moved = std::move(buffer);
  std::vector<int> back(3);
  moved.copy_to_host(back.data(), 12);
  EXPECT_EQ(back, numbers);
  EXPECT_THROW(moved.copy_from_host(numbers.data(), 13), Error);
  EXPECT_THROW(moved.copy_to_host(back.data(), 13), Error);
}

}  // namespace
}  // namespace raingauge
