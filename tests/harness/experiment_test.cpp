// SPDX-License-Identifier: Apache-2.0
#include "harness/experiment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "harness/experiment_parts.h"
#include "methods/registry.h"
#include "tests/harness/temporary_folder.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::TemporaryFolder;

// Lines are counted in the errors below: every part is one line.
constexpr const char* kHead = "schema: raingauge/1\nname: test\n";  // lines 1-2
constexpr const char* kBody = "captures: [demo]\narms:\n  rf2: {method: rainfusion2}\n";  // 3-5

const KnownNames& known() {
  static const KnownNames names = {{"recall", "rel_l1", "rel_l2", "cosine", "oracle_gap"},
                                   {"psnr", "ssim_gauss11", "ms_ssim"},
                                   {"reference", "cpu", "cuda", "torch_sdpa"}};
  return names;
}

class ExperimentTest : public testing::Test {
 protected:
  Experiment load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    return load_experiment(folder_.write("x.yaml", text), overrides, known());
  }
  Experiment load_with(const std::string& text,
                       const std::vector<std::string>& overrides = {}) const {
    return load(std::string(kHead) + kBody + text, overrides);
  }
  // The message without the folder; "no error" when the text is accepted.
  std::string error_of(const std::string& text,
                       const std::vector<std::string>& overrides = {}) const {
    try {
      load(text, overrides);
    } catch (const ConfigError& error) {
      std::string message = error.what();
      for (const std::string prefix = folder_.path().string() + "/";;) {
        const std::size_t at = message.find(prefix);
        if (at == std::string::npos) return message;
        message.erase(at, prefix.size());
      }
    }
    return "no error";
  }
  // An error of text that starts on line 6.
  std::string error_with(const std::string& text,
                         const std::vector<std::string>& overrides = {}) const {
    return error_of(std::string(kHead) + kBody + text, overrides);
  }
  // An error of the arm on line 5.
  std::string error_of_arm(const std::string& arm) const {
    return error_of(std::string(kHead) + "captures: [demo]\narms:\n  a: " + arm + "\n");
  }
  static std::vector<std::string> names(const Experiment& experiment) {
    std::vector<std::string> names;
    for (const auto& arm : experiment.arms) names.push_back(arm.name);
    return names;
  }
  static std::vector<std::string> stems(const Experiment& experiment) {
    std::vector<std::string> stems;
    for (const auto& arm : experiment.arms) stems.push_back(arm.stem);
    return stems;
  }

  TemporaryFolder folder_;
};

constexpr const char* kAblation = R"(schema: raingauge/1
name: ablation_sink_permutation
captures: [demo]
select:  {layers: all, steps: [2, 5, 7], heads: all, branches: [cond]}
arms:
  rf2: {method: rainfusion2, block: 128, order: frame_window, frame0: segregated, sink: both, text: both, budget: inside, density: 0.2}
matrix:
  rf2.order:   [raster, frame_window, {window3d: {window: [4, 4, 8]}}]
  rf2.sink:    [none, both]
  rf2.density: [0.2, 0.35]
match: density
controls: {arms: [random, oracle_row], heads: all}
rows: {sample: 512, seed: 0}
metrics: [recall, oracle_gap, rel_l1, rel_l2, cosine]
latency: {kernels: [cpu, cuda, torch_sdpa], warmup: 3, min_samples: 10, max_noise: 0.02, max_seconds: 60, interleave: true}
generate: {arms: [rf2.raster.none, rf2.frame_window.both], clips: 8, density: 0.2, dense_steps: 1, dense_layers: [0],
           references: [dense, truth], metrics: [psnr, ssim_gauss11, ms_ssim]}
report: {formats: [html, md, csv, tex], baseline: {order: raster, sink: none}, ablate: [order, sink], contrasts: primary}
)";

TEST_F(ExperimentTest, ReadsAFullExperiment) {
  const Experiment experiment = load(kAblation);
  EXPECT_EQ(experiment.name, "ablation_sink_permutation");
  EXPECT_TRUE(experiment.select.layers.empty());
  EXPECT_THAT(experiment.select.steps, ElementsAre(2, 5, 7));
  EXPECT_THAT(experiment.select.branches, ElementsAre("cond"));
  ASSERT_EQ(experiment.captures.size(), 1U);
  EXPECT_EQ(experiment.captures[0].kind, CaptureSource::Kind::demo);
  EXPECT_EQ(experiment.captures[0].options["grid"], json({21, 16, 24}));
  EXPECT_EQ(experiment.match, Match::density);
  EXPECT_THAT(experiment.controls.arms, ElementsAre("random", "oracle_row"));
  EXPECT_EQ(experiment.controls.oracle_heads, -1);
  EXPECT_FALSE(experiment.rows.all);
  EXPECT_EQ(experiment.rows.sample, 512);
  EXPECT_EQ(experiment.metrics.size(), 5U);
  EXPECT_TRUE(experiment.latency.enabled);
  EXPECT_THAT(experiment.latency.kernels, ElementsAre("cpu", "cuda", "torch_sdpa"));
  EXPECT_TRUE(experiment.latency.arms.empty());
  EXPECT_DOUBLE_EQ(experiment.latency.max_seconds, 60.0);
  EXPECT_THAT(experiment.generate.arms, ElementsAre("rf2.raster.none", "rf2.frame_window.both"));
  EXPECT_THAT(experiment.generate.dense_steps, ElementsAre(0));   // 1 = the first one
  EXPECT_THAT(experiment.generate.dense_layers, ElementsAre(0));  // the list [0]
  EXPECT_DOUBLE_EQ(experiment.generate.density, 0.2);
  EXPECT_EQ(experiment.report.baseline, (json{{"order", "raster"}, {"sink", "none"}}));
  EXPECT_THAT(experiment.report.ablate, ElementsAre("order", "sink"));
  EXPECT_EQ(experiment.report.contrasts, "primary");
}

TEST_F(ExperimentTest, ExpandsTheMatrixInTheOrderOfTheText) {
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

TEST_F(ExperimentTest, CanonicalArmsReproduceThemselves) {
  for (const auto& arm : load(kAblation).arms) {
    const Arm again = parse_arm(arm.canonical().dump());
    EXPECT_EQ(again.canonical(), arm.canonical()) << arm.name;
    EXPECT_EQ(again.method, "rainfusion2");
  }
}

TEST_F(ExperimentTest, EveryMethodCanBeAnArm) {
  for (const auto& entry : method_registry()) {
    if (entry.spec.name == "plan_file") continue;  // needs a file
    const Arm arm = parse_arm("{method: " + std::string(entry.spec.name) + "}");
    EXPECT_EQ(arm.method, entry.spec.name);
    EXPECT_EQ(parse_arm(arm.canonical().dump()).canonical(), arm.canonical());
  }
}

TEST_F(ExperimentTest, FillsInDefaults) {
  const Experiment experiment = load_with("");
  EXPECT_THAT(names(experiment), ElementsAre("rf2"));
  EXPECT_EQ(experiment.arms[0].stem, "rf2");
  EXPECT_TRUE(experiment.arms[0].factors.empty());
  EXPECT_EQ(experiment.arms[0].base_folder, folder_.path().string());
  EXPECT_THAT(experiment.metrics, ElementsAre("recall", "rel_l1", "rel_l2", "cosine"));
  EXPECT_FALSE(experiment.latency.enabled);
  EXPECT_FALSE(experiment.generate.enabled);
  EXPECT_TRUE(experiment.resolved["latency"].is_null());
  EXPECT_EQ(experiment.resolved["rows"], (json{{"sample", 512}, {"seed", 0}}));
}

TEST_F(ExperimentTest, ResolvedIsIndependentOfTheTextAndDependsOnTheMeaning) {
  const auto resolved = [&](const std::string& text) { return load_with(text).resolved.dump(); };
  const std::string base = resolved("rows: {sample: 64, seed: 3}\n");
  EXPECT_EQ(resolved("rows:\n  seed: 3\n  sample: 0x40\nmatch: density # default\n"), base);
  EXPECT_NE(resolved("rows: {sample: 65, seed: 3}\n"), base);
  EXPECT_NE(resolved("rows: {sample: 64, seed: 3}\nmatch: nominal\n"), base);
  EXPECT_NE(resolved("rows: {sample: 64, seed: 3}\nselect: {layers: 1}\n"), base);
}

TEST_F(ExperimentTest, ReadsListsRangesAndAll) {
  const Experiment experiment = load_with(
      "select: {layers: 0..3, steps: [7, 1..2, 1], heads: 5, branches: all, experts: high}\n");
  EXPECT_THAT(experiment.select.layers, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(experiment.select.steps, ElementsAre(1, 2, 7));
  EXPECT_THAT(experiment.select.heads, ElementsAre(5));
  EXPECT_TRUE(experiment.select.branches.empty());
  EXPECT_THAT(experiment.select.experts, ElementsAre("high"));
  EXPECT_TRUE(load_with("rows: all\n").rows.all);
  EXPECT_EQ(
      load_with("controls: {arms: random, heads: 4, random_seeds: 20}\n").controls.oracle_heads, 4);
  EXPECT_EQ(load_with("rows: {seed: 18446744073709551615}\n").rows.seed, 18446744073709551615ULL);
}

TEST_F(ExperimentTest, DenseStepsAreACountOrAList) {
  const auto arms =
      load(
          std::string(kHead) +
          "captures: demo\narms:\n  a: {method: dense, dense_steps: 3, dense_layers: [0, 38..39]}\n"
          "  b: {method: dense, dense_steps: 0, dense_layers: 4..5}\n")
          .arms;
  EXPECT_THAT(arms[0].dense_steps, ElementsAre(0, 1, 2));
  EXPECT_THAT(arms[0].dense_layers, ElementsAre(0, 38, 39));
  EXPECT_TRUE(arms[1].dense_steps.empty());
  EXPECT_THAT(arms[1].dense_layers, ElementsAre(4, 5));
  EXPECT_EQ(arms[0].canonical()["dense_steps"], json({0, 1, 2}));
  EXPECT_FALSE(arms[1].canonical().contains("dense_steps"));
}

TEST_F(ExperimentTest, PresetsAndSparsityWork) {
  const Arm arm = parse_arm("{method: rainfusion2, preset: mindie-v2, sparsity: 0.75}");
  EXPECT_DOUBLE_EQ(arm.density, 0.25);
  EXPECT_EQ(arm.params["budget"], "outside");
  const Experiment experiment = load(std::string(kHead) +
                                     "captures: [demo]\narms:\n  a: {method: rainfusion2, "
                                     "sparsity: 0.8}\nmatrix:\n  a.density: [0.5, 1]\n");
  EXPECT_THAT(names(experiment), ElementsAre("a.0.5", "a.1"));
  EXPECT_THAT(stems(experiment), ElementsAre("a", "a"));
  EXPECT_DOUBLE_EQ(experiment.arms[0].density, 0.5);
}

// ---------------------------------------------------------------------------------------- matrix

TEST_F(ExperimentTest, EveryArmIsCrossedWithItsOwnKeys) {
  const Experiment experiment =
      load(std::string(kHead) +
           "captures: [demo]\narms:\n  a: {method: rainfusion2}\n  b: {method: rainfusion2}\n  d: "
           "{method: dense}\n"
           "matrix:\n  a.sink: [none, both]\n  b.block: [64, 128]\n  a.density: [0.1, 0.2]\n");
  EXPECT_THAT(names(experiment), ElementsAre("a.none.0.1", "a.none.0.2", "a.both.0.1", "a.both.0.2",
                                             "b.64", "b.128", "d"));
}

TEST_F(ExperimentTest, ZipWalksListsTogether) {
  const Experiment experiment = load_with(
      "zip: {rf2.block: [64, 128], rf2.density: [0.2, 0.3]}\nmatrix: {rf2.sink: [none, both]}\n");
  EXPECT_THAT(names(experiment), ElementsAre("rf2.none.64.0.2", "rf2.none.128.0.3",
                                             "rf2.both.64.0.2", "rf2.both.128.0.3"));
  EXPECT_EQ(load_with("zip: {rf2.block: [64, 64], rf2.density: [0.2, 0.3]}\n").arms.size(), 2U);
}

TEST_F(ExperimentTest, ExcludeRemovesMatchingCombinations) {
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

TEST_F(ExperimentTest, NamesTellVariantsOfOneComponentApart) {
  EXPECT_THAT(
      names(load_with("matrix:\n  rf2.order: [raster, window3d, {window3d: {window: [4, 4, 8]}}, "
                      "{window3d: {window: [2, 8, 8]}}]\n")),
      ElementsAre("rf2.raster", "rf2.window3d", "rf2.window3d-4x4x8", "rf2.window3d-2x8x8"));
  EXPECT_THAT(names(load_with("matrix:\n  rf2.seed: [1, 2]\n")), ElementsAre("rf2.1", "rf2.2"));
}

TEST_F(ExperimentTest, MatrixErrorsNameTheirLine) {
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

TEST_F(ExperimentTest, BudgetVariesUnderNominalMatchOnly) {
  const std::string matrix = "matrix:\n  rf2.budget: [inside, outside]\n";
  EXPECT_THAT(
      error_with(matrix),
      HasSubstr("x.yaml:7: matrix.rf2.budget: budget may be ablated under `match: nominal` only"));
  EXPECT_THAT(error_with("zip: {rf2.budget: [inside, outside]}\nmatch: density\n"),
              HasSubstr("x.yaml:6: zip.rf2.budget: budget may"));
  EXPECT_EQ(load_with(matrix + "match: nominal\n").arms.size(), 2U);
}

TEST_F(ExperimentTest, ExcludeErrorsNameTheirLine) {
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

// ------------------------------------------------------------------------------- errors elsewhere

TEST_F(ExperimentTest, TopLevelErrorsNameTheirLine) {
  EXPECT_THAT(error_of("name: x\n"), HasSubstr("x.yaml:1: missing key 'schema'"));
  EXPECT_THAT(error_of("name: x\nschema: raingauge/2\n"),
              HasSubstr("x.yaml:2: schema: got \"raingauge/2\", allowed: raingauge/1"));
  EXPECT_THAT(error_with("contols: {}\n"),
              HasSubstr("x.yaml:6: contols: unknown key 'contols' (did you mean 'controls'?). "
                        "Known: schema, name"));
  EXPECT_THAT(error_of("schema: raingauge/1\ncaptures: [demo]\narms: {a: {method: dense}}\n"),
              HasSubstr("x.yaml:1: missing key 'name'"));
  EXPECT_THAT(
      error_of("schema: raingauge/1\nname: a/b\ncaptures: [demo]\narms: {a: {method: dense}}\n"),
      HasSubstr("x.yaml:2: name: got \"a/b\", allowed: letters"));
  EXPECT_THAT(
      error_of("schema: raingauge/1\nname: 7\ncaptures: [demo]\narms: {a: {method: dense}}\n"),
      HasSubstr("x.yaml:2: name: got 7"));
  EXPECT_THAT(error_with("match: densty\n"),
              HasSubstr("x.yaml:6: match: got \"densty\", allowed: one of: density, nominal"));
  EXPECT_THAT(error_with("metrics: [recall, recal]\n"),
              HasSubstr("x.yaml:6: metrics.1: unknown metric 'recal' (did you mean 'recall'?). "
                        "Known: recall, rel_l1"));
  EXPECT_THAT(error_with("metrics: [recall, recall]\n"),
              HasSubstr("x.yaml:6: metrics.1: \"recall\" stands twice"));
  EXPECT_THAT(error_with("metrics: []\n"), HasSubstr("x.yaml:6: metrics: empty list"));
  EXPECT_THAT(error_with("metrics: [3]\n"), HasSubstr("x.yaml:6: metrics.0: got 3, allowed: text"));
  EXPECT_THAT(error_with("description: [1]\n"),
              HasSubstr("x.yaml:6: description: got [1], allowed: text"));
}

TEST_F(ExperimentTest, SectionErrorsNameTheirLine) {
  EXPECT_THAT(error_with("rows: some\n"),
              HasSubstr("x.yaml:6: rows: got \"some\", allowed: all, or {sample: n, seed: n}"));
  EXPECT_THAT(error_with("rows: {sample: 0}\n"),
              HasSubstr("x.yaml:6: rows.sample: got 0, allowed: an integer >= 1"));
  EXPECT_THAT(error_with("rows: {sample: 1.5}\n"),
              HasSubstr("x.yaml:6: rows.sample: got 1.5, allowed: an integer >= 1"));
  EXPECT_THAT(error_with("rows: {sample: 99999999999}\n"),
              HasSubstr("x.yaml:6: rows.sample: got 99999999999"));
  EXPECT_THAT(error_with("rows:\n  seed: -1\n"),
              HasSubstr("x.yaml:7: rows.seed: got -1, allowed: an integer >= 0"));
  EXPECT_THAT(
      error_with("rows: {seeed: 1}\n"),
      HasSubstr(
          "x.yaml:6: rows.seeed: unknown key 'seeed' (did you mean 'seed'?). Known: sample, seed"));
  EXPECT_THAT(error_with("select: {layer: 1}\n"),
              HasSubstr("x.yaml:6: select.layer: unknown key 'layer' (did you mean 'layers'?)"));
  EXPECT_THAT(error_with("select: {layers: some}\n"),
              HasSubstr("x.yaml:6: select.layers: got \"some\", allowed: all, a number"));
  EXPECT_THAT(error_with("select:\n  steps:\n    - 1\n    - 9..3\n"),
              HasSubstr("x.yaml:9: select.steps.1: range 9..3"));
  EXPECT_THAT(error_with("select: {heads: [-1]}\n"), HasSubstr("x.yaml:6: select.heads.0: got -1"));
  EXPECT_THAT(error_with("select: {heads: 1.0}\n"), HasSubstr("x.yaml:6: select.heads: got 1.0"));
  EXPECT_THAT(error_with("select: {heads: []}\n"), HasSubstr("x.yaml:6: select.heads: empty list"));
  EXPECT_THAT(error_with("select: [1]\n"),
              HasSubstr("x.yaml:6: select: got [1], allowed: a mapping. Known: layers, steps"));
  EXPECT_THAT(error_with("controls: {arms: [rando]}\n"),
              HasSubstr("x.yaml:6: controls.arms.0: unknown control 'rando' (did you mean "
                        "'random'?). Known: random, random_bare"));
  EXPECT_THAT(error_with("controls: {heads: 0}\n"),
              HasSubstr("x.yaml:6: controls.heads: got 0, allowed: all, or an integer >= 1"));
}

TEST_F(ExperimentTest, ArmErrorsNameTheirLine) {
  EXPECT_THAT(
      error_of_arm("{method: rainfusion2, sinkk: both}"),
      HasSubstr("x.yaml:5: arms.a.sinkk: unknown key 'sinkk' (did you mean 'sink'?). Known: "));
  EXPECT_THAT(error_of_arm("{method: rainfusion}"),
              HasSubstr("x.yaml:5: arms.a.method: unknown method 'rainfusion' (did you mean "
                        "'rainfusion2'?). Known: "));
  EXPECT_THAT(error_of_arm("{block: 64}"),
              HasSubstr("x.yaml:5: arms.a: missing key 'method'. Known: "));
  EXPECT_THAT(error_of_arm("{method: 3}"), HasSubstr("x.yaml:5: arms.a.method: got 3"));
  EXPECT_THAT(error_of_arm("dense"),
              HasSubstr("x.yaml:5: arms.a: got \"dense\", allowed: a mapping"));
  EXPECT_THAT(
      error_of_arm("{method: rainfusion2,\n      density: 0}"),
      HasSubstr("x.yaml:6: arms.a.density: key 'density': got 0, allowed: a number in (0, 1]"));
  EXPECT_THAT(error_of_arm("{method: rainfusion2,\n      density: 0.2, sparsity: 0.8}"),
              HasSubstr("x.yaml:6: arms.a.sparsity: give either density or sparsity"));
  EXPECT_THAT(error_of_arm("{method: rainfusion2, order: {window3d: {window: [4, 4]}}}"),
              HasSubstr("x.yaml:5: arms.a.order.window3d.window: key 'window': got [4,4], allowed: "
                        "a list of 3 integers"));
  EXPECT_THAT(error_of_arm("{method: rainfusion2, order: windw3d}"),
              HasSubstr("x.yaml:5: arms.a.order: key 'order': "));
  EXPECT_THAT(error_of_arm("{method: rainfusion2, order: windw3d}"), HasSubstr("window3d"));
  EXPECT_THAT(
      error_of_arm("{method: dense, dense_step: 1}"),
      HasSubstr(
          "x.yaml:5: arms.a.dense_step: unknown key 'dense_step' (did you mean 'dense_steps'?)"));
  EXPECT_THAT(error_of_arm("{method: dense, dense_steps: all}"),
              HasSubstr("x.yaml:5: arms.a.dense_steps: got \"all\", allowed: a number n"));
  EXPECT_THAT(error_of_arm("{method: dense, dense_steps: -1}"),
              HasSubstr("x.yaml:5: arms.a.dense_steps: got -1"));
  EXPECT_THAT(error_of_arm("{method: dense, dense_layers: [x]}"),
              HasSubstr("x.yaml:5: arms.a.dense_layers.0: got \"x\""));
  EXPECT_THAT(error_of_arm("{method: rainfusion2, block_index: released, frame0: segregated}"),
              HasSubstr("x.yaml:5: arms.a.block_index: "));  // keys that do not go together
  EXPECT_THAT(error_of_arm("{method: plan_file,\n      path: none.h5}"),
              HasSubstr("x.yaml:5: arms.a: "));
  EXPECT_THAT(error_of(std::string(kHead) + "captures: [demo]\narms:\n  rows: {method: dense}\n"),
              HasSubstr("x.yaml:5: arms.rows: an arm cannot be called"));
  EXPECT_THAT(error_of(std::string(kHead) + "captures: [demo]\narms:\n  a.b: {method: dense}\n"),
              HasSubstr("x.yaml:5: arms.a.b: got arm name 'a.b', allowed: letters"));
  EXPECT_THAT(error_of(std::string(kHead) + "captures: [demo]\narms: {}\n"),
              HasSubstr("x.yaml:4: arms: key 'arms': expected a mapping"));
  EXPECT_THAT(error_of(std::string(kHead) + "captures: [demo]\n"),
              HasSubstr("x.yaml:1: key 'arms': expected a mapping"));
}

TEST_F(ExperimentTest, OutputSectionErrorsNameTheirLine) {
  EXPECT_THAT(error_with("latency: {warmup: 1}\n"),
              HasSubstr("x.yaml:6: latency: missing key 'kernels'"));
  EXPECT_THAT(error_with("latency: {kernels: [gpu]}\n"),
              HasSubstr("x.yaml:6: latency.kernels.0: unknown kernel 'gpu'"));
  EXPECT_THAT(error_with("latency: {kernels: [\"python:none.py\"]}\n"),
              HasSubstr("x.yaml:6: latency.kernels.0: no file 'none.py'"));
  EXPECT_THAT(error_with("latency: {kernels: cpu, max_noise: 0}\n"),
              HasSubstr("x.yaml:6: latency.max_noise: got 0, allowed: a number > 0"));
  EXPECT_THAT(error_with("latency: {kernels: cpu, interleave: 1}\n"),
              HasSubstr("x.yaml:6: latency.interleave: got 1, allowed: true or false"));
  EXPECT_THAT(error_with("latency: {kernels: cpu, heads: none}\n"),
              HasSubstr("x.yaml:6: latency.heads: got \"none\", allowed: all, or an integer >= 1"));
  EXPECT_THAT(error_with("latency: {kernels: cpu, arms: [rf3]}\n"),
              HasSubstr("x.yaml:6: latency.arms.0: unknown arm 'rf3' (did you mean 'rf2'?)"));
  EXPECT_THAT(
      error_with("generate: {arms: [rf2x]}\n"),
      HasSubstr("x.yaml:6: generate.arms.0: unknown arm 'rf2x' (did you mean 'rf2'?). Known: rf2"));
  EXPECT_THAT(error_with("generate: {density: 1.5}\n"),
              HasSubstr("x.yaml:6: generate.density: got 1.5, allowed: a number in (0, 1]"));
  EXPECT_THAT(error_with("generate: {metrics: [ssim]}\n"),
              HasSubstr("x.yaml:6: generate.metrics.0: unknown frame metric 'ssim'"));
  EXPECT_THAT(
      error_with("generate: {references: [thruth]}\n"),
      HasSubstr(
          "x.yaml:6: generate.references.0: unknown reference 'thruth' (did you mean 'truth'?)"));
  EXPECT_THAT(error_with("generate: {grid: [1, 2]}\n"),
              HasSubstr("x.yaml:6: generate.grid: got [1,2], allowed: a list of 3 integers >= 1"));
  EXPECT_THAT(error_with("generate: {mode: video}\n"),
              HasSubstr("x.yaml:6: generate.mode: got \"video\", allowed: one of: image_to_video, "
                        "text_to_video"));
  EXPECT_THAT(error_with("report: {formats: [pdf]}\n"),
              HasSubstr("x.yaml:6: report.formats.0: unknown format 'pdf'"));
  EXPECT_THAT(error_with("report: {ablate: [sink]}\n"),
              HasSubstr("x.yaml:6: report.ablate.0: unknown matrix key 'sink'"));
  EXPECT_THAT(error_with("matrix: {rf2.sink: [none, both]}\nreport: {baseline: {sink: rows}}\n"),
              HasSubstr("x.yaml:7: report.baseline.sink: 'rows' is no value of 'sink'"));
  EXPECT_THAT(error_with("report: {baseline: 1}\n"), HasSubstr("x.yaml:6: report.baseline: got 1"));
  EXPECT_THAT(error_with("report: {contrasts: secondary}\n"),
              HasSubstr("x.yaml:6: report.contrasts: got \"secondary\", allowed: primary"));
  EXPECT_THAT(
      error_with("matrix: {rf2.sink: [none, both]}\nreport: {contrasts: [sink, sink*order]}\n"),
      HasSubstr("x.yaml:7: report.contrasts.1: unknown matrix key 'order'"));
  EXPECT_THAT(
      error_with("matrix: {rf2.sink: [none, both]}\nreport: {contrasts: [[rf2.none, rf2]]}\n"),
      HasSubstr("x.yaml:7: report.contrasts.0.1: 'rf2' means 2 arms"));
}

TEST_F(ExperimentTest, ReportNamesLevelsAndArms) {
  const Experiment experiment = load_with(
      "matrix: {rf2.order: [raster, {window3d: {window: [4, 4, 8]}}], rf2.sink: [none, both]}\n"
      "report: {baseline: {order: window3d, arm: rf2}, ablate: [order, arm], contrasts: "
      "[order*sink, [rf2.raster.none, rf2.raster.both]]}\n");
  EXPECT_EQ(experiment.report.baseline, (json{{"order", "window3d"}, {"arm", "rf2"}}));
  EXPECT_EQ(experiment.report.contrasts,
            json::parse(R"(["order*sink", ["rf2.raster.none", "rf2.raster.both"]])"));
}

TEST_F(ExperimentTest, LatencyAndGenerateNameArmsByPrefix) {
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

TEST_F(ExperimentTest, PeersMayStandBesideTheExperiment) {
  folder_.write("peers/fa.py", "");
  const Experiment experiment = load_with("latency: {kernels: [cpu, \"python:peers/fa.py\"]}\n");
  EXPECT_EQ(experiment.latency.kernels[1], "python:" + (folder_.path() / "peers/fa.py").string());
}

// -------------------------------------------------------------------------------------- captures

TEST_F(ExperimentTest, CapturesAreGlobsDemoOrSynthetic) {
  folder_.write("c/b.h5", "");
  folder_.write("c/a.h5", "");
  folder_.write("c/note.txt", "");
  folder_.write("c[1].h5", "");
  const Experiment experiment =
      load(std::string(kHead) +
           "captures:\n  - c/*.h5\n  - 'c[1].h5'\n  - demo: {clips: 2, mode: both, seed: 4}\n"
           "  - synthetic: {grid: [3, 4, 5], heads: 2, head_dim: 64, kinds: [local, local, sink]}\n"
           "arms: {d: {method: dense}}\n");
  ASSERT_EQ(experiment.captures.size(), 4U);
  EXPECT_THAT(experiment.captures[0].files,
              ElementsAre(folder_.path() / "c/a.h5", folder_.path() / "c/b.h5"));
  EXPECT_THAT(experiment.captures[1].files, ElementsAre(folder_.path() / "c[1].h5"));
  EXPECT_EQ(experiment.captures[2].options["mode"], "both");
  EXPECT_EQ(experiment.captures[2].options["steps"], 8);
  EXPECT_EQ(experiment.captures[3].kind, CaptureSource::Kind::synthetic);
  const SyntheticSpec spec = synthetic_spec(experiment.captures[3].options);
  EXPECT_EQ(spec.frames * spec.height * spec.width, 60);
  EXPECT_EQ(spec.heads, 2);
  EXPECT_EQ(spec.dtype, "bf16");
  EXPECT_THAT(spec.kinds, ElementsAre(HeadKind::local, HeadKind::local, HeadKind::sink));
}

TEST_F(ExperimentTest, SyntheticModelsFillInTheirShape) {
  const Experiment experiment = load(std::string(kHead) +
                                     "captures: {synthetic: {model: wan21-14b-720p, heads: 2, "
                                     "layers: 1, steps: 3, generations: 2, seed: 9}}\n"
                                     "arms: {d: {method: dense}}\n");
  const SyntheticSpec spec = synthetic_spec(experiment.captures[0].options);
  EXPECT_EQ(std::int64_t{spec.frames} * spec.height * spec.width + spec.text_tokens, 75600);
  EXPECT_EQ(spec.heads, 2);
  EXPECT_EQ(spec.steps, 3);
  EXPECT_EQ(spec.seed, 9U);
}

TEST_F(ExperimentTest, CaptureErrorsNameTheirLine) {
  const auto error = [&](const std::string& captures) {
    return error_of(std::string(kHead) + captures + "\narms: {d: {method: dense}}\n");
  };
  folder_.write("a.h5", "");
  EXPECT_THAT(error("captures:\n  - demo\n  - none/*.h5"),
              HasSubstr("x.yaml:5: captures.1: no file matches 'none/*.h5'"));
  EXPECT_THAT(error("captures: [deno]"),
              HasSubstr("x.yaml:3: captures.0: no file matches 'deno' (did you mean 'demo'?)"));
  EXPECT_THAT(error("captures: []"),
              HasSubstr("x.yaml:3: captures: key 'captures': expected at least one of"));
  EXPECT_THAT(error("match: density"),
              HasSubstr("x.yaml:1: key 'captures': expected at least one of"));
  EXPECT_THAT(error("captures: [3]"), HasSubstr("x.yaml:3: captures.0: got 3, allowed: demo"));
  EXPECT_THAT(
      error("captures: [{dem: {}}]"),
      HasSubstr("x.yaml:3: captures.0.dem: unknown kind of capture 'dem' (did you mean 'demo'?)"));
  EXPECT_THAT(error("captures: [{demo: {}, synthetic: {}}]"),
              HasSubstr("x.yaml:3: captures.0: got "));
  EXPECT_THAT(
      error("captures: [{demo: {clip: 2}}]"),
      HasSubstr("x.yaml:3: captures.0.demo.clip: unknown key 'clip' (did you mean 'clips'?)"));
  EXPECT_THAT(error("captures: [{demo: {clips: 0}}]"),
              HasSubstr("x.yaml:3: captures.0.demo.clips: got 0, allowed: an integer >= 1"));
  EXPECT_THAT(error("captures: [a.h5,\n '*.h5']"),
              HasSubstr("x.yaml:4: captures.1: file 'a.h5' is also matched by captures.0"));
  EXPECT_THAT(error("captures: [{synthetic: {model: wan21-14b-72p}}]"),
              HasSubstr("x.yaml:3: captures.0.synthetic.model: unknown model 'wan21-14b-72p' (did "
                        "you mean 'wan21-14b-720p'?)"));
  EXPECT_THAT(
      error("captures: [{synthetic: {head: 2}}]"),
      HasSubstr("x.yaml:3: captures.0.synthetic.head: unknown key 'head' (did you mean 'heads'?)"));
  EXPECT_THAT(error("captures: [{synthetic: {heads: 2}}]"),
              HasSubstr("x.yaml:3: captures.0.synthetic: "));  // no shape
  EXPECT_THAT(error("captures: [{synthetic: {model: wan21-14b-720p, kinds: [locl]}}]"),
              HasSubstr("x.yaml:3: captures.0.synthetic.kinds.0: unknown kind of head 'locl' (did "
                        "you mean 'local'?)"));
}

// ------------------------------------------------------------------------------------- overrides

TEST_F(ExperimentTest, OverridesReplaceValues) {
  EXPECT_EQ(load_with("", {"rows.sample=64"}).rows.sample, 64);
  EXPECT_EQ(load_with("rows: all\n", {"rows.sample=64", "rows.seed=3"}).rows.seed, 3U);
  EXPECT_TRUE(load_with("rows: {sample: 3}\n", {"rows=all"}).rows.all);
  EXPECT_DOUBLE_EQ(load_with("", {"rf2.density=0.3"}).arms[0].density, 0.3);
  EXPECT_DOUBLE_EQ(load_with("", {"arms.rf2.sparsity=0.5"}).arms[0].density, 0.5);
  EXPECT_EQ(load_with("", {"rf2.order={window3d: {window: [1, 8, 8]}}"})
                .arms[0]
                .params["order"]["params"]["window"],
            json({1, 8, 8}));
  EXPECT_EQ(load_with("", {"rf2.order.window3d.window=[1, 8, 8]"}).arms[0].params["order"]["name"],
            "window3d");
  EXPECT_THAT(load_with("", {"select.layers=0..2"}).select.layers, ElementsAre(0, 1, 2));
  EXPECT_FALSE(load_with("latency: {kernels: [cpu]}\n", {"latency=null"}).latency.enabled);
  EXPECT_EQ(load_with("", {"rf2={method: dense}"}).arms[0].method, "dense");
  EXPECT_EQ(load_with("", {"metrics=[recall]"}).metrics.size(), 1U);
}

TEST_F(ExperimentTest, OverridesReplaceMatrixLevels) {
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

TEST_F(ExperimentTest, OverrideErrorsNameTheOverride) {
  const auto error = [&](const std::string& text) { return error_with("", {text}); };
  EXPECT_THAT(error("rows.smaple=64"), HasSubstr("x.yaml (--set rows.smaple=64): rows.smaple: "
                                                 "unknown key 'smaple' (did you mean 'sample'?)"));
  EXPECT_THAT(
      error("rows.sample=0"),
      HasSubstr("x.yaml (--set rows.sample=0): rows.sample: got 0, allowed: an integer >= 1"));
  EXPECT_THAT(error("rf3.density=1"),
              HasSubstr("x.yaml (--set rf3.density=1): 'rf3' is neither a key of the experiment "
                        "nor an arm (did you mean 'rf2'?)"));
  EXPECT_THAT(error("rf2.densty=1"), HasSubstr("x.yaml (--set rf2.densty=1): arms.rf2.densty: "
                                               "unknown key 'densty' (did you mean 'density'?)"));
  EXPECT_THAT(error("rows.sample"), HasSubstr("expected KEY=VALUE"));
  EXPECT_THAT(error("=3"), HasSubstr("expected KEY=VALUE"));
  EXPECT_THAT(error("rows..sample=3"), HasSubstr("expected KEY=VALUE"));
  EXPECT_THAT(
      error("rf2.density=[1"),
      HasSubstr(
          "--set rf2.density=[1:1: a key must be text, got a list (or a bracket is left open)"));
  EXPECT_THAT(error("captures.0=demo"), HasSubstr("'captures' is a list; set it as a whole"));
  EXPECT_THAT(error_with("matrix: {rf2.density: [0.2]}\n", {"rf2.sparsity=0.5"}),
              HasSubstr("the experiment varies rf2.density; set that key"));
  EXPECT_THAT(error_with("zip: {rf2.density: [0.2]}\n", {"rf2.density=0.5"}),
              HasSubstr("zip.rf2.density: got 0.5, allowed: a list"));
}

// ----------------------------------------------------------------------------------------- names

TEST_F(ExperimentTest, ArmsOfTheCommandLine) {
  EXPECT_EQ(parse_arm("{method: dense}").name, "dense");
  EXPECT_EQ(parse_arm("method: rainfusion2\ndensity: 0.5\n").density, 0.5);
  EXPECT_TRUE(parse_arm("{method: dense}").base_folder.empty());
  // The experiment's captures are not here: an arm does not need them.
  const std::string text = std::string(kHead) +
                           "captures: [none.h5]\narms:\n  rf2: {method: rainfusion2}\nmatrix: "
                           "{rf2.sink: [none, both], rf2.density: [0.2]}\n";
  const std::string file = folder_.write("e.yaml", text).string();
  EXPECT_EQ(parse_arm(file + ":rf2.both.0.2").name, "rf2.both.0.2");
  EXPECT_EQ(parse_arm(file + ":rf2.none").name, "rf2.none.0.2");
  EXPECT_EQ(parse_arm(file + ":rf2.none").base_folder, folder_.path().string());
}

TEST_F(ExperimentTest, ArmTextErrors) {
  const auto error = [](const std::string& text) -> std::string {
    try {
      parse_arm(text);
    } catch (const ConfigError& wrong) {
      return wrong.what();
    }
    return "no error";
  };
  EXPECT_THAT(error("{method: rainfusion2, sinkk: both}"),
              HasSubstr("arm:1: sinkk: unknown key 'sinkk' (did you mean 'sink'?)"));
  EXPECT_THAT(error("{method: densee}"),
              HasSubstr("arm:1: method: unknown method 'densee' (did you mean 'dense'?)"));
  EXPECT_THAT(error("{}"), HasSubstr("arm:1: missing key 'method'"));
  EXPECT_THAT(error("dense"), HasSubstr("arm:1: got 'dense', allowed: an inline YAML mapping"));
  EXPECT_THAT(error(""), HasSubstr("arm:1: got ''"));
  EXPECT_THAT(error("[1, 2]"), HasSubstr("arm:1: got '[1, 2]'"));
  EXPECT_THAT(error("{method: dense"), HasSubstr("arm:1: "));
  EXPECT_THAT(error("none.yaml:a"), HasSubstr("none.yaml:1: no such file"));
  const std::string file =
      folder_.write("e.yaml", std::string(kHead) + kBody + "matrix: {rf2.sink: [none, both]}\n")
          .string();
  EXPECT_THAT(error(file + ":rf2.bth"), HasSubstr("e.yaml:4: arms: unknown arm 'rf2.bth' (did you "
                                                  "mean 'rf2.both'?). Known: rf2.none, rf2.both"));
  EXPECT_THAT(
      error(file + ":rf2"),
      HasSubstr(
          "e.yaml:4: arms: 'rf2' means 2 arms; give one full name. Known: rf2.none, rf2.both"));
}

// Whatever is cut out of or put into an experiment, the answer is an experiment or an error that
// names file and line.
TEST_F(ExperimentTest, DamagedTextNeverCrashes) {
  const std::string text = kAblation;
  std::uint32_t state = 1;
  const auto random = [&](std::size_t below) {
    state = state * 1664525U + 1013904223U;
    return (state >> 8U) % below;
  };
  const std::string inserts = "{}[]:,&*'\"-\n #|>!%@0.~";
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string damaged = text;
    const std::size_t at = random(damaged.size());
    if (round % 3 == 0) damaged.erase(at, 1 + random(12));
    if (round % 3 == 1) damaged.insert(at, 1, inserts[random(inserts.size())]);
    if (round % 3 == 2) damaged[at] = static_cast<char>(random(256));
    const std::string message = error_of(damaged);
    if (message == "no error") continue;
    ++refused;
    const std::string prefix = "x.yaml:";
    ASSERT_EQ(message.substr(0, prefix.size()), prefix) << message;
    const std::size_t colon = message.find(": ");
    const std::string line = message.substr(prefix.size(), colon - prefix.size());
    EXPECT_FALSE(line.empty()) << message;
    EXPECT_TRUE(std::all_of(line.begin(), line.end(), [](char c) { return c >= '0' && c <= '9'; }))
        << message;
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace raingauge
