// SPDX-License-Identifier: Apache-2.0
#include "data/synthetic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "data/error.h"
#include "data/finite.h"
#include "data/synthetic_models.h"

namespace raingauge {
namespace {

SyntheticSpec small_spec() {
  SyntheticSpec spec;
  spec.frames = 8;
  spec.height = 11;
  spec.width = 13;
  spec.heads = 5;
  spec.head_dim = 64;
  spec.text_tokens = 12;
  spec.text_first = 1;
  spec.layers = 2;
  spec.steps = 2;
  spec.generations = 2;
  spec.seed = 7;
  return spec;
}

struct Place {
  int t = -1, y = -1, x = -1;  // text: -1
};

std::vector<Place> places(const RecordInfo& info) {
  std::vector<Place> all;
  int frame = 0;
  for (const Segment& s : info.segments) {
    if (!s.visual()) {
      all.resize(all.size() + static_cast<std::size_t>(s.length));
      continue;
    }
    for (int t = 0; t < s.frames; ++t, ++frame) {
      for (int y = 0; y < s.height; ++y) {
        for (int x = 0; x < s.width; ++x) all.push_back({frame, y, x});
      }
    }
  }
  return all;
}

std::vector<float> to_float(const TensorView& view, std::int64_t head) {
  std::vector<float> values(static_cast<std::size_t>(view.tokens * view.head_dim));
  convert_to_float(view.row(head, 0), view.dtype, values.data(), values.size());
  return values;
}

// Mean over sampled visual queries of the softmax mass on keys for which `counts(query, key)`.
double mass(const Record& record, std::int64_t head,
            const std::function<bool(std::size_t, std::size_t)>& counts) {
  const RecordView view = record.view();
  const auto q = to_float(view.q, head);
  const auto k = to_float(view.k, head);
  const auto dim = static_cast<std::size_t>(view.head_dim());
  const auto tokens = static_cast<std::size_t>(view.tokens());
  const auto where = places(record.info());
  double total = 0.0;
  int queries = 0;
  for (std::size_t i = 5; i < tokens; i += 37) {
    if (where[i].t < 0) continue;
    double all = 0.0;
    double wanted = 0.0;
    for (std::size_t j = 0; j < tokens; ++j) {
      double dot = 0.0;
      for (std::size_t c = 0; c < dim; ++c) dot += double{q[i * dim + c]} * double{k[j * dim + c]};
      const double weight = std::exp(dot * record.info().scale);
      all += weight;
      if (counts(i, j)) wanted += weight;
    }
    total += wanted / all;
    ++queries;
  }
  return total / queries;
}

// Head h of small_spec() has kind h: local, temporal, sink, textural, random.
TEST(SyntheticTest, EachKindHasItsMassWhereItIsPlanted) {
  const SyntheticSpec spec = small_spec();
  const auto record = make_synthetic_record(spec, 1, 1, 1);
  const auto where = places(record->info());
  const auto clusters = synthetic_clusters(spec, 1);
  const auto near = [&](std::size_t i, std::size_t j) {
    return where[j].t >= 0 && std::abs(where[i].t - where[j].t) <= 2 &&
           std::abs(where[i].y - where[j].y) <= 2 && std::abs(where[i].x - where[j].x) <= 2;
  };
  const auto column = [&](std::size_t i, std::size_t j) {
    return where[j].t >= 0 && std::abs(where[i].y - where[j].y) <= 1 &&
           std::abs(where[i].x - where[j].x) <= 1;
  };
  const auto own_frame = [&](std::size_t i, std::size_t j) { return where[i].t == where[j].t; };
  const auto first_frame = [&](std::size_t, std::size_t j) { return where[j].t == 0; };
  const auto cluster = [&](std::size_t i, std::size_t j) {
    return where[j].t >= 0 && clusters[i - 12] == clusters[j - 12];
  };
  // Text takes 0.05 by design, more at the grid's edge where a query has fewer neighbours.
  EXPECT_GT(mass(*record, 0, near), 0.75);
  EXPECT_GT(mass(*record, 1, column), 0.75);
  EXPECT_LT(mass(*record, 1, own_frame), 3.0 / 8.0) << "temporal heads look at every frame";
  const double sink = mass(*record, 2, first_frame);
  EXPECT_GT(sink, 0.6);
  EXPECT_LT(sink, 0.85);
  EXPECT_GT(mass(*record, 3, cluster), 0.8);
  // A random head has no preference: fair shares, within the spread of exp(N(0, 1)) weights.
  EXPECT_NEAR(mass(*record, 4, first_frame), 1.0 / 8.0, 0.03);
  EXPECT_LT(mass(*record, 4, near), 0.15);
}

TEST(SyntheticTest, TextGetsItsShare) {
  const auto record = make_synthetic_record(small_spec(), 0, 0, 0);
  const auto where = places(record->info());
  const auto text = [&](std::size_t, std::size_t j) { return where[j].t < 0; };
  for (const std::int64_t head : {0, 1, 2, 3}) {
    const double share = mass(*record, head, text);
    EXPECT_GT(share, 0.02) << head;
    EXPECT_LT(share, 0.2) << head;
  }
}

TEST(SyntheticTest, SameBitsForAnyThreadsAndHeads) {
  const SyntheticSpec spec = small_spec();
  const auto one = make_synthetic_record(spec, 0, 1, 0, {}, 1);
  const auto many = make_synthetic_record(spec, 0, 1, 0, {}, 5);
  const std::vector<int> heads{3, 1};
  const auto some = make_synthetic_record(spec, 0, 1, 0, heads, 2);
  const auto equal = [](const TensorView& a, std::int64_t head_a, const TensorView& b,
                        std::int64_t head_b) {
    return std::memcmp(a.row(head_a, 0), b.row(head_b, 0),
                       static_cast<std::size_t>(a.tokens * a.head_dim) * size_of(a.dtype)) == 0;
  };
  for (const auto member : {&RecordView::q, &RecordView::k, &RecordView::v}) {
    for (std::int64_t h = 0; h < 5; ++h) {
      EXPECT_TRUE(equal(one->view().*member, h, many->view().*member, h)) << h;
    }
    EXPECT_TRUE(equal(one->view().*member, 3, some->view().*member, 0));
    EXPECT_TRUE(equal(one->view().*member, 1, some->view().*member, 1));
  }
  EXPECT_EQ(some->info().heads, heads);
}

TEST(SyntheticTest, SeedsGenerationsStepsLayersAndHeadsDiffer) {
  SyntheticSpec spec = small_spec();
  const auto base = make_synthetic_record(spec, 0, 0, 0);
  const auto differs = [&](const Record& other, std::int64_t head) {
    return to_float(base->view().q, 0) != to_float(other.view().q, head) &&
           to_float(base->view().v, 0) != to_float(other.view().v, head);
  };
  EXPECT_TRUE(differs(*make_synthetic_record(spec, 1, 0, 0), 0));
  EXPECT_TRUE(differs(*make_synthetic_record(spec, 0, 1, 0), 0));
  EXPECT_TRUE(differs(*make_synthetic_record(spec, 0, 0, 1), 0));
  EXPECT_TRUE(differs(*base, 4));
  spec.seed = 8;
  EXPECT_TRUE(differs(*make_synthetic_record(spec, 0, 0, 0), 0));
}

// Methods that reuse masks need steps to resemble each other: 0.8 of the noise is shared.
TEST(SyntheticTest, StepsAreCorrelated) {
  const SyntheticSpec spec = small_spec();
  const auto a = to_float(make_synthetic_record(spec, 0, 0, 0)->view().q, 4);
  const auto b = to_float(make_synthetic_record(spec, 0, 1, 0)->view().q, 4);
  double ab = 0.0;
  double aa = 0.0;
  double bb = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * double{b[i]};
    aa += double{a[i]} * double{a[i]};
    bb += double{b[i]} * double{b[i]};
  }
  // The standard error of a correlation over 74,000 values is below 0.004.
  EXPECT_NEAR(ab / std::sqrt(aa * bb), 0.8, 0.02);
  // `random` heads have unit variance in every channel.
  EXPECT_NEAR(aa / static_cast<double>(a.size()), 1.0, 0.03);
}

TEST(SyntheticTest, ListingMatchesRecords) {
  const SyntheticSpec spec = small_spec();
  const auto infos = list_synthetic(spec);
  ASSERT_EQ(infos.size(), 8U);
  EXPECT_EQ(infos[5].number, 5);
  EXPECT_EQ(infos[5].site.step, 0);
  EXPECT_EQ(infos[5].site.layer, 1);
  EXPECT_NE(infos[5].generation, infos[0].generation);
  EXPECT_EQ(infos[0].generation, infos[3].generation);
  const auto record = make_synthetic_record(spec, 1, 0, 1);
  EXPECT_EQ(record->info().number, 5);
  EXPECT_EQ(record->info().tokens, 12 + 8 * 11 * 13);
  EXPECT_EQ(describe(record->info().segments), "text 12 + video 8x11x13");
  EXPECT_EQ(record->info().scale, 0.125);
  for (const auto& info : infos) check_segments(info.segments, info.tokens, "synthetic");
}

TEST(SyntheticTest, EveryModelMakesOneFiniteHead) {
  for (const ModelShape& model : model_shapes()) {
    SyntheticSpec spec;
    spec.model = model.name;
    const auto infos = list_synthetic(spec);
    ASSERT_EQ(infos.size(), 1U) << model.name;
    check_segments(infos[0].segments, infos[0].tokens, std::string(model.name));
    EXPECT_EQ(infos[0].head_count(), model.heads);
    // The text bias must not overflow f16 and the channels must be of a sane size.
    spec.frames = std::min(model.frames, 3);
    spec.height = 8;
    spec.width = 9;
    const std::vector<int> heads{0, 2};
    const auto record = make_synthetic_record(spec, 0, 0, 0, heads);
    const RecordView view = record->view();
    for (const TensorView& t : {view.q, view.k, view.v}) {
      EXPECT_EQ(first_nonfinite(t.data, t.dtype, 2 * t.tokens * t.head_dim), -1) << model.name;
    }
  }
  SyntheticSpec wan;
  wan.model = "wan21-14b-720p";
  EXPECT_EQ(list_synthetic(wan)[0].tokens, 75600);
  SyntheticSpec edit;
  edit.model = "qwen-image-edit";
  EXPECT_EQ(describe(list_synthetic(edit)[0].segments),
            "text 512 + image 1x64x64 + reference 1x64x64");
}

TEST(SyntheticTest, BadSpecsAreRefused) {
  SyntheticSpec spec = small_spec();
  spec.head_dim = 8;
  EXPECT_THROW(list_synthetic(spec), Error);
  spec = small_spec();
  spec.frames = 0;
  EXPECT_THROW(list_synthetic(spec), Error);
  spec = small_spec();
  spec.kinds.clear();
  EXPECT_THROW(list_synthetic(spec), Error);
  spec = small_spec();
  spec.noise = std::nan("");
  EXPECT_THROW(list_synthetic(spec), Error);
  spec = small_spec();
  spec.steps = 2000000000;
  EXPECT_THROW(list_synthetic(spec), Error);
  spec = small_spec();
  spec.dtype = "f64";
  EXPECT_THROW(list_synthetic(spec), Error);
  spec = small_spec();
  const std::vector<int> heads{5};
  EXPECT_THROW(make_synthetic_record(spec, 0, 0, 0, heads), Error);
  EXPECT_THROW(make_synthetic_record(spec, 2, 0, 0), Error);
  EXPECT_THROW(make_synthetic_record(spec, 0, -1, 0), Error);
}

TEST(SyntheticTest, UnknownModelNamesTheNearest) {
  try {
    find_model_shape("wan21-14b-720");
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("nearest are wan21-14b-720p"), std::string::npos) << text;
    EXPECT_NE(text.find("sd35-medium"), std::string::npos) << text;
  }
}

TEST(SyntheticTest, KindsRoundTrip) {
  for (const HeadKind kind : {HeadKind::local, HeadKind::temporal, HeadKind::sink,
                              HeadKind::textural, HeadKind::random}) {
    EXPECT_EQ(parse_head_kind(name_of(kind)), kind);
  }
  EXPECT_THROW(parse_head_kind("global"), Error);
}

}  // namespace
}  // namespace raingauge
