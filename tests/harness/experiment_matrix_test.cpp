// SPDX-License-Identifier: Apache-2.0
#include "tests/harness/experiment_fixture.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::kAblation;
using testing_support::kHead;

using ExperimentMatrixTest = testing_support::ExperimentTest;

TEST_F(ExperimentMatrixTest, ExpandsTheMatrixInTheOrderOfTheText) {
  const Experiment experiment = load(kAblation);
  EXPECT_THAT(
      names(experiment),
      ElementsAre("rf2.raster.none.0.2", "rf2.raster.none.0.35", "rf2.raster.both.0.2",
                  "rf2.raster.both.0.35", "rf2.frame_window.none.0.2", "rf2.frame_window.none.0.35",
                  "rf2.frame_window.both.0.2", "rf2.frame_window.both.0.35",
                  "rf2.window3d.none.0.2", "rf2.window3d.none.0.35", "rf2.window3d.both.0.2",
                  "rf2.window3d.both.0.35"));
  const Arm& last = experiment.arms.back();
  EXPECT_EQ(last.base, "rf2");
  EXPECT_EQ(last.stem, "rf2.window3d.both");
  EXPECT_EQ(last.factors, (json{{"order", "window3d"}, {"sink", "both"}, {"density", 0.35}}));
  EXPECT_DOUBLE_EQ(last.density, 0.35);
  EXPECT_EQ(last.params["order"],
            (json{{"name", "window3d"}, {"params", {{"window", {4, 4, 8}}}}}));
  EXPECT_EQ(last.params["block"], 128);
  EXPECT_EQ(last.params["budget"], "inside");
}

TEST_F(ExperimentMatrixTest, EveryArmIsCrossedWithItsOwnKeys) {
  const Experiment experiment =
      load(std::string(kHead) +
           "captures: [demo]\narms:\n  a: {method: rainfusion2}\n  b: {method: rainfusion2}\n  d: "
           "{method: dense}\n"
           "matrix:\n  a.sink: [none, both]\n  b.block: [64, 128]\n  a.density: [0.1, 0.2]\n");
  EXPECT_THAT(names(experiment), ElementsAre("a.none.0.1", "a.none.0.2", "a.both.0.1", "a.both.0.2",
                                             "b.64", "b.128", "d"));
}

TEST_F(ExperimentMatrixTest, ZipWalksListsTogether) {
  const Experiment experiment = load_with(
      "zip: {rf2.block: [64, 128], rf2.density: [0.2, 0.3]}\nmatrix: {rf2.sink: [none, both]}\n");
  EXPECT_THAT(names(experiment), ElementsAre("rf2.none.64.0.2", "rf2.none.128.0.3",
                                             "rf2.both.64.0.2", "rf2.both.128.0.3"));
  EXPECT_EQ(load_with("zip: {rf2.block: [64, 64], rf2.density: [0.2, 0.3]}\n").arms.size(), 2U);
}

TEST_F(ExperimentMatrixTest, ExcludeRemovesMatchingCombinations) {
  const std::string matrix =
      "matrix:\n  rf2.order: [raster, {window3d: {window: [4, 4, 8]}}]\n  rf2.sink: [none, both]\n";
  EXPECT_THAT(names(load_with(matrix + "exclude: [{rf2.order: window3d, rf2.sink: both}]\n")),
              ElementsAre("rf2.raster.none", "rf2.raster.both", "rf2.window3d.none"));
  EXPECT_THAT(
      names(load_with(matrix + "exclude: [{rf2.order: {window3d: {window: [4, 4, 8]}}}]\n")),
      ElementsAre("rf2.raster.none", "rf2.raster.both"));
  EXPECT_THAT(names(load_with(matrix + "exclude: [{rf2.sink: none}, {rf2.order: raster}]\n")),
              ElementsAre("rf2.window3d.both"));
}

TEST_F(ExperimentMatrixTest, NamesTellVariantsOfOneComponentApart) {
  EXPECT_THAT(
      names(load_with("matrix:\n  rf2.order: [raster, window3d, {window3d: {window: [4, 4, 8]}}, "
                      "{window3d: {window: [2, 8, 8]}}]\n")),
      ElementsAre("rf2.raster", "rf2.window3d", "rf2.window3d-4x4x8", "rf2.window3d-2x8x8"));
  EXPECT_THAT(names(load_with("matrix:\n  rf2.seed: [1, 2]\n")), ElementsAre("rf2.1", "rf2.2"));
}

// The bare name of a component means all its variants.
TEST_F(ExperimentMatrixTest, ExcludeByComponentNameCoversItsVariants) {
  EXPECT_THAT(
      names(load_with("matrix:\n  rf2.order: [raster, {window3d: {window: [4, 4, 8]}}, "
                      "{window3d: {window: [2, 8, 8]}}]\nexclude: [{rf2.order: window3d}]\n")),
      ElementsAre("rf2.raster"));
  EXPECT_THAT(names(load_with("matrix:\n  rf2.order: [raster, {window3d: {window: [4, 4, 8]}}, "
                              "{window3d: {window: [2, 8, 8]}}]\n"
                              "exclude: [{rf2.order: window3d-2x8x8}]\n")),
              ElementsAre("rf2.raster", "rf2.window3d-4x4x8"));
}

TEST_F(ExperimentMatrixTest, MatrixErrorsNameTheirLine) {
  EXPECT_THAT(
      error_with("matrix:\n  rf3.sink: [none]\n"),
      HasSubstr("x.yaml:7: matrix.rf3.sink: unknown arm 'rf3' (did you mean 'rf2'?). Known: rf2"));
  EXPECT_THAT(error_with("matrix:\n  sink: [none]\n"),
              HasSubstr("x.yaml:7: matrix.sink: expected ARM.KEY"));
  EXPECT_THAT(
      error_with("matrix:\n  rf2.sinkk: [none]\n"),
      HasSubstr(
          "x.yaml:7: matrix.rf2.sinkk.0: unknown key 'sinkk' (did you mean 'sink'?). Known: "));
  EXPECT_THAT(
      error_with("matrix:\n  rf2.sink:\n    - none\n    - bot\n"),
      HasSubstr(
          "x.yaml:9: matrix.rf2.sink.1: key 'sink': got \"bot\", allowed: one of: none, rows"));
  EXPECT_THAT(
      error_with(
          "matrix:\n  rf2.order:\n    - raster\n    - window3d:\n        windoww: [1, 1, 1]\n"),
      HasSubstr("x.yaml:10: matrix.rf2.order.1.window3d.windoww: unknown key 'windoww' (did you "
                "mean 'window'?)"));
  EXPECT_THAT(error_with("matrix: {rf2.order.window3d: [1]}\n"),
              HasSubstr("x.yaml:6: matrix.rf2.order.window3d: only keys of the arm itself"));
  EXPECT_THAT(error_with("matrix: {rf2.sink: none}\n"),
              HasSubstr("x.yaml:6: matrix.rf2.sink: got \"none\", allowed: a list"));
  EXPECT_THAT(error_with("matrix: {rf2.sink: []}\n"),
              HasSubstr("x.yaml:6: matrix.rf2.sink: got [], allowed: a list"));
  EXPECT_THAT(error_with("matrix: {rf2.sink: [none, none]}\n"),
              HasSubstr("x.yaml:6: matrix.rf2.sink.1: \"none\" stands twice"));
  EXPECT_THAT(error_with("matrix: {rf2.order: [{raster: {}, gilbert: {}}]}\n"),
              HasSubstr("one-entry map"));
  EXPECT_THAT(error_with("matrix: [1]\n"),
              HasSubstr("x.yaml:6: matrix: got [1], allowed: a mapping"));
  EXPECT_THAT(error_with("matrix: {rf2.sink: [none]}\nzip: {rf2.sink: [both]}\n"),
              HasSubstr("x.yaml:7: zip.rf2.sink: stands in both matrix and zip"));
  EXPECT_THAT(
      error_with("zip: {rf2.block: [64, 128],\n rf2.density: [0.2]}\n"),
      HasSubstr(
          "x.yaml:7: zip.rf2.density: got a list of 1, allowed: 2 values, as 'rf2.block' has"));
  EXPECT_THAT(error_with("matrix: {rf2.density: [0.2], rf2.sparsity: [0.8]}\n"),
              HasSubstr("either density or sparsity"));
  EXPECT_THAT(error_with("matrix: {rf2.seed: [" +
                         [] {
                           std::string list = "0";
                           for (int i = 1; i < 10001; ++i) list += "," + std::to_string(i);
                           return list;
                         }() +
                         "]}\n"),
              HasSubstr("more than 10000 combinations"));
}

TEST_F(ExperimentMatrixTest, BudgetVariesUnderNominalMatchOnly) {
  const std::string matrix = "matrix:\n  rf2.budget: [inside, outside]\n";
  EXPECT_THAT(
      error_with(matrix),
      HasSubstr("x.yaml:7: matrix.rf2.budget: budget may be ablated under `match: nominal` only"));
  EXPECT_THAT(error_with("zip: {rf2.budget: [inside, outside]}\nmatch: density\n"),
              HasSubstr("x.yaml:6: zip.rf2.budget: budget may"));
  EXPECT_EQ(load_with(matrix + "match: nominal\n").arms.size(), 2U);
}

TEST_F(ExperimentMatrixTest, ExcludeErrorsNameTheirLine) {
  const std::string matrix = "matrix:\n  rf2.sink: [none, both]\n";
  EXPECT_THAT(error_with(matrix + "exclude:\n  - rf2.order: raster\n"),
              HasSubstr("x.yaml:9: exclude.0.rf2.order: unknown matrix key 'rf2.order'"));
  EXPECT_THAT(
      error_with(matrix + "exclude:\n  - rf2.sink: rows\n"),
      HasSubstr(
          "x.yaml:9: exclude.0.rf2.sink: got \"rows\", allowed: one of the values of rf2.sink"));
  EXPECT_THAT(error_with(matrix + "exclude: {rf2.sink: none}\n"),
              HasSubstr("x.yaml:8: exclude: got"));
  EXPECT_THAT(error_with(matrix + "exclude: [none]\n"),
              HasSubstr("x.yaml:8: exclude.0: got \"none\""));
  EXPECT_THAT(error_with(matrix + "exclude: [{rf2.sink: none}, {rf2.sink: both}]\n"),
              HasSubstr("x.yaml:8: exclude: nothing is left of arm 'rf2'"));
}

TEST_F(ExperimentMatrixTest, ReportNamesLevelsAndArms) {
  const Experiment experiment = load_with(
      "matrix: {rf2.order: [raster, {window3d: {window: [4, 4, 8]}}], rf2.sink: [none, both]}\n"
      "report: {baseline: {order: window3d, arm: rf2}, ablate: [order, arm], contrasts: "
      "[order*sink, [rf2.raster.none, rf2.raster.both]]}\n");
  EXPECT_EQ(experiment.report.baseline, (json{{"order", "window3d"}, {"arm", "rf2"}}));
  EXPECT_EQ(experiment.report.contrasts,
            json::parse(R"(["order*sink", ["rf2.raster.none", "rf2.raster.both"]])"));
}

TEST_F(ExperimentMatrixTest, LatencyAndGenerateNameArmsByPrefix) {
  const Experiment experiment = load_with(
      "matrix: {rf2.density: [0.2, 0.3], rf2.sink: [none, both]}\n"
      "latency: {kernels: [cpu], arms: [rf2.none, rf2.0.3.both]}\ngenerate: {arms: [rf2.both, "
      "rf2.0.2.none]}\n");
  EXPECT_THAT(experiment.latency.arms, ElementsAre("rf2.0.2.none", "rf2.0.3.none", "rf2.0.3.both"));
  EXPECT_THAT(experiment.generate.arms, ElementsAre("rf2.both", "rf2.0.2.none"));
  const Experiment all = load_with(
      "matrix: {rf2.density: [0.2, 0.3], rf2.sink: [none, both]}\ngenerate: {clips: 1}\n");
  EXPECT_THAT(all.generate.arms, ElementsAre("rf2.none", "rf2.both"));
}

TEST_F(ExperimentMatrixTest, OverridesReplaceMatrixLevels) {
  const std::string matrix =
      "matrix: {rf2.sink: [none, both], rf2.density: [0.2, 0.35]}\nexclude: [{rf2.density: 0.2, "
      "rf2.sink: none}]\n";
  EXPECT_THAT(names(load_with(matrix, {"rf2.density=0.3"})),
              ElementsAre("rf2.none.0.3", "rf2.both.0.3"));
  EXPECT_THAT(names(load_with(matrix, {"rf2.density=[0.2, 0.3]"})),
              ElementsAre("rf2.none.0.3", "rf2.both.0.2", "rf2.both.0.3"));
  EXPECT_THAT(names(load_with(matrix, {"matrix.rf2.sink=[rows]", "exclude=null"})),
              ElementsAre("rf2.rows.0.2", "rf2.rows.0.35"));
  EXPECT_THAT(names(load_with("zip: {rf2.block: [64, 128], rf2.density: [0.2, 0.3]}\n",
                              {"rf2.density=[0.4, 0.5]"})),
              ElementsAre("rf2.64.0.4", "rf2.128.0.5"));
}

}  // namespace
}  // namespace raingauge
