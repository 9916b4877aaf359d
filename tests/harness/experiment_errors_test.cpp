// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "tests/harness/experiment_fixture.h"

namespace raingauge {
namespace {

using testing::HasSubstr;
using testing_support::kAblation;
using testing_support::kBody;
using testing_support::kHead;

using ExperimentErrorsTest = testing_support::ExperimentTest;

TEST_F(ExperimentErrorsTest, TopLevelErrorsNameTheirLine) {
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

TEST_F(ExperimentErrorsTest, SectionErrorsNameTheirLine) {
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

TEST_F(ExperimentErrorsTest, ArmErrorsNameTheirLine) {
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

TEST_F(ExperimentErrorsTest, OutputSectionErrorsNameTheirLine) {
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

TEST_F(ExperimentErrorsTest, CaptureErrorsNameTheirLine) {
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

TEST_F(ExperimentErrorsTest, OverrideErrorsNameTheOverride) {
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

TEST_F(ExperimentErrorsTest, ArmTextErrors) {
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
TEST_F(ExperimentErrorsTest, DamagedTextNeverCrashes) {
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
