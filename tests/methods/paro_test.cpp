// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <numeric>
#include <set>

#include "data/error.h"
#include "methods/calibration.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/paro_axes.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;

constexpr int kFrames = 32, kHeight = 4, kWidth = 4, kTokens = 512;

// Heads that attend along an axis: the tokens of a group share a unit vector of their own, so that a
// token looks at its group and sees all others alike.
template <typename Group>
void plant(NoiseRecord& record, std::int64_t head, Group group) {
  for (int tensor = 0; tensor < 2; ++tensor) {
    auto* values =
        reinterpret_cast<float*>(record.bytes(tensor).data()) + head * record.info().tokens * 32;
    for (int token = 0; token < kTokens; ++token) {
      const int value = group(token / (kHeight * kWidth), token / kWidth % kHeight, token % kWidth);
      for (int c = 0; c < 32; ++c) {
        auto& here = values[token * 32 + c];
        here = 0.05F * here + (c == value ? 5.8F : 0.0F);
      }
    }
  }
}

NoiseRecord planted(std::uint64_t seed, std::int64_t text = 0) {
  NoiseRecord record(video_then_text(kFrames, kHeight, kWidth, text), 3, 32, seed, DType::f32);
  plant(record, 0, [](int t, int, int) { return t; });
  plant(record, 1, [](int, int y, int x) { return y * kWidth + x; });
  plant(record, 2, [](int, int, int x) { return x; });
  return record;
}

AxisProbe fine_probe() {
  AxisProbe probe;
  probe.block = 64;
  probe.stride = 1;
  return probe;
}

std::string chosen(const RecordView& record, std::int64_t head, double alpha = 0.0) {
  return kAxisOrderNames[choose_axis_order(axis_statistics(record, head, fine_probe()), alpha)];
}

TEST(ParoAxes, PlantedHeadsTakeTheOrderThatGathersThem) {
  const auto record = planted(70);
  const auto view = record.view();
  EXPECT_TRUE((std::set<std::string>{"axis_thw", "axis_twh"}.contains(chosen(view, 0))));
  EXPECT_TRUE((std::set<std::string>{"axis_hwt", "axis_wht"}.contains(chosen(view, 1))));
  EXPECT_TRUE((std::set<std::string>{"axis_wth", "axis_wht"}.contains(chosen(view, 2))));
}

TEST(ParoAxes, StatisticsAreThoseOfTheExplicitSoftmax) {
  const auto record = planted(71, 5);
  const auto view = record.view();
  const auto table = axis_statistics(view, 1, fine_probe());
  // Raster order by hand: blocks of 64 are four frames each, text takes part in the softmax alone.
  const auto n = view.tokens();
  double empty = 0.0, peak = 0.0;
  for (int i = 0; i < kTokens / 64; ++i) {
    std::vector<std::vector<double>> p(64, std::vector<double>(std::size_t(n)));
    for (int r = 0; r < 64; ++r) {
      double total = 0.0;
      for (std::int64_t j = 0; j < n; ++j) {
        const auto* q = static_cast<const float*>(view.q.row(1, 64 * i + r));
        const auto* k = static_cast<const float*>(view.k.row(1, j));
        p[std::size_t(r)][std::size_t(j)] =
            std::exp(view.info->scale * std::inner_product(q, q + 32, k, 0.0));
        total += p[std::size_t(r)][std::size_t(j)];
      }
      for (auto& value : p[std::size_t(r)]) value /= total;
    }
    for (int j = 0; j < kTokens / 64; ++j) {
      double largest = 0.0, sum = 0.0, small = 0.0;
      for (int r = 0; r < 64; ++r) {
        for (int c = 0; c < 64; ++c) {
          const double value = p[std::size_t(r)][std::size_t(64 * j + c)];
          largest = std::max(largest, value);
          sum += value;
          small += value < 1e-3 ? 1.0 : 0.0;
        }
      }
      empty += small >= 0.9 * 4096 ? 1.0 : 0.0;
      peak += largest * 4096 / sum;
    }
  }
  EXPECT_NEAR(table[0].near_empty, empty / 64, 1e-9);
  EXPECT_NEAR(table[0].peak_over_mean, peak / 64, 1e-3 * peak / 64);
  EXPECT_LT(table[2].peak_over_mean, table[0].peak_over_mean) << "gathered blocks are flatter";
}

Plan plan_of(const std::string& method, const RecordView& record, const json& params) {
  State state;
  return make_method(method, params)->plan(record, state);
}

TEST(ParoOrder, EachHeadItsOwnUnderAnyBlockMethod) {
  const auto record = planted(72, 20);
  const json order = {{"paro", {{"probe_stride", 1}, {"alpha", 0.0}}}};
  for (const std::string method : {"rainfusion2", "sparge", "jenga", "recipe"}) {
    json params = {{"perm", order}, {"density", 0.9}};
    if (method == "rainfusion2") params["sink"] = "none";
    const Plan plan = plan_of(method, record.view(), params);
    check_plan(plan);
    ASSERT_EQ(plan.q_order.rows, 3) << method;
    EXPECT_NE(plan.q_order.token(0, 1), plan.q_order.token(1, 1)) << method;
    ASSERT_EQ(plan.notes.size(), 1U) << method;
    EXPECT_EQ(plan.notes[0].words[0], chosen(record.view(), 0)) << method;
  }
  EXPECT_THROW(plan_of("rainfusion2", record.view(), {{"perm", "paro"}, {"order", "raster"}}),
               ParamError);
}

double recall_of(const RecordView& record, std::int64_t head, const Plan& plan) {
  RowSample sample;
  sample.tokens.resize(std::size_t(record.tokens()));
  std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
  const auto dense = evaluate_rows(record, head, sample, nullptr, 1);
  const auto sparse = evaluate_rows(record, head, sample, &plan, 1);
  double sum = 0.0;
  for (std::size_t i = 0; i < dense.lse.size(); ++i) sum += std::exp(sparse.lse[i] - dense.lse[i]);
  return sum / double(dense.lse.size());
}

std::string calibrate(const std::string& method, const json& params,
                      const std::vector<const RecordView*>& records, const char* name) {
  const auto calibrator = make_calibrator(method, complete_method_params(method, params), {});
  for (int pass = 0; pass < calibrator->passes(); ++pass) {
    for (const auto* record : records) calibrator->add(*record, pass);
  }
  const std::string path = ::testing::TempDir() + "/" + name;
  write_calibration(path, calibrator->result(), true);
  return path;
}

TEST(Paro, AStaticPlanFromOneCaptureIsUsedOnAnotherAndIsNoBetterThanTheOracle) {
  const auto first = planted(73, 12), second = planted(74, 12);
  const RecordView a = first.view(), b = second.view();
  const json params = {{"density", 0.3}, {"probe_stride", 1}, {"alpha", 0.0}};
  const auto path = calibrate("paro", params, {&a}, "paro_static.h5");
  json with_file = params;
  with_file["calibration"] = path;
  const Plan fixed = plan_of("paro", b, with_file);
  const Plan oracle = plan_of("paro", b, params);
  check_plan(fixed);
  EXPECT_EQ(plan_fingerprint(plan_of("paro", a, with_file)),
            plan_fingerprint(plan_of("paro", a, params)))
      << "on its own record a calibration decides as the oracle does";
  for (std::int64_t head = 0; head < 3; ++head) {
    EXPECT_NEAR(measure_density(fixed).pairs[std::size_t(head)], 0.3, 0.02);
    EXPECT_LE(recall_of(b, head, fixed), recall_of(b, head, oracle) + 1e-6);
    EXPECT_GT(recall_of(b, head, fixed), 0.5);
  }
}

TEST(Paro, AnOrderAloneIsCalibratedForAnyMethod) {
  const auto first = planted(75), second = planted(76);
  const RecordView a = first.view(), b = second.view();
  const json order = {{"paro", {{"probe_stride", 1}, {"alpha", 0.0}}}};
  const auto path = calibrate("recipe", {{"order", order}}, {&a}, "paro_order.h5");
  const Plan plan =
      plan_of("recipe", b, {{"density", 0.6}, {"order", {{"paro", {{"calibration", path}}}}}});
  for (std::size_t head = 0; head < 3; ++head) {
    EXPECT_EQ(plan.notes.at(0).words[head], chosen(a, std::int64_t(head)));
  }
  EXPECT_THROW(plan_of("paro", b, {{"calibration", path}}), Unsupported) << "it has no masks";
}

TEST(Paro, StepsOfTheFirstHalfHaveMasksOfTheirOwn) {
  auto record = planted(77);
  auto late = planted(78);
  const json params = {{"probe_stride", 1}, {"density", 0.3}};
  record.info().site.step = 0;
  late.info().site.step = 3;
  const RecordView a = record.view(), b = late.view();
  const auto path = calibrate("paro", params, {&a, &b}, "paro_steps.h5");
  const auto file = read_calibration(path);
  EXPECT_TRUE(file.tables.contains("layer0.step0.mass"));
  EXPECT_TRUE(file.tables.contains("layer0.all.mass"));
  json with_file = params;
  with_file["calibration"] = path;
  late.info().site.step = 7;  // shares the mask of the second half
  EXPECT_NO_THROW(plan_of("paro", late.view(), with_file));
  late.info().site.step = 1;  // of the first half, and not among those shown
  EXPECT_THROW(plan_of("paro", late.view(), with_file), Unsupported);
  late.info().site.step = 0;
  late.info().site.layer = 5;
  EXPECT_THROW(plan_of("paro", late.view(), with_file), Unsupported);
}

TEST(Paro, WhatNobodyLearnsIsRefused) {
  EXPECT_THROW(
      make_calibrator("rainfusion2", complete_method_params("rainfusion2", json::object()), {}),
      Unsupported);
  EXPECT_THROW(make_method("paro", {{"calibration", "/nowhere/at/all.h5"}}), Error);
}

TEST(CalibrationFile, RoundTripAndRefusals) {
  const std::string path = ::testing::TempDir() + "/calibration_round_trip.h5";
  CalibrationFile file;
  file.facts["method"] = "paro";
  file.tables["a"] = {{2, 3}, {1, 2, 3, 4, 5, 6}};
  write_calibration(path, file, true);
  const auto back = read_calibration(path);
  EXPECT_EQ(back.tables.at("a").values, file.tables["a"].values);
  EXPECT_EQ(back.tables.at("a").shape, file.tables["a"].shape);
  EXPECT_EQ(back.facts.at("method"), "paro");
  EXPECT_THROW(write_calibration(path, file, false), Error);
  file.tables["a"].values[0] = NAN;
  EXPECT_THROW(write_calibration(path, file, true), Error);
  EXPECT_THROW(read_calibration(::testing::TempDir() + "/no_such_calibration.h5"), Error);
}

}  // namespace
}  // namespace raingauge
