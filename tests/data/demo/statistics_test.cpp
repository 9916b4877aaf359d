// SPDX-License-Identifier: Apache-2.0
#include "data/demo/statistics.h"

#include <gtest/gtest.h>

#include "data/demo/sampler.h"
#include "tests/data/demo/toy_demo.h"

namespace raingauge::demo {
namespace {

// 20 key blocks of 128, the last of them half full; frame 0 is the first 3 blocks.
constexpr int64_t kTokens = 19 * 128 + 64, kFrame = 3 * 128, kVideo = kTokens - 8;

TEST(Statistics, EqualScoresSpreadEvenly) {
  const at::Tensor zero = at::zeros({kTokens, kHeadDim});
  const HeadStatistics found = head_statistics(zero, zero, kFrame, kVideo);
  const auto tokens = static_cast<double>(kTokens);
  EXPECT_NEAR(found.frame0_mass, kFrame / tokens, 1e-5);
  EXPECT_NEAR(found.top_block_mass, 4 * 128 / tokens, 1e-5);  // 20 % of 20 blocks
}

TEST(Statistics, OneKeyTakesAll) {
  const at::Tensor q = at::ones({kTokens, kHeadDim});
  for (const auto& [key, mass] : {std::pair<int64_t, double>{5, 1.0}, {kFrame, 0.0}}) {
    at::Tensor k = at::zeros({kTokens, kHeadDim});
    k.select(0, key).fill_(10.0);  // score 64 * 10 / 8
    const HeadStatistics found = head_statistics(q, k, kFrame, kVideo);
    EXPECT_NEAR(found.frame0_mass, mass, 1e-5);
    EXPECT_NEAR(found.top_block_mass, 1.0, 1e-5);
  }
}

TEST(Statistics, FrameZeroCountsQueriesOfLaterFramesAlone) {
  // Queries of frame 0 and of the text look at frame 0, all others at the last token.
  at::Tensor q = at::zeros({kTokens, kHeadDim}), k = at::zeros({kTokens, kHeadDim});
  q.select(1, 0).narrow(0, kFrame, kVideo - kFrame).fill_(100.0);
  q.select(1, 1).narrow(0, 0, kFrame).fill_(100.0);
  q.select(1, 1).narrow(0, kVideo, kTokens - kVideo).fill_(100.0);
  k[kTokens - 1][0] = 10.0;
  k[0][1] = 10.0;
  EXPECT_NEAR(head_statistics(q, k, kFrame, kVideo).frame0_mass, 0.0, 1e-6);
}

TEST(Statistics, ObservingLeavesTheOutput) {
  std::vector<std::vector<HeadStatistics>> found;
  const AttentionFn observing = observing_attention(10, 90, found);
  const at::Tensor q = gaussian_noise(1, {1, 2, 98, kHeadDim}).to(at::kBFloat16);
  const at::Tensor out = observing(Site{}, q, q, q);
  EXPECT_TRUE(out.equal(native_attention(Site{}, q, q, q)));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].size(), 2u);
}

}  // namespace
}  // namespace raingauge::demo
