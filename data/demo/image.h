// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

namespace raingauge::demo {

// pixels [Y, X, 3] in [-1, 1] to a PNG (where built with OpenCV) or a PPM file, by the extension.
void write_image(const std::filesystem::path& path, const at::Tensor& pixels);

}  // namespace raingauge::demo
