// SPDX-License-Identifier: Apache-2.0
// Every format prints the numbers of one ledger.

// g++ 12 finds its own std::regex, with sanitizers in it, uninitialised (its bug 105562).
#if defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "harness/report/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <sstream>

#include "data/error.h"
#include "harness/report/assets.h"
#include "harness/report/run_data.h"
#include "tests/harness/report/run_fixture.h"

namespace raingauge {
namespace {

using ::testing::HasSubstr;
using testing_support::PlantedRun;

class Report : public ::testing::Test {
 protected:
  Document document(const PlantedRun& planted = {}) {
    testing_support::write_planted(folder_.path(), planted);
    return build_document(load_run(folder_.path()));
  }
  testing_support::TemporaryFolder folder_;
};

TEST_F(Report, SaysWhatWasPlanted) {
  const auto text = write_text(document());
  EXPECT_THAT(text,
              HasSubstr("order: window3d vs raster (at equal measured density): recall +0.03"));
  EXPECT_THAT(text, HasSubstr("helps"));
  EXPECT_THAT(text, HasSubstr("sink: both vs none"));
  EXPECT_THAT(text, HasSubstr("harms"));
  EXPECT_THAT(text, HasSubstr("16 generations, exact sign-flip p"));
  EXPECT_EQ(text.find("WARNING"), std::string::npos);
}

TEST_F(Report, VerdictSaysHowAnEffectDependsOnDensityAndMode) {
  PlantedRun planted;
  planted.change = [](nlohmann::json& row) {
    if (row["factors"]["order"] != "window3d") return;
    auto& recall = row["metrics"]["recall"]["value"];
    const bool image = std::stoi(row["generation"].get<std::string>().substr(4)) % 2 == 0;
    recall = recall.get<double>() + (row["nominal_density"] == 0.2 ? 0.1 : 0.0) - (image ? 0.2 : 0);
  };
  // Planted: 0.03 + 0.01 / 2, plus 0.1 at 0.2, less 0.2 in one half of the generations.
  EXPECT_THAT(write_text(document(planted)),
              testing::ContainsRegex("By density: 0.2 [+]0.03[0-9], 0.35 -0.06[0-9]. "
                                     "By mode: image_to_video -0.1[12], text_to_video [+]0.08"));
}

TEST_F(Report, VerdictAtNominalDensitySaysWhatWasMeasured) {
  PlantedRun planted;
  planted.change = [](nlohmann::json& row) {
    row["match"] = "nominal";
    if (row["factors"]["order"] == "window3d")
      row["density_pairs"] = row["density_pairs"].get<double>() + 0.05;
  };
  testing_support::write_planted(folder_.path(), planted);
  auto manifest = testing_support::planted_manifest(planted);
  for (auto& arm : manifest["experiment"]["arms"]) arm["match"] = "nominal";
  std::ofstream(folder_.path() / "manifest.json") << manifest.dump();
  const auto text = write_text(build_document(load_run(folder_.path())));
  EXPECT_THAT(text, HasSubstr("order: window3d vs raster (at equal nominal density, measured "
                              "density +0.050): recall +0.03"));
}

TEST_F(Report, FewGenerationsGetNoInterval) {
  PlantedRun planted;
  planted.generations = 7;
  const auto doc = document(planted);
  const auto text = write_text(doc);
  EXPECT_THAT(text, HasSubstr("Fewer than 8 generations: descriptive"));
  EXPECT_THAT(text, HasSubstr("descriptive."));
  for (const auto& number : doc.ledger) {
    EXPECT_TRUE(std::isnan(number.p)) << number.metric;
    EXPECT_TRUE(std::isnan(number.lo)) << number.metric;
  }
}

TEST_F(Report, InfeasibleArmsNameTheLeastDensity) {
  PlantedRun planted;
  planted.infeasible_low = true;
  const auto markdown = write_markdown(document(planted));
  EXPECT_THAT(markdown, HasSubstr("128 infeasible"));
  EXPECT_THAT(markdown, HasSubstr("least density possible 0.270"));
}

TEST_F(Report, CsvHoldsEveryFiniteNumberOnce) {
  const auto doc = document();
  const auto csv = write_csv(doc);
  std::size_t finite_numbers = 0;
  for (const auto& number : doc.ledger) finite_numbers += std::isfinite(number.value) ? 1 : 0;
  EXPECT_EQ(static_cast<std::size_t>(std::count(csv.begin(), csv.end(), '\n')), finite_numbers + 1);
  EXPECT_THAT(csv, HasSubstr("table,arm,kernel,reference,control,metric,value,n"));
  EXPECT_THAT(csv, HasSubstr("fidelity,rf2.raster.none.0.2,,,,recall,"));
}

// \begin and \end nest, braces balance, every row has as many cells as the head.
TEST_F(Report, LatexIsBalanced) {
  const auto doc = document();
  int tables = 0;
  for (const auto& section : doc.sections) {
    for (const auto& block : section.blocks) {
      const auto* table = std::get_if<ReportTable>(&block);
      if (table == nullptr) continue;
      ++tables;
      const std::string tex = write_tex(doc, *table);
      std::vector<std::string> open;
      const std::regex environment(R"(\\(begin|end)\{(\w+)\})");
      for (std::sregex_iterator it(tex.begin(), tex.end(), environment), end; it != end; ++it) {
        if ((*it)[1] == "begin") {
          open.push_back((*it)[2]);
        } else {
          ASSERT_FALSE(open.empty());
          EXPECT_EQ(open.back(), (*it)[2]);
          open.pop_back();
        }
      }
      EXPECT_TRUE(open.empty());
      int depth = 0;
      for (std::size_t i = 0; i < tex.size(); ++i) {
        if (i > 0 && tex[i - 1] == '\\') continue;
        depth += tex[i] == '{' ? 1 : tex[i] == '}' ? -1 : 0;
        ASSERT_GE(depth, 0);
      }
      EXPECT_EQ(depth, 0);
      std::istringstream lines(tex);
      for (std::string line; std::getline(lines, line);) {
        if (!line.ends_with(" \\\\")) continue;
        std::size_t cells = 1;
        for (std::size_t i = 0; i < line.size(); ++i)
          cells += line[i] == '&' && (i == 0 || line[i - 1] != '\\') ? 1 : 0;
        EXPECT_EQ(cells, table->columns.size()) << line;
      }
    }
  }
  EXPECT_GE(tables, 4);
}

TEST_F(Report, LatexMarksTheBestAndHalvesSymmetricIntervals) {
  const auto doc = document();
  for (const auto& section : doc.sections) {
    for (const auto& block : section.blocks) {
      const auto* table = std::get_if<ReportTable>(&block);
      if (table == nullptr || table->id != "ablation") continue;
      const auto tex = write_tex(doc, *table);
      EXPECT_THAT(tex, HasSubstr("\\textbf{"));
      EXPECT_THAT(tex, HasSubstr("$\\pm$"));
      EXPECT_THAT(tex, HasSubstr("\\toprule"));
    }
  }
}

TEST_F(Report, HtmlNeedsNoNetwork) {
  const auto doc = document();
  if (plotly_js().empty()) {
    EXPECT_THROW(write_html(doc), Unsupported);
    return;
  }
  const auto html = write_html(doc);
  const auto body = html.substr(0, html.find("</main>"));
  EXPECT_EQ(body.find("src=\"http"), std::string::npos);
  EXPECT_EQ(body.find("<link"), std::string::npos);
  EXPECT_THAT(body, HasSubstr("lang=\"en\""));
  EXPECT_THAT(body, HasSubstr("default-src 'none'"));
}

TEST_F(Report, TextFromRunsIsEscaped) {
  PlantedRun planted;
  planted.change = [](nlohmann::json& row) {
    if (row["arm"] != "rf2.raster.none.0.2") return;
    row["outcome"] = "failed";
    row["reason"] = "<script>alert(1)</script> & 100 % | x_y";
    row.erase("metrics");
  };
  const auto doc = document(planted);
  if (!plotly_js().empty()) {
    const auto html = write_html(doc);
    EXPECT_EQ(html.find("<script>alert"), std::string::npos);
    EXPECT_THAT(html, HasSubstr("class=\"warning\""));
  }
  EXPECT_THAT(write_markdown(doc), HasSubstr("100 % \\| x_y"));
}

TEST_F(Report, FiguresAreSvgOfTheLedger) {
  const auto doc = document();
  int figures = 0;
  for (const auto& section : doc.sections) {
    for (const auto& block : section.blocks) {
      const auto* figure = std::get_if<Figure>(&block);
      if (figure == nullptr) continue;
      ++figures;
      const auto svg = write_svg(doc, *figure);
      EXPECT_THAT(svg, HasSubstr("</svg>"));
      EXPECT_EQ(svg.find("nan"), std::string::npos) << figure->id;
    }
  }
  EXPECT_GE(figures, 5);
}

TEST_F(Report, RendersBenchmarksOfOtherPrograms) {
  document();
  std::ofstream(folder_.path() / "bench_cpu.json")
      << R"({"context": {"host_name": "h", "num_cpus": 2},
    "benchmarks": [{"name": "attend/0.2", "run_type": "iteration", "iterations": 12, "real_time": 3.5,
    "time_unit": "ms", "gflops": 41.5, "peak_gflops": 90.0, "percent_of_peak": 46.1, "density": 0.2}]})";
  const auto doc = build_document(load_run(folder_.path()));
  EXPECT_THAT(write_csv(doc), HasSubstr("bench,,attend/0.2,bench_cpu.json,,gflops,41.5,12"));
}

}  // namespace
}  // namespace raingauge
