// SPDX-License-Identifier: Apache-2.0
// What every registered method promises, checked over the registry.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "data/error.h"
#include "data/plan_file.h"
#include "data/synthetic.h"
#include "methods/controls.h"
#include "methods/kernels/row_evaluator.h"
#include "methods/registry.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using testing::NoiseRecord;
using testing::video_then_text;

class EveryMethod : public ::testing::TestWithParam<std::string> {
 protected:
  json params_with(const json& given) const {
    json params = json::object();
    for (const auto& spec : find_method(GetParam()).spec.params) {
      if (given.contains(spec.name)) params[spec.name] = given[spec.name];
    }
    return params;
  }
};

// Settings under which the methods that have no density of their own keep everything, and sizes that
// suit records of some hundred tokens; every method takes the keys it has.
json small_settings(double density, int block) {
  return {{"density", density},  {"block", block},   {"p", density},     {"window", {64, 64, 64}},
          {"tile", {2, 4, 4}},   {"q_clusters", 7},  {"k_clusters", 11}, {"iterations", 5},
          {"rounding", "exact"}, {"ragged", "clip"}, {"solve", "width"}, {"min_kc_ratio", 0.0}};
}

// Defined on frames.
bool refuses_images(const std::string& method) {
  static const std::set<std::string> kMethods = {"rainfusion1", "svg", "sta", "radial"};
  return kMethods.count(method) != 0;
}

RowSample all_rows(std::int64_t tokens) {
  RowSample sample;
  sample.tokens.resize(static_cast<std::size_t>(tokens));
  std::iota(sample.tokens.begin(), sample.tokens.end(), 0);
  return sample;
}

TEST_P(EveryMethod, FullBudgetEqualsDense) {
  if (GetParam() == "plan_file" || GetParam() == "schedule")
    GTEST_SKIP() << "needs a file: tests of its own";
  const NoiseRecord record(video_then_text(3, 10, 9, 6), 2, 16, 21);
  State state;
  const auto method = make_method(GetParam(), params_with(small_settings(1.0, 32)));
  if (!method->dense_at_full_budget()) GTEST_SKIP() << "its authors say otherwise";
  const Plan plan = method->plan(record.view(), state);
  check_plan(plan);
  EXPECT_EQ(measure_density(plan).mean_pairs, 1.0);
  const auto sample = all_rows(plan.tokens);
  for (std::int64_t head = 0; head < 2; ++head) {
    const auto dense = evaluate_rows(record.view(), head, sample, nullptr, 1);
    const auto sparse = evaluate_rows(record.view(), head, sample, &plan, 1);
    for (std::size_t i = 0; i < dense.lse.size(); ++i) {
      // Both sum the same fp32 scores in another order: a few units of 2^-24 per key at most.
      EXPECT_LE(std::abs(sparse.lse[i] - dense.lse[i]), 1e-5);
    }
    for (std::size_t i = 0; i < dense.o.size(); ++i)
      EXPECT_LE(std::abs(sparse.o[i] - dense.o[i]), 1e-5);
  }
}

TEST_P(EveryMethod, PlansAreValidDeterministicAndIndependentOfThreads) {
  if (GetParam() == "plan_file" || GetParam() == "schedule")
    GTEST_SKIP() << "needs a file: tests of its own";
  for (const auto& segments : {video_then_text(3, 9, 11, 5), video_then_text(1, 13, 10, 0)}) {
    const NoiseRecord record(segments, 3, 8, 22);
    std::uint64_t first = 0;
    for (const int threads : {1, 2, 4}) {
      MethodOptions options;
      options.threads = threads;
      State state;
      const auto method = make_method(GetParam(), params_with(small_settings(0.6, 16)), options);
      if (segments[0].frames == 1 && refuses_images(GetParam())) {
        EXPECT_THROW(method->plan(record.view(), state), Unsupported);
        continue;
      }
      const Plan plan = method->plan(record.view(), state);
      check_plan(plan);
      if (threads == 1) first = plan_fingerprint(plan);
      EXPECT_EQ(plan_fingerprint(plan), first);
    }
  }
}

// One block pair of the largest blocks, as a share of all pairs.
double largest_block_pair(const Plan& plan, std::int64_t head) {
  const auto largest = [&](const Layout& layout) {
    double size = 0.0;
    for (std::int64_t b = 0; b < layout.blocks; ++b) {
      size = std::max<double>(size, layout.size(head, b));
    }
    return size;
  };
  return largest(plan.q_blocks) * largest(plan.k_blocks) /
         (double(plan.tokens) * double(plan.tokens));
}

TEST_P(EveryMethod, MatchedDensityIsMetWithinOneBlockPairOrRefused) {
  if (GetParam() == "plan_file" || GetParam() == "schedule")
    GTEST_SKIP() << "needs a file: tests of its own";
  const NoiseRecord record(video_then_text(5, 16, 16, 8), 3, 16, 25);
  MethodOptions options;
  options.match = DensityMatch::measured;
  for (const double density : {0.05, 0.35, 0.6, 1.0}) {
    const json params = params_with(small_settings(density, 32));
    if (!params.contains("density")) GTEST_SKIP() << "keeps no density";
    try {
      State state;
      const Plan plan = make_method(GetParam(), params, options)->plan(record.view(), state);
      check_plan(plan);
      EXPECT_EQ(plan.nominal_density, density);
      const auto measured = measure_density(plan).pairs;
      for (std::int64_t head = 0; head < plan.heads; ++head) {
        EXPECT_LE(std::abs(measured[std::size_t(head)] - density), largest_block_pair(plan, head))
            << "density " << density << ", head " << head;
      }
    } catch (const Infeasible& refusal) {
      EXPECT_GT(refusal.least_density(), density);
    } catch (const Unsupported& refusal) {  // a rule that never keeps some pairs
      EXPECT_EQ(GetParam(), "radial") << refusal.what();
      EXPECT_NE(std::string(refusal.what()).find("at most"), std::string::npos);
    }
  }
}

// One meaning of the key in every method: where the authors' knob is a density, it is that knob; where
// it is none, `density` is asked for under either match, and without it the knob decides.
TEST_P(EveryMethod, DensityIsTheKnobOrIsSolvedFor) {
  if (GetParam() == "plan_file" || GetParam() == "schedule")
    GTEST_SKIP() << "needs a file: tests of its own";
  const auto& declared = find_method(GetParam()).spec.params;
  const auto spec = std::find_if(declared.begin(), declared.end(),
                                 [](const ParamSpec& param) { return param.name == "density"; });
  if (spec == declared.end()) GTEST_SKIP() << "keeps no density";
  const NoiseRecord record(video_then_text(5, 16, 16, 8), 2, 16, 26);
  const auto plan = [&](json params, DensityMatch match) {
    MethodOptions options;
    options.match = match;
    State state;
    return make_method(GetParam(), params, options)->plan(record.view(), state);
  };
  json params = params_with(small_settings(0.6, 32));
  const Plan given = plan(params, DensityMatch::nominal);
  EXPECT_EQ(given.nominal_density, 0.6);
  if (!spec->default_value.is_null()) return;
  EXPECT_EQ(plan_fingerprint(plan(params, DensityMatch::measured)), plan_fingerprint(given));
  const auto measured = measure_density(given).pairs;
  for (std::int64_t head = 0; head < given.heads; ++head) {
    EXPECT_LE(std::abs(measured[std::size_t(head)] - 0.6), largest_block_pair(given, head));
  }
  params.erase("density");
  for (const auto match : {DensityMatch::nominal, DensityMatch::measured}) {
    EXPECT_TRUE(std::isnan(plan(params, match).nominal_density) || GetParam() == "sparge");
  }
}

// Means over heads of planted structure, at equal density. The floor draws the same blocks at random.
TEST_P(EveryMethod, RecallLiesBetweenRandomAndTheOracleAtEqualDensity) {
  if (GetParam() == "plan_file" || GetParam() == "schedule")
    GTEST_SKIP() << "needs a file: tests of its own";
  SyntheticSpec spec;
  spec.frames = 6;
  spec.height = 16;
  spec.width = 16;
  spec.text_tokens = 8;
  spec.text_first = 0;
  spec.heads = 4;
  spec.head_dim = 64;
  spec.kinds = {HeadKind::local, HeadKind::temporal, HeadKind::sink, HeadKind::textural};
  const auto record = make_synthetic_record(spec, 0, 0, 0, {}, 1);
  MethodOptions options;
  options.match = DensityMatch::measured;
  json settings = small_settings(0.5, 32);
  settings["window"] = {3, 3, 3};
  State state;
  const Plan plan =
      make_method(GetParam(), params_with(settings), options)->plan(record->view(), state);
  const auto sample = all_rows(plan.tokens);
  double arm = 0.0, random = 0.0, oracle = 0.0;
  for (std::int64_t head = 0; head < plan.heads; ++head) {
    const auto dense = evaluate_rows(record->view(), head, sample, nullptr, 1);
    RecordView one = record->view();
    one.q = one.q.slice_heads(head, 1);
    one.k = one.k.slice_heads(head, 1);
    one.v = one.v.slice_heads(head, 1);
    const auto recall = [&](const Plan& p, const RecordView& view, std::int64_t h) {
      const auto rows = evaluate_rows(view, h, sample, &p, 1);
      double sum = 0.0;
      for (std::size_t i = 0; i < rows.lse.size(); ++i) sum += std::exp(rows.lse[i] - dense.lse[i]);
      return sum / double(rows.lse.size());
    };
    const auto mass = block_mass(record->view(), head, plan, 1);
    arm += recall(plan, record->view(), head);
    random += recall(control_plan("random_bare", plan, head, mass, 1), one, 0);
    oracle += recall(control_plan("oracle_head", plan, head, mass, 1), one, 0);
  }
  // The oracle fills greedily and may end a block pair short, which is much where blocks are large.
  EXPECT_LE(arm, oracle + 4e-3 + 3 * double(plan.heads) * largest_block_pair(plan, 0));
  if (GetParam() == "random") {
    EXPECT_NEAR(arm, random, 0.25);
  } else {
    EXPECT_GE(arm, random - 1e-6);
  }
}

TEST_P(EveryMethod, DeclaresHelpForEveryKey) {
  const auto& spec = find_method(GetParam()).spec;
  EXPECT_FALSE(spec.help.empty());
  for (const auto& param : spec.params) EXPECT_FALSE(param.help.empty()) << param.name;
  for (const auto& [preset, values] : spec.presets) {
    EXPECT_NO_THROW(complete_method_params(GetParam(), {{"preset", preset}})) << preset;
  }
}

TEST_P(EveryMethod, RefusesUnknownKeysWithTheNearestName) {
  try {
    complete_method_params(GetParam(), {{"blok", 64}});
    FAIL() << "accepted";
  } catch (const ParamError& error) {
    EXPECT_EQ(error.path(), "/blok");
  }
}

std::vector<std::string> all_methods() {
  std::vector<std::string> names;
  for (const auto& entry : method_registry()) names.emplace_back(entry.spec.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Registry, EveryMethod, ::testing::ValuesIn(all_methods()),
                         [](const auto& instance) { return instance.param; });

TEST(MethodParams, SparsityIsOneMinusDensity) {
  EXPECT_EQ(complete_method_params("rainfusion2", {{"sparsity", 0.8}})["density"], 0.2);
  EXPECT_THROW(complete_method_params("rainfusion2", {{"sparsity", 0.8}, {"density", 0.2}}),
               ParamError);
  EXPECT_THROW(complete_method_params("rainfusion2", {{"sparsity", 1.0}}), ParamError);
  EXPECT_THROW(complete_method_params("dense", {{"sparsity", 0.5}}), ParamError);
}

TEST(MethodParams, CompletingTwiceChangesNothing) {
  const auto once = complete_method_params("rainfusion2", {{"preset", "paper"}, {"sink", "none"}});
  EXPECT_EQ(complete_method_params("rainfusion2", once), once);
  EXPECT_EQ(once["sink"], "none");
  EXPECT_EQ(once["order"]["name"], "window3d");
}

TEST(PlanFileMethod, ReplaysAPlanForTheRecordsHeads) {
  const NoiseRecord record(video_then_text(2, 8, 8, 0), 3, 8, 23);
  State state;
  PlanFile file;
  file.plan = make_method("random", {{"density", 0.5}, {"block", 16}})->plan(record.view(), state);
  file.heads = {0, 1, 2};
  const std::string path = ::testing::TempDir() + "/plan_file_method.h5";
  write_plan(path, file, true);
  const Plan plan = make_method("plan_file", {{"path", path}})->plan(record.view(), state);
  EXPECT_EQ(plan.lists.columns, file.plan.lists.columns);

  NoiseRecord one(video_then_text(2, 8, 8, 0), 1, 8, 23);
  one.info().heads = {2};
  const Plan third = make_method("plan_file", {{"path", path}})->plan(one.view(), state);
  EXPECT_EQ(third.lists.count(0, 0), file.plan.lists.count(2, 0));
  one.info().heads = {7};
  EXPECT_THROW(make_method("plan_file", {{"path", path}})->plan(one.view(), state), Unsupported);
}

TEST(Controls, KeepCountsAndBoundTheArm) {
  // Blocks of one size, so that equal counts are equal pairs and the ceilings are ordered.
  const NoiseRecord record(video_then_text(3, 16, 16, 0), 1, 16, 24, DType::bf16, 3.0);
  State state;
  MethodOptions options;
  options.match = DensityMatch::measured;
  const Plan plan =
      make_method("rainfusion2", {{"sink", "cols"}, {"density", 0.5}, {"block", 32}}, options)
          ->plan(record.view(), state);
  const auto mass = block_mass(record.view(), 0, plan, 1);
  const auto sample = all_rows(plan.tokens);
  const auto dense = evaluate_rows(record.view(), 0, sample, nullptr, 1);
  const auto recall = [&](const Plan& p) {
    const auto rows = evaluate_rows(record.view(), 0, sample, &p, 1);
    double sum = 0.0;
    for (std::size_t i = 0; i < rows.lse.size(); ++i) sum += std::exp(rows.lse[i] - dense.lse[i]);
    return sum / double(rows.lse.size());
  };
  std::map<std::string, double> recalls;
  for (const auto& name : control_names()) {
    const Plan control = control_plan(name, plan, 0, mass, 1);
    check_plan(control);
    recalls[name] = recall(control);
    if (name == "oracle_head") {
      EXPECT_LE(measure_density(control).mean_pairs, measure_density(plan).mean_pairs + 1e-12);
      continue;
    }
    for (std::int64_t row = 0; row < plan.q_blocks.blocks; ++row) {
      EXPECT_EQ(control.lists.count(0, row), plan.lists.count(0, row)) << name;
    }
  }
  const double arm = recall(plan);
  EXPECT_GE(recalls["oracle_row"], arm - 1e-9);
  EXPECT_GE(recalls["oracle_head"], recalls["oracle_row"] - 1e-6);
  EXPECT_GT(arm, recalls["random_bare"]);
  EXPECT_THROW(control_plan("orakle", plan, 0, mass, 1), Error);
}

}  // namespace
}  // namespace raingauge
