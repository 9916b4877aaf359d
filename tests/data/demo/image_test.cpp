// SPDX-License-Identifier: Apache-2.0
#include "data/demo/image.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/error.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

TEST(Image, WritesPpm) {
  const TemporaryFolder folder;
  at::Tensor pixels = at::full({2, 3, 3}, -1.0);
  pixels[1][2][0] = 1.0;  // bottom right, red
  write_image(folder / "a.ppm", pixels);
  std::ifstream stream(folder / "a.ppm", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  EXPECT_EQ(bytes, "P6\n3 2\n255\n" + std::string(15, '\0') + "\xff" + std::string(2, '\0'));
}

TEST(Image, UnwritablePathsAreErrors) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_image(folder / "no" / "a.ppm", at::zeros({2, 2, 3})), Error);
  EXPECT_THROW(write_image(folder / "a.xyz", at::zeros({2, 2, 3})), Error);
}

}  // namespace
}  // namespace raingauge::demo
