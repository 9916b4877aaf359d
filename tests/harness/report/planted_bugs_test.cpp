// SPDX-License-Identifier: Apache-2.0
// Bugs that would give plausible numbers must come out as red warnings: a mask that is off by one, K
// read in another order than V, a budget that its label does not tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/random.h"
#include "harness/fidelity.h"
#include "harness/report/assets.h"
#include "harness/report/run_data.h"
#include "harness/rows.h"
#include "methods/kernels/conformance.h"
#include "methods/kernels/registry.h"
#include "methods/plan_heads.h"
#include "methods/registry.h"
#include "tests/harness/report/run_fixture.h"
#include "tests/methods/fixtures.h"

namespace raingauge {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing_support::PlantedRun;

// What the kernel stage would write when `kernel` runs `executed` where the arm planned `plan`.
json conformance_row(const RecordView& record, const AttendInputs& kernel_inputs, const Plan& plan,
                     const Plan& executed) {
  const auto kernel = find_kernel("cpu").make({.threads = 1, .isa = {}});
  const auto rows = static_cast<std::size_t>(record.heads() * record.tokens());
  std::vector<float> o(rows * static_cast<std::size_t>(record.head_dim()));
  std::vector<float> lse(rows);
  const AttendOutputs outputs{o.data(), lse.data()};
  kernel->attend(*kernel->prepare(executed, kernel_inputs), kernel_inputs, outputs);
  const AttendInputs true_inputs{record.q, record.k, record.v, nullptr,
                                 static_cast<float>(record.info->scale)};
  const auto result = check_conformance(kernel->spec(), plan, true_inputs, outputs, {});
  return {{"cell", "k"},
          {"cell_rows", 1},
          {"arm", "rf2.raster.none.0.2"},
          {"kernel", "cpu"},
          {"outcome", result.ok ? "ok" : "incorrect"},
          {"reason", result.reason},
          {"max_row_error", number_or_null(result.max_row_error)},
          {"tolerance", result.tolerance},
          {"max_lse_error", number_or_null(result.max_lse_error)}};
}

class PlantedBugs : public ::testing::Test {
 protected:
  PlantedBugs()
      : record_(testing::video_then_text(8, 16, 16, 5), 2, 32, 31),
        inputs_{record_.view().q, record_.view().k, record_.view().v, nullptr,
                static_cast<float>(record_.info().scale)} {
    State state;
    plan_ =
        make_method("rainfusion2", {{"density", 0.4}, {"block", 64}})->plan(record_.view(), state);
  }
  std::vector<std::string> warnings(const json& conformance, const PlantedRun& planted = {}) {
    testing_support::write_planted(folder_.path(), planted);
    if (!conformance.is_null())
      std::ofstream(folder_.path() / "conformance.jsonl") << conformance.dump() << "\n";
    const auto data = load_run(folder_.path());
    if (!plotly_js().empty()) html_ = write_html(build_document(data));
    return warnings_of(data);
  }
  testing_support::TemporaryFolder folder_;
  testing::NoiseRecord record_;
  AttendInputs inputs_;
  Plan plan_;
  std::string html_;
};

TEST_F(PlantedBugs, NoBugNoWarning) {
  EXPECT_TRUE(warnings(conformance_row(record_.view(), inputs_, plan_, plan_)).empty());
}

TEST_F(PlantedBugs, AMaskOffByOneFailsConformance) {
  Plan shifted = plan_;  // every key block one further, the last one round
  for (std::int64_t head = 0; head < plan_.heads; ++head) {
    for (std::int64_t i = 0; i < plan_.lists.query_blocks; ++i) {
      auto* begin =
          shifted.lists.columns.data() + (plan_.lists.begin(head, i) - plan_.lists.columns.data());
      for (std::int64_t n = 0; n < plan_.lists.count(head, i); ++n)
        begin[n] = static_cast<std::int32_t>((begin[n] + 1) % plan_.k_blocks.blocks);
      std::sort(begin, begin + plan_.lists.count(head, i));
    }
  }
  const auto found = warnings(conformance_row(record_.view(), inputs_, plan_, shifted));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0],
              HasSubstr("FAILED conformance: rf2.raster.none.0.2 on kernel cpu: incorrect"));
  if (!html_.empty()) {
    EXPECT_THAT(html_,
                HasSubstr("<p class=\"warning\" role=\"alert\">Warning: FAILED conformance"));
  }
}

TEST_F(PlantedBugs, ValuesInAnotherOrderThanKeysFailConformance) {
  auto swapped = record_.bytes(2);  // V of the tokens reversed, K as it is
  const auto row = static_cast<std::size_t>(record_.view().head_dim()) * 2;
  for (std::size_t a = 0, b = swapped.size() - row; a < b; a += row, b -= row)
    std::swap_ranges(swapped.begin() + static_cast<std::ptrdiff_t>(a),
                     swapped.begin() + static_cast<std::ptrdiff_t>(a + row),
                     swapped.begin() + static_cast<std::ptrdiff_t>(b));
  AttendInputs wrong = inputs_;
  wrong.v = contiguous_view(swapped.data(), DType::bf16, 2, record_.view().tokens(), 32);
  const auto found = warnings(conformance_row(record_.view(), wrong, plan_, plan_));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0], HasSubstr("FAILED conformance"));
}

TEST_F(PlantedBugs, ABudgetThatItsLabelDoesNotTellIsRed) {
  PlantedRun planted;
  planted.change = [](json& row) {  // forced blocks come on top, the label says inside
    if (row["factors"]["sink"] == "both")
      row["density_pairs"] = row["density_pairs"].get<double>() + 0.04;
  };
  const auto found = warnings(nullptr, planted);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_THAT(found[0],
              HasSubstr("Budget: rf2.raster.both.0.2 asked for density 0.2000 and keeps 0.2400"));
}

// The off-by-one in the method itself: conformance cannot see it, its floor does.
TEST_F(PlantedBugs, AMaskWorseThanChanceIsRed) {
  PlantedRun planted;
  planted.change = [](json& row) {
    if (row["arm"] != "rf2.window3d.none.0.2") return;
    row["metrics"]["recall"]["value"] = 0.15;
  };
  testing_support::write_planted(folder_.path(), planted);
  std::ofstream rows(folder_.path() / "fidelity.jsonl", std::ios::app);
  json control = {{"cell", "random"},
                  {"cell_rows", 1},
                  {"capture", "clip0.h5"},
                  {"generation", "clip0"},
                  {"record", 21},
                  {"layer", 2},
                  {"step", 1},
                  {"head", 0},
                  {"arm", "rf2.window3d.none.0.2:random"},
                  {"control_of", "rf2.window3d.none.0.2"},
                  {"control", "random"},
                  {"control_seed", 0},
                  {"outcome", "ok"},
                  {"density_pairs", 0.2},
                  {"metrics", {{"recall", {{"value", 0.3}}}}}};
  rows << control.dump() << "\n";
  rows.close();
  const auto found = warnings_of(load_run(folder_.path()));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0], HasSubstr("the mask selects worse than chance"));
}

TEST_F(PlantedBugs, ARecallAboveOneIsRed) {
  PlantedRun planted;
  planted.change = [](json& row) {
    if (row["arm"] == "rf2.raster.none.0.35") row["metrics"]["recall"]["value"] = 1.02;
  };
  const auto found = warnings(nullptr, planted);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0], HasSubstr("more than all of the mass"));
}

}  // namespace
}  // namespace raingauge
