// SPDX-License-Identifier: Apache-2.0
#include "harness/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>

#include "data/error.h"

namespace raingauge {
namespace {

struct CodePoint {
  std::uint32_t value;
  std::size_t bytes;
};

// The character at `at`; a byte that starts none stands for itself.
CodePoint next_character(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t length = lead < 0xC2   ? 1
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 1;
  if (length == 1 || at + length > text.size()) return {lead, 1};
  std::uint32_t code = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[at + i]);
    if ((next & 0xC0U) != 0x80U) return {lead, 1};
    code = (code << 6U) | (next & 0x3FU);
  }
  return {code, length};
}

bool inside(std::uint32_t code, const std::vector<std::array<std::uint32_t, 2>>& ranges) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const auto& range) { return code >= range[0] && code <= range[1]; });
}

// The blocks of Unicode that matter in names and prompts, not the full width tables.
std::size_t width_of(std::uint32_t code) {
  static const std::vector<std::array<std::uint32_t, 2>> zero = {
      {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x200B, 0x200F},
      {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
  static const std::vector<std::array<std::uint32_t, 2>> wide = {
      {0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0xA4CF},   {0xAC00, 0xD7A3},
      {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},
      {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
  if (inside(code, zero)) return 0;
  return inside(code, wide) ? 2 : 1;
}

std::string padded(const std::string& text, std::size_t width, Align align) {
  const std::size_t own = display_width(text);
  const std::string blanks(width > own ? width - own : 0, ' ');
  return align == Align::left ? text + blanks : blanks + text;
}

std::string without_line_breaks(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return text;
}

std::string markdown_cell(const std::string& text) {
  std::string escaped;
  for (const char c : without_line_breaks(text))
    escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

std::string csv_cell(const std::string& text) {
  const bool blank_edge = !text.empty() && (text.front() == ' ' || text.back() == ' ');
  if (text.find_first_of(",\"\r\n") == std::string::npos && !blank_edge) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string printed(const char* format, int decimals, double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, decimals, value);
  return text.data();
}

bool needs_exponent(double value) {
  return value != 0.0 && (std::fabs(value) < 1e-4 || std::fabs(value) >= 1e7);
}

// Decimals that give `digits` significant ones after rounding (9.996 with 3 is 10.0, not 10.00).
int decimals_for(double value, int digits) {
  if (value == 0.0) return digits - 1;
  const double magnitude = std::fabs(value);
  int exponent = static_cast<int>(std::floor(std::log10(magnitude)));
  const double step = std::pow(10.0, exponent + 1 - digits);
  if (std::round(magnitude / step) >= std::pow(10.0, digits)) ++exponent;
  return std::max(0, digits - 1 - exponent);
}

double number_of(const nlohmann::json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

void Table::add_row(std::vector<std::string> cells) {
  if (cells.size() != columns_.size()) {
    throw Error("Table: a row of " + std::to_string(cells.size()) + " cells for " +
                std::to_string(columns_.size()) + " columns");
  }
  rows_.push_back(std::move(cells));
}

std::vector<std::size_t> Table::widths() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    widths.push_back(display_width(columns_[c].title));
    for (const auto& row : rows_) widths[c] = std::max(widths[c], display_width(row[c]));
  }
  return widths;
}

std::string Table::text() const {
  const auto width = widths();
  std::string all;
  const auto add = [&](const auto& cell_of) {
    std::string line;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      line += (c == 0 ? "" : "  ") +
              padded(without_line_breaks(cell_of(c)), width[c], columns_[c].align);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    all += line + "\n";
  };
  add([&](std::size_t c) { return columns_[c].title; });
  add([&](std::size_t c) { return std::string(width[c], '-'); });
  for (const auto& row : rows_) add([&](std::size_t c) { return row[c]; });
  return all;
}

std::string Table::markdown() const {
  std::string titles = "|";
  std::string rule = "|";
  for (const auto& column : columns_) {
    titles += " " + markdown_cell(column.title) + " |";
    rule += column.align == Align::left ? "---|" : "---:|";
  }
  std::string all = titles + "\n" + rule + "\n";
  for (const auto& row : rows_) {
    all += "|";
    for (const auto& cell : row) all += " " + markdown_cell(cell) + " |";
    all += "\n";
  }
  return all;
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (std::size_t c = 0; c < cells.size(); ++c) line += (c == 0 ? "" : ",") + csv_cell(cells[c]);
  return line;
}

std::string Table::csv() const {
  std::vector<std::string> titles;
  for (const auto& column : columns_) titles.push_back(column.title);
  std::string all = csv_line(titles) + "\n";
  for (const auto& row : rows_) all += csv_line(row) + "\n";
  return all;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint character = next_character(text, at);
    width += width_of(character.value);
    at += character.bytes;
  }
  return width;
}

std::string clip_to_width(const std::string& text, std::size_t columns) {
  if (display_width(text) <= columns) return text;
  std::size_t width = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    const CodePoint character = next_character(text, at);
    if (width + width_of(character.value) + 1 > columns) break;
    width += width_of(character.value);
    at += character.bytes;
  }
  return columns == 0 ? "" : text.substr(0, at) + "…";
}

std::string format_number(double value, int digits) {
  if (std::isnan(value)) return "n/a";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (needs_exponent(value)) return printed("%.*e", digits - 1, value);
  return printed("%.*f", decimals_for(value, digits), value);
}

std::string format_number(const nlohmann::json& value, int digits) {
  return format_number(number_of(value), digits);
}

std::string format_estimate(double value, double lo, double hi, int digits) {
  if (!std::isfinite(value) || !std::isfinite(lo) || !std::isfinite(hi))
    return format_number(value, digits);
  const bool exponent = needs_exponent(value);
  const char* format = exponent ? "%.*e" : "%.*f";
  const int decimals = exponent ? digits - 1 : decimals_for(value, digits);
  return printed(format, decimals, value) + " [" + printed(format, decimals, lo) + ", " +
         printed(format, decimals, hi) + "]";
}

std::string format_estimate(const nlohmann::json& metric, int digits) {
  if (!metric.is_object()) return format_number(metric, digits);
  const auto field = [&](const char* name) {
    return metric.contains(name) ? number_of(metric[name])
                                 : std::numeric_limits<double>::quiet_NaN();
  };
  return format_estimate(field("value"), field("lo"), field("hi"), digits);
}

}  // namespace raingauge
