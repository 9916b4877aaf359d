// SPDX-License-Identifier: Apache-2.0
// Plans joined by heads, and the method that uses them.
#include <gtest/gtest.h>

#include <fstream>

#include "data/error.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/plan_heads.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;

const json kWindow = {{"method", "rainfusion2"},
                      {"order", {{"window3d", {{"window", {2, 4, 4}}}}}},
                      {"sink", "none"},
                      {"block", 32},
                      {"density", 0.4}};
const json kRaster = {{"method", "rainfusion2"},
                      {"order", "raster"},
                      {"sink", "none"},
                      {"block", 16},
                      {"density", 0.6}};

Plan planned(const json& setting, const RecordView& record) {
  json params = setting;
  params.erase("method");
  MethodOptions options;
  options.match = DensityMatch::measured;
  State state;
  return make_method(setting["method"], params, options)->plan(record, state);
}

std::string write_schedule(const json& sites) {
  const std::string path = ::testing::TempDir() + "/schedule.json";
  std::ofstream(path) << json{
      {"format", "raingauge-schedule"},
      {"version", 1},
      {"settings",
       {{{"match", "density"}, {"params", kWindow}}, {{"match", "density"}, {"params", kRaster}}}},
      {"sites", sites}};
  return path;
}

json site(int layer, int step, int head, int setting) {
  return {{"layer", layer}, {"step", step}, {"head", head}, {"setting", setting}};
}

std::vector<double> lse_of(const RecordView& record, std::int64_t head, const Plan& plan) {
  RowSample sample;
  for (std::int32_t token = 0; token < record.tokens(); token += 3) sample.tokens.push_back(token);
  return evaluate_rows(record, head, sample, &plan, 1).lse;
}

// Heads of one plan may differ in order, block size and density; each equals its own plan.
TEST(JoinHeads, EveryHeadKeepsItsPlan) {
  NoiseRecord record(video_then_text(3, 10, 9, 6), 3, 16, 5);
  const Plan window = planned(kWindow, record.view());
  const Plan raster = planned(kRaster, record.view());
  const Plan joined = join_plans({select_heads(window, {0}), select_heads(raster, {1}),
                                  dense_plan(1, record.view().tokens(), 64)});
  check_plan(joined);
  const auto density = measure_density(joined);
  EXPECT_DOUBLE_EQ(density.pairs[0], measure_density(window).pairs[0]);
  EXPECT_DOUBLE_EQ(density.pairs[1], measure_density(raster).pairs[1]);
  EXPECT_DOUBLE_EQ(density.pairs[2], 1.0);
  EXPECT_EQ(lse_of(record.view(), 0, joined), lse_of(record.view(), 0, window));
  EXPECT_EQ(lse_of(record.view(), 1, joined), lse_of(record.view(), 1, raster));
  EXPECT_THROW(join_plans({}), Error);
}

TEST(ScheduleMethod, TakesTheSettingOfEverySite) {
  NoiseRecord record(video_then_text(3, 10, 9, 6), 3, 16, 5);
  record.info().site.layer = 4;
  record.info().site.step = 2;
  const auto path = write_schedule({site(4, 2, 0, 0), site(4, 2, 1, 1), site(4, 7, 2, 1)});
  State state;
  const Plan plan = make_method("schedule", {{"path", path}})->plan(record.view(), state);
  const auto density = measure_density(plan);
  EXPECT_DOUBLE_EQ(density.pairs[0], measure_density(planned(kWindow, record.view())).pairs[0]);
  EXPECT_DOUBLE_EQ(density.pairs[1], measure_density(planned(kRaster, record.view())).pairs[1]);
  EXPECT_DOUBLE_EQ(density.pairs[2], 1.0);  // no such site: dense
  const Plan near = make_method("schedule", {{"path", path}, {"elsewhere", "nearest"}})
                        ->plan(record.view(), state);
  EXPECT_DOUBLE_EQ(measure_density(near).pairs[2],
                   measure_density(planned(kRaster, record.view())).pairs[2]);
}

TEST(ScheduleMethod, DamagedFilesAreRefused) {
  const std::string path = ::testing::TempDir() + "/no_schedule.json";
  for (
      const char* text :
      {"", "{}", R"({"format": "raingauge-schedule", "version": 2})",
       R"({"format": "raingauge-schedule", "version": 1, "settings": [], "sites": [{"layer": 1}]})"}) {
    std::ofstream(path) << text;
    EXPECT_THROW(make_method("schedule", {{"path", path}}), Error) << text;
  }
  EXPECT_THROW(make_method("schedule", {{"path", write_schedule({site(1, 1, 0, 9)})}}), Error);
}

}  // namespace
}  // namespace raingauge
