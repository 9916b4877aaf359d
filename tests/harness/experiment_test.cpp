// SPDX-License-Identifier: Apache-2.0
#include "harness/experiment.h"

#include "harness/experiment_parts.h"
#include "methods/registry.h"
#include "tests/harness/experiment_fixture.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing_support::kAblation;
using testing_support::kHead;

using ExperimentTest = testing_support::ExperimentTest;

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

TEST_F(ExperimentTest, CanonicalArmsReproduceThemselves) {
  for (const auto& arm : load(kAblation).arms) {
    const Arm again = parse_arm(arm.canonical().dump());
    EXPECT_EQ(again.canonical(), arm.canonical()) << arm.name;
    EXPECT_EQ(again.method, "rainfusion2");
  }
}

TEST_F(ExperimentTest, EveryMethodCanBeAnArm) {
  for (const auto& entry : method_registry()) {
    if (entry.spec.name == "plan_file" || entry.spec.name == "schedule") continue;  // need a file
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

TEST_F(ExperimentTest, PeersMayStandBesideTheExperiment) {
  folder_.write("peers/fa.py", "");
  const Experiment experiment = load_with("latency: {kernels: [cpu, \"python:peers/fa.py\"]}\n");
  EXPECT_EQ(experiment.latency.kernels[1], "python:" + (folder_.path() / "peers/fa.py").string());
}

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

}  // namespace
}  // namespace raingauge
