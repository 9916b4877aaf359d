// SPDX-License-Identifier: Apache-2.0
// Tables for people (console, Markdown) and programs (CSV), and how numbers look in them.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace raingauge {

enum class Align { left, right };

class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::left;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // Throws Error unless there is one cell a column.
  void add_row(std::vector<std::string> cells);
  std::size_t rows() const { return rows_.size(); }

  std::string text() const;  // aligned columns, two blanks apart, a rule below the titles
  std::string markdown() const;
  std::string csv() const;  // RFC 4180 quoting, lines end in \n

 private:
  std::vector<std::size_t> widths() const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// One CSV line without its end.
std::string csv_line(const std::vector<std::string>& cells);

// Columns that UTF-8 text takes on a terminal: combining marks 0, CJK and emoji 2, a byte that is
// no UTF-8 1.
std::size_t display_width(std::string_view text);
// The text, or as much of it as fits with "…" at the end.
std::string clip_to_width(const std::string& text, std::size_t columns);

// At least `digits` significant digits, trailing zeros kept: "0.873", "12.0", "1234"; exponents
// below 1e-4 and from 1e7 on: "1.20e-05". NaN is "n/a", infinity "inf".
std::string format_number(double value, int digits = 3);
// The same for JSON: null is "n/a".
std::string format_number(const nlohmann::json& value, int digits = 3);
// "0.873 [0.861, 0.884]": all three with the decimals of the value; without an interval the value.
std::string format_estimate(double value, double lo, double hi, int digits = 3);
// {value, lo, hi} of a row; null and missing ones are n/a.
std::string format_estimate(const nlohmann::json& metric, int digits = 3);

}  // namespace raingauge
