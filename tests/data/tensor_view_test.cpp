// SPDX-License-Identifier: Apache-2.0
#include "data/tensor_view.h"

#include <gtest/gtest.h>

#include <vector>

#include "data/error.h"

namespace raingauge {
namespace {

TEST(TensorViewTest, DevicesRoundTrip) {
  EXPECT_EQ(to_string(parse_device("cpu")), "cpu");
  EXPECT_EQ(to_string(parse_device("cuda")), "cuda:0");
  EXPECT_EQ(to_string(parse_device("cuda:17")), "cuda:17");
  for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "CPU", "cuda:99999999999"}) {
    EXPECT_THROW(parse_device(bad), Error) << bad;
  }
}

TEST(TensorViewTest, RowsAndSlices) {
  std::vector<std::uint16_t> data(2 * 3 * 4);
  const TensorView view = contiguous_view(data.data(), DType::bf16, 2, 3, 4);
  EXPECT_EQ(view.row(1, 2), data.data() + 20);
  const TensorView head = view.slice_heads(1, 1);
  EXPECT_EQ(head.heads, 1);
  EXPECT_EQ(head.row(0, 1), data.data() + 16);
}

}  // namespace
}  // namespace raingauge
