// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace raingauge::demo {

// "cpu" or "cuda:0". CUDA is found at run time beside the libtorch that is loaded, so that one
// build serves both kinds of machine. Throws Error, saying what is missing.
at::Device open_device(const std::string& name);

// A 1D fp32 tensor on `device`. To CUDA it travels through pinned memory without a wait: a wait a
// training step would keep the host from running ahead of the GPU.
at::Tensor upload(const std::vector<float>& values, at::Device device);

}  // namespace raingauge::demo
