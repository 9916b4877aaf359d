// SPDX-License-Identifier: Apache-2.0
// Who stands where at equal density, and the same end to end.
#include "harness/leaderboard.h"

#include <algorithm>
#include <cmath>

#include "harness/report/run_data.h"
#include "harness/table.h"

namespace raingauge {
namespace {

std::string asked_text(double asked) {
  return std::isnan(asked) ? "own knob" : format_number(asked, 2);
}

class Board {
 public:
  Board(Document& document, std::string arm, double asked)
      : document_(document), arm_(std::move(arm)), scope_("asked=" + asked_text(asked)) {}

  // A mean over generations or clips, with its interval where there is one.
  Cell level(const std::string& metric, const std::vector<double>& values,
             const std::string& formula, const std::string& unit = "generations") {
    if (finite(values).empty()) return Cell("n/a");
    Number number = named(metric, formula);
    number.unit_of_n = unit;
    return Cell::of(add_level(document_, std::move(number), values));
  }
  Cell plain(const std::string& metric, double value, int n, const std::string& formula) {
    if (!std::isfinite(value)) return Cell("not timed");
    Number number = named(metric, formula);
    number.unit_of_n = "samples";
    return Cell::of(add_plain(document_, std::move(number), value, n), 3);
  }
  std::string reference;

 private:
  Number named(const std::string& metric, const std::string& formula) const {
    Number number;
    number.table = "leaderboard";
    number.arm = arm_;
    number.metric = metric;
    number.scope = scope_;
    number.reference = reference;
    number.formula = formula;
    return number;
  }

  Document& document_;
  std::string arm_, scope_;
};

ReportTable replay_table(const Leaderboard& board, Document& document) {
  const std::string place = "(recall - random) / (oracle_head - random)";
  const std::string imbalance = "most key blocks of a query block / mean over query blocks";
  ReportTable table;
  table.id = "leaderboard";
  table.title = "Leaderboard";
  table.note =
      "Random and oracle_head have the arm's own layout and pairs, so place compares predictors, "
      "and "
      "recall what comes of predictor and layout together.";
  table.columns = {{"density asked", "", true},
                   {"arm", "", false},
                   {"method", "", false},
                   {"density", "kept pairs / all pairs, counted from the lists", true},
                   {"place", place, true},
                   {"recall", "", true},
                   {"random", "recall of as many random blocks", true},
                   {"oracle_head", "recall of the head's best blocks by true mass", true},
                   {"rel_l2", "", true},
                   {"load imbalance", imbalance, true},
                   {"plan ms", "time to decide for one record, all heads", true},
                   {"rows", "outcomes", false}};
  for (const auto& row : board.rows) {
    Board cells(document, row.arm, row.asked);
    table.rows.push_back({asked_text(row.asked), row.arm, row.method,
                          cells.level("density_pairs", row.density_pairs, ""),
                          cells.level("place", row.place, place),
                          cells.level("recall", row.recall, ""),
                          cells.level("random", row.random, "recall of the control"),
                          cells.level("oracle_head", row.oracle_head, "recall of the control"),
                          cells.level("rel_l2", row.rel_l2, ""),
                          cells.level("load_imbalance", row.load_imbalance, imbalance),
                          cells.plain("plan_ms", row.plan_ms, row.timed, "median"),
                          outcome_text(row.outcomes, row.reason)});
  }
  return table;
}

ReportTable clip_table(const Leaderboard& board, Document& document) {
  ReportTable table;
  table.id = "leaderboard_clips";
  table.title = "The same end to end";
  table.note = "Clips denoised with the arm's attention at every step outside the common warm-up.";
  table.columns = {{"against", "", false},
                   {"density asked", "of the sparse calls", true},
                   {"arm", "", false},
                   {"method", "", false},
                   {"density", "over all calls, dense ones included", true}};
  for (const auto& name : board.metrics) table.columns.push_back({name, formula_of(name), true});
  table.columns.push_back({"rows", "outcomes", false});
  for (const auto& clip : board.clips) {
    Board cells(document, clip.arm, clip.asked);
    cells.reference = clip.reference;
    std::vector<Cell> row = {clip.reference, std::isnan(clip.asked) ? "" : asked_text(clip.asked),
                             clip.arm, clip.method,
                             cells.level("density_pairs", clip.density_pairs, "", "clips")};
    for (const auto& name : board.metrics) {
      const auto found = clip.metrics.find(name);
      row.push_back(found == clip.metrics.end() ? Cell("n/a")
                                                : cells.level(name, found->second, "", "clips"));
    }
    row.emplace_back(outcome_text(clip.outcomes, clip.reason));
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace

// Only where arms of several methods are compared.
void add_leaderboard(const RunData& data, Document& document) {
  const Leaderboard board = read_leaderboard(data.folder);
  const bool several = std::any_of(board.rows.begin(), board.rows.end(), [&](const auto& row) {
    return row.method != board.rows.front().method;
  });
  if (!several) return;
  auto& section = document.section("leaderboard", "Leaderboard");
  section.blocks.emplace_back(replay_table(board, document));
  if (!board.clips.empty()) section.blocks.emplace_back(clip_table(board, document));
}

}  // namespace raingauge
