// SPDX-License-Identifier: Apache-2.0
// Attention by libtorch's own operators, behind plain C++: only the files of this folder see ATen.
// Inputs are used in place (any strides); outputs are converted to fp32.
#pragma once

#include <cstdint>
#include <string>

#include "methods/kernels/kernel.h"

namespace raingauge {

// Loads libtorch's CUDA half (once), found beside the CPU half. False, with the reason in `why`
// (may be null), when it cannot be loaded or sees no device.
bool load_torch_cuda(std::string* why = nullptr);

// at::scaled_dot_product_attention over all valid keys on the device of the inputs; CUDA work may
// still run on return. Returns the backend that ran: "flash", "cuDNN", "efficient", "math"; torch
// chooses unless `only_cudnn`. Without outputs.o the result stays in torch's hands and is dropped.
// Throws Unsupported instead of letting the math backend hold a large N x N matrix, and where cuDNN
// is asked for and does not cover the inputs.
std::string torch_sdpa_forward(const AttendInputs& inputs, const AttendOutputs& outputs,
                               int threads, bool only_cudnn);

// Why cuDNN does not cover inputs on a CUDA device; empty when it does. Reads no element.
std::string torch_cudnn_refusal(const AttendInputs& inputs);

// matmul, softmax, matmul over chunks of query rows on the CPU; scores and weights are rounded to bf16
// where the inputs are bf16 and the CPU multiplies that, all else is fp32. Gives LSE.
void torch_chunked_forward(const AttendInputs& inputs, const AttendOutputs& outputs, int threads);

// Waits for libtorch's CUDA work on the device.
void torch_cuda_synchronize(int device);

}  // namespace raingauge
