// SPDX-License-Identifier: Apache-2.0
// Which instruction-set level runs: the best that this CPU and its operating system support, or the
// one asked for by name.
#pragma once

#include <string>
#include <vector>

#include "methods/kernels/cpu/ops.h"

namespace raingauge::cpu {

// Names of the levels that this machine can run, best first; the last is "portable".
std::vector<std::string> available_levels();

// Names of all levels compiled into this binary, in the same order.
std::vector<std::string> compiled_levels();

// "" = the best one. Throws Error for an unknown name, Unsupported for one this CPU lacks.
const LevelOps& level_ops(const std::string& name = "");

}  // namespace raingauge::cpu
