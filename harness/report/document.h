// SPDX-License-Identifier: Apache-2.0
// What a report says, before any format: every number once, in a ledger; tables, figures and
// sentences point into it. HTML, Markdown, CSV, LaTeX, SVG and the console print the same ledger.
#pragma once

#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "harness/report/statistics.h"

namespace raingauge {

// One line of summary.csv.
struct Number {
  std::string table;  // fidelity, contrast, where, site, floor, conformance, latency, frames, bench
  std::string arm, kernel, reference, control, metric;
  std::string scope;  // what it covers, "mode=text_to_video layer=3"; empty: everything selected
  double value = std::numeric_limits<double>::quiet_NaN();
  int n = 0;  // how many of `unit_of_n` stand behind it
  double lo = std::numeric_limits<double>::quiet_NaN();
  double hi = std::numeric_limits<double>::quiet_NaN();
  double p = std::numeric_limits<double>::quiet_NaN();
  std::string unit_of_n;  // generations, rows, samples, clips …
  std::string formula;
};

using NumberId = std::size_t;

struct Cell {
  std::string text;                // when there is no number
  std::optional<NumberId> number;  // printed with its interval where it has one
  bool best = false;               // of its column, among comparable rows
  bool warning = false;
  int digits = 4;

  Cell() = default;
  Cell(std::string words) : text(std::move(words)) {}  // NOLINT(google-explicit-constructor)
  Cell(const char* words) : text(words) {}             // NOLINT(google-explicit-constructor)
  static Cell of(NumberId id, int digits = 4) {
    Cell cell;
    cell.number = id;
    cell.digits = digits;
    return cell;
  }
};

struct ReportColumn {
  std::string title;
  std::string formula;  // or meaning; shown beside the table
  bool numeric = false;
};

struct ReportTable {
  std::string id, title, note;
  std::vector<ReportColumn> columns;
  std::vector<std::vector<Cell>> rows;
  std::vector<std::string> commands;  // one a row: reruns it; empty: no such column
  bool wide_only = false;             // left out of the console, folded in HTML
};

enum class FigureKind { lines, scatter, stacked_bars, heat };

struct Series {
  std::string name;
  std::string group;    // shares a colour
  std::string style;    // solid, dot, dash
  bool hidden = false;  // shown when its legend entry is chosen
  std::vector<double> x;
  std::vector<std::string> labels;  // of points, or categories of bars
  std::vector<NumberId> y;
  std::vector<NumberId> x_ids;  // where x is a number of the ledger too
};

struct HeatPanel {
  std::string name;
  std::vector<std::string> rows, columns;
  std::vector<std::optional<NumberId>> cells;  // [rows, columns]
};

struct Figure {
  std::string id, title, caption, x_title, y_title;
  FigureKind kind = FigureKind::lines;
  bool log_x = false, log_y = false;
  std::vector<Series> series;
  std::vector<HeatPanel> panels;
};

struct Paragraph {
  std::string text;
  bool warning = false;
  bool verdict = false;
};

// Pictures as base64 PNG, or data that the page draws itself; HTML only.
struct Pictures {
  std::string kind;  // masks, strips
  nlohmann::json data;
  std::string description;  // for readers without pictures
};

using Block = std::variant<Paragraph, ReportTable, Figure, Pictures>;

struct ReportSection {
  std::string id, title;
  std::vector<Block> blocks;

  void say(std::string text) { blocks.emplace_back(Paragraph{std::move(text)}); }
  void warn(std::string text) { blocks.emplace_back(Paragraph{std::move(text), true}); }
};

struct Document {
  std::string title, subtitle, reproduce;
  nlohmann::json manifest;
  std::vector<Number> ledger;
  std::vector<ReportSection> sections;

  NumberId add(Number number) {
    ledger.push_back(std::move(number));
    return ledger.size() - 1;
  }
  ReportSection& section(std::string id, std::string heading) {
    sections.push_back({std::move(id), std::move(heading), {}});
    return sections.back();
  }
};

// "0.873 [0.861, 0.884]", or the cell's words.
std::string cell_text(const Document& document, const Cell& cell);

// Marks the best cell of a column among `rows`; nothing when fewer than two rows have a number.
void mark_best(const Document& document, ReportTable& table, std::size_t column, bool higher,
               const std::vector<std::size_t>& rows);

// The writers. `text` for the console leaves pictures and figures out.
std::string write_text(const Document& document);
std::string write_markdown(const Document& document);
std::string write_csv(const Document& document);
nlohmann::json write_json(const Document& document);
std::string write_html(const Document& document);  // throws Unsupported without plotly.min.js
std::string write_tex(const Document& document, const ReportTable& table);
std::string write_svg(const Document& document, const Figure& figure);

}  // namespace raingauge
