// SPDX-License-Identifier: Apache-2.0
// What every registered kernel must do, whatever it is made of. check_kernel_contract() runs the whole
// list on every device that the kernel and this machine have.
#pragma once

#include "methods/kernels/registry.h"

namespace raingauge::testing_kernels {

// Reports failures through GoogleTest. Skips aloud (GTEST_SKIP of the calling test) a kernel that is
// not built, and one whose only devices this machine lacks ("skipped: no CUDA device").
void check_kernel_contract(const KernelEntry& entry);

}  // namespace raingauge::testing_kernels
