// SPDX-License-Identifier: Apache-2.0
// SVG against its released masks written out token by token, the densities that follow from them, and
// planted heads.
#include <gtest/gtest.h>

#include <cmath>

#include "data/error.h"
#include "methods/registry.h"
#include "methods/svg_masks.h"
#include "tests/methods/planted.h"

namespace raingauge {
namespace {

using nlohmann::json;
using svg::Model;
using svg::Sequence;
using testing::keeps;
using testing::NoiseRecord;
using testing::text_then_video;
using testing::video_then_text;

Segments with_pad(Segments segments, std::int64_t pad) {
  segments.push_back({Role::pad, segments.back().end(), pad, 0, 0, 0});
  return segments;
}

// The executed mask of a pair of positions, as the three mask functions say it.
bool executed(const Sequence& s, std::int64_t width, std::int64_t q, std::int64_t k) {
  const bool text = s.in_text(q) || s.in_text(k);
  if (s.model == Model::wan) return std::abs(q - k) <= width || k < s.frame_size || text;
  if (s.model == Model::cogvideox) return std::abs(q - k) < width || text;
  if (q >= s.real() || k >= s.real()) return q >= s.real() && k >= s.real();
  return std::abs(q - k) < width || text;
}

// The profile mask of a pair of positions (spatial arrangement of the sequence in both cases).
bool profiled(const Sequence& s, bool temporal, std::int64_t q, std::int64_t k) {
  const std::int64_t begin = s.video_begin;
  const std::int64_t end = begin + s.video();
  const bool in_video = q >= begin && q < end && k >= begin && k < end;
  if (s.model != Model::cogvideox || !temporal) {
    if (!in_video) {
      const bool from_text = q < begin || q >= end || k < begin || k >= end;
      if (from_text) return true;
    }
  } else if (!in_video) {
    return false;
  }
  const auto place = [&](std::int64_t p) {  // in the arranged video
    const auto i = p - begin;
    return temporal ? i % s.frame_size * s.frames + i / s.frame_size : i;
  };
  const double frames = s.model == Model::wan ? 2.0 : 1.5;
  const auto reach = static_cast<std::int64_t>(std::floor(frames * double(s.frame_size) / 128));
  if (s.model == Model::wan && place(k) < s.frame_size) return true;
  if (s.model == Model::cogvideox && !temporal) {
    const std::int64_t blocks = (s.video() + 127) / 128;
    return q / 128 < blocks && k / 128 < blocks && std::abs(q / 128 - k / 128) < reach;
  }
  return std::abs(place(q) / 128 - place(k) / 128) < reach;
}

struct Case {
  const char* preset;
  Model model;
  Segments segments;
};

std::vector<Case> cases() {
  return {{"wan", Model::wan, video_then_text(7, 10, 13, 0)},
          {"wan", Model::wan, video_then_text(7, 10, 13, 9)},
          {"hunyuan", Model::hunyuan, video_then_text(6, 12, 16, 70)},
          {"hunyuan", Model::hunyuan, with_pad(video_then_text(6, 12, 16, 30), 50)},
          {"cogvideox", Model::cogvideox, text_then_video(6, 12, 16, 70)}};
}

TEST(SvgMasks, ExecutedBlocksAreTheCoverOfTheTokenMask) {
  for (const auto& c : cases()) {
    const Sequence s = svg::sequence_of(c.segments, c.model);
    for (const double density : {0.45, 0.6}) {
      const auto width = svg::band_width(s, density);
      const PricedMask mask = svg::executed_mask(s, 32);
      const KeptRows kept = keep_at(mask, svg::knob_of(s, width));
      for (std::int64_t i = 0; i < mask.rows(); ++i) {
        for (std::int64_t j = 0; j < mask.columns(); ++j) {
          bool any = false;
          for (auto q = mask.q_offsets[std::size_t(i)]; q < mask.q_offsets[std::size_t(i) + 1];
               ++q) {
            for (auto k = mask.k_offsets[std::size_t(j)]; k < mask.k_offsets[std::size_t(j) + 1];
                 ++k) {
              any = any || executed(s, width, q, k);
            }
          }
          const auto& row = kept[std::size_t(i)];
          ASSERT_EQ(std::find(row.begin(), row.end(), j) != row.end(), any)
              << c.preset << " " << describe(c.segments) << " block " << i << ", " << j;
        }
      }
    }
  }
}

TEST(SvgMasks, ProfilesAreExactToTheToken) {
  for (const auto& c : cases()) {
    const Sequence s = svg::sequence_of(c.segments, c.model);
    for (const bool temporal : {false, true}) {
      const PricedMask mask = svg::profile_mask(s, temporal);
      const KeptRows kept = keep_at(mask, 0.0);
      // Block of every position of the spatial arrangement, through the tokens.
      const auto& order = temporal ? s.temporal : s.spatial;
      std::vector<std::size_t> block_of(order.size());
      for (std::size_t b = 0; b + 1 < mask.q_offsets.size(); ++b) {
        for (auto p = mask.q_offsets[b]; p < mask.q_offsets[b + 1]; ++p) {
          block_of[std::size_t(order[std::size_t(p)])] = b;
        }
      }
      for (std::int64_t q = 0; q < s.tokens(); q += 3) {
        const auto& row = kept[block_of[std::size_t(s.spatial[std::size_t(q)])]];
        const bool no_row = c.model == Model::cogvideox && temporal && s.in_text(q);
        for (std::int64_t k = 0; k < s.tokens() && !no_row; ++k) {
          const auto column =
              static_cast<std::int32_t>(block_of[std::size_t(s.spatial[std::size_t(k)])]);
          ASSERT_EQ(std::binary_search(row.begin(), row.end(), column), profiled(s, temporal, q, k))
              << c.preset << (temporal ? " temporal " : " spatial ") << q << ", " << k;
        }
      }
    }
  }
}

// Tokens kept / all, by counting each row's interval.
double token_density(const Sequence& s, std::int64_t width) {
  double kept = 0.0;
  const std::int64_t n = s.real();
  const std::int64_t reach = s.model == Model::wan ? width : width - 1;
  for (std::int64_t q = 0; q < n; ++q) {
    if (s.in_text(q)) {
      kept += double(n);
      continue;
    }
    const auto low = std::max<std::int64_t>(0, q - reach);
    const auto high = std::min(n - 1, q + reach);
    std::int64_t count = high - low + 1;
    if (s.model == Model::wan) count += std::min(low, s.frame_size);
    if (s.text > 0) count += std::max<std::int64_t>(0, n - std::max(high + 1, s.text_begin));
    kept += double(count);
  }
  kept += double(s.pad) * double(s.pad);
  return kept / (double(s.tokens()) * double(s.tokens()));
}

TEST(SvgMasks, DensitiesAreThoseOfTheReleasedWidths) {
  struct Check {
    Model model;
    Segments segments;
    double asked, tokens, tiles;
  };
  const std::vector<Check> checks = {
      {Model::wan, video_then_text(21, 45, 80, 0), 0.25, 0.293, 0.295},
      {Model::wan, video_then_text(21, 45, 80, 0), 0.30, 0.340, 0.343},
      {Model::hunyuan, with_pad(video_then_text(33, 45, 80, 60), 196), 0.25, 0.246, -1.0}};
  for (const auto& check : checks) {
    const Sequence s = svg::sequence_of(check.segments, check.model);
    const auto width = svg::band_width(s, check.asked);
    EXPECT_NEAR(token_density(s, width), check.tokens, 6e-4);
    if (check.tiles < 0.0) continue;
    const PricedMask mask = svg::executed_mask(s, 128);
    double kept = 0.0;
    for (const auto& row : keep_at(mask, svg::knob_of(s, width))) kept += double(row.size());
    EXPECT_NEAR(kept / double(mask.rows() * mask.columns()), check.tiles, 6e-4);
  }
}

TEST(SvgMasks, TextAloneCanExceedTheDensity) {
  const Sequence s = svg::sequence_of(video_then_text(3, 8, 8, 60), Model::hunyuan);
  try {
    svg::band_width(s, 0.3);
    FAIL() << "accepted";
  } catch (const Infeasible& refusal) {
    EXPECT_NEAR(refusal.least_density(), 120.0 / 252.0, 1e-12);
  }
}

const std::vector<std::string>& kinds_of(const Plan& plan) {
  for (const auto& note : plan.notes) {
    if (note.name == "kind") return note.words;
  }
  throw Error("no kind");
}

TEST(Svg, RecognisesPlantedHeads) {
  for (const char* preset : {"wan", "hunyuan", "cogvideox"}) {
    for (const char* profile : {"shipped", "executed"}) {
      const auto segments = video_then_text(12, 16, 16, 0);
      NoiseRecord record(segments, 2, 64, 31);
      // Head 0 attends its own frame; head 1 its own pair of places in every frame.
      testing::plant(record, 12.0F, [](std::int64_t head, std::int64_t token) {
        return head == 0 ? token / 256 : token % 256 / 4;
      });
      State state;
      const Plan plan =
          make_method("svg",
                      {{"preset", preset}, {"profile", profile}, {"density", 0.4}, {"block", 64}})
              ->plan(record.view(), state);
      check_plan(plan);
      EXPECT_EQ(kinds_of(plan), (std::vector<std::string>{"spatial", "temporal"}))
          << preset << " " << profile;
      EXPECT_EQ(plan.q_order.rows, 2);
    }
  }
}

TEST(Svg, AHeadsMaskIsItsKindsBand) {
  const auto segments = video_then_text(12, 16, 16, 0);
  NoiseRecord record(segments, 2, 64, 31);
  testing::plant(record, 12.0F, [](std::int64_t head, std::int64_t token) {
    return head == 0 ? token / 256 : token % 256 / 4;
  });
  State state;
  const Plan plan = make_method("svg", {{"density", 0.3}})->plan(record.view(), state);
  const Sequence s = svg::sequence_of(segments, Model::wan);
  const auto width = svg::band_width(s, 0.3);
  for (std::int64_t head = 0; head < 2; ++head) {
    const auto& order = head == 0 ? s.spatial : s.temporal;
    for (std::int64_t p = 0; p < plan.tokens; ++p) {
      ASSERT_EQ(plan.q_order.token(head, p), order[std::size_t(p)]);
    }
    for (std::int64_t i = 0; i < plan.q_blocks.blocks; ++i) {
      for (std::int64_t j = 0; j < plan.k_blocks.blocks; ++j) {
        const bool near = 128 * std::abs(i - j) - 127 <= width || j < 2;
        EXPECT_EQ(keeps(plan, head, i, j), near);
      }
    }
  }
}

TEST(Svg, ADrawnTextRowMakesEveryCogVideoXHeadTemporal) {
  NoiseRecord record(text_then_video(12, 16, 16, 200), 1, 64, 32);
  testing::plant(record, 12.0F, [](std::int64_t, std::int64_t token) {
    return token < 200 ? -1 : (token - 200) / 256;
  });
  const auto kind = [&](int rows, int seed) {
    State state;
    const Plan plan =
        make_method("svg",
                    {{"preset", "cogvideox"}, {"density", 0.5}, {"rows", rows}, {"seed", seed}})
            ->plan(record.view(), state);
    return kinds_of(plan).at(0);
  };
  EXPECT_EQ(kind(2000, 0), "temporal");  // some of 2000 rows fall on 200 of 3272 tokens
  int spatial = 0;
  for (int seed = 0; seed < 8; ++seed) spatial += kind(4, seed) == "spatial" ? 1 : 0;
  EXPECT_GT(spatial, 0);  // four rows often miss the text, and the head is spatial
}

TEST(Svg, PaddingIsAnIslandAndMaskedPaddingLeavesNoRowEmpty) {
  const auto segments = with_pad(video_then_text(6, 12, 16, 30), 98);
  const NoiseRecord record(segments, 1, 16, 33);
  State state;
  const auto method = make_method("svg", {{"preset", "hunyuan"}, {"density", 0.6}, {"block", 32}});
  const Plan open = method->plan(record.view(), state);
  check_plan(open);
  const auto last = open.q_blocks.blocks - 1;
  EXPECT_FALSE(keeps(open, 0, last, 0));
  EXPECT_FALSE(keeps(open, 0, 0, last));
  EXPECT_TRUE(keeps(open, 0, last, last));
  RecordView masked = record.view();
  std::vector<std::uint8_t> valid(static_cast<std::size_t>(masked.tokens()), 1);
  std::fill(valid.end() - 98, valid.end(), std::uint8_t{0});
  masked.key_valid = valid.data();
  check_plan(method->plan(masked, state), valid.data());
}

}  // namespace
}  // namespace raingauge
