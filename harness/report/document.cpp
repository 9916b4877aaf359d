// SPDX-License-Identifier: Apache-2.0
// Writers that are plain text: console, Markdown, CSV, JSON, LaTeX.
#include "harness/report/document.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "harness/rows.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

// A table as text cells; rows gain their command only where the format has room for it.
Table text_table(const Document& document, const ReportTable& table) {
  std::vector<Table::Column> columns;
  for (const auto& column : table.columns)
    columns.push_back({column.title, column.numeric ? Align::right : Align::left});
  Table out(columns);
  for (const auto& row : table.rows) {
    std::vector<std::string> cells;
    for (const auto& cell : row) cells.push_back(cell_text(document, cell));
    out.add_row(cells);
  }
  return out;
}

std::string blank_or(double value) {
  if (!std::isfinite(value)) return "";
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.9g", value);
  return text.data();
}

json table_json(const Document& document, const ReportTable& table) {
  json columns = json::array();
  for (const auto& column : table.columns)
    columns.push_back({{"title", column.title}, {"formula", column.formula}});
  json rows = json::array();
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    json cells = json::array();
    for (const auto& cell : table.rows[i]) {
      cells.push_back(cell.number ? json{{"number", *cell.number}, {"best", cell.best}}
                                  : json(cell_text(document, cell)));
    }
    rows.push_back({{"cells", cells},
                    {"command", i < table.commands.size() ? json(table.commands[i]) : json()}});
  }
  return {{"id", table.id},
          {"title", table.title},
          {"note", table.note},
          {"columns", columns},
          {"rows", rows}};
}

json number_json(const Number& number) {
  return {{"table", number.table},
          {"arm", number.arm},
          {"kernel", number.kernel},
          {"reference", number.reference},
          {"control", number.control},
          {"metric", number.metric},
          {"scope", number.scope},
          {"value", number_or_null(number.value)},
          {"n", number.n},
          {"unit_of_n", number.unit_of_n},
          {"lo", number_or_null(number.lo)},
          {"hi", number_or_null(number.hi)},
          {"p", number_or_null(number.p)},
          {"formula", number.formula}};
}

std::string tex_escaped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (text.compare(i, 3, "…") == 0) {
      out += "\\dots{}";
      i += 2;
    } else if (std::string("&%$#_{}").find(c) != std::string::npos) {
      out += std::string("\\") + c;
    } else if (c == '\\') {
      out += "\\textbackslash{}";
    } else if (c == '~') {
      out += "\\textasciitilde{}";
    } else if (c == '^') {
      out += "\\textasciicircum{}";
    } else if (c == '<' || c == '>' || c == '|') {
      out += std::string("$") + c + "$";
    } else {
      out += c == '\n' || c == '\r' ? ' ' : c;
    }
  }
  return out;
}

// value +- half of the interval where it is symmetric, else the interval.
std::string tex_cell(const Document& document, const Cell& cell) {
  if (!cell.number) return tex_escaped(cell_text(document, cell));
  const auto& number = document.ledger[*cell.number];
  std::string value = format_number(number.value, cell.digits);
  if (cell.best) value = "\\textbf{" + value + "}";
  if (!std::isfinite(number.lo) || !std::isfinite(number.hi)) return value;
  const double up = number.hi - number.value;
  const double down = number.value - number.lo;
  if (std::fabs(up - down) <= 1e-9 * (std::fabs(up) + std::fabs(down)))
    return value + " $\\pm$ " + format_number(up, 2);
  return value + " [" + format_number(number.lo, cell.digits) + ", " +
         format_number(number.hi, cell.digits) + "]";
}

}  // namespace

std::string cell_text(const Document& document, const Cell& cell) {
  if (!cell.number) return cell.text;
  const auto& number = document.ledger.at(*cell.number);
  return format_estimate(number.value, number.lo, number.hi, cell.digits);
}

void mark_best(const Document& document, ReportTable& table, std::size_t column, bool higher,
               const std::vector<std::size_t>& rows) {
  const auto value = [&](std::size_t row) {
    const auto& cell = table.rows[row][column];
    return cell.number ? document.ledger[*cell.number].value : std::nan("");
  };
  double best = std::nan("");
  int found = 0;
  for (const auto row : rows) {
    const double v = value(row);
    if (!std::isfinite(v)) continue;
    ++found;
    if (!std::isfinite(best) || (higher ? v > best : v < best)) best = v;
  }
  if (found < 2) return;
  for (const auto row : rows) {
    if (value(row) == best) table.rows[row][column].best = true;
  }
}

std::string write_text(const Document& document) {
  std::string out;
  for (const auto& section : document.sections) {
    std::string text;
    for (const auto& block : section.blocks) {
      if (const auto* paragraph = std::get_if<Paragraph>(&block))
        text += (paragraph->warning ? "WARNING " : "") + paragraph->text + "\n";
      const auto* table = std::get_if<ReportTable>(&block);
      if (table == nullptr || table->wide_only || table->rows.empty()) continue;
      text += "\n" + text_table(document, *table).text() +
              (table->note.empty() ? "" : table->note + "\n");
    }
    if (!text.empty()) out += "== " + section.title + "\n\n" + text + "\n";
  }
  return out;
}

std::string write_markdown(const Document& document) {
  std::string out = "# " + document.title + "\n\n" + document.subtitle + "\n\n";
  for (const auto& section : document.sections) {
    out += "## " + section.title + "\n\n";
    for (const auto& block : section.blocks) {
      if (const auto* paragraph = std::get_if<Paragraph>(&block)) {
        out += paragraph->warning ? "> **WARNING** " : paragraph->verdict ? "* " : "";
        out += paragraph->text + "\n" + (paragraph->verdict ? "" : "\n");
      } else if (const auto* table = std::get_if<ReportTable>(&block)) {
        out += "\n### " + table->title + "\n\n" + text_table(document, *table).markdown() + "\n";
        if (!table->note.empty()) out += table->note + "\n\n";
      } else if (const auto* figure = std::get_if<Figure>(&block)) {
        out += "Figure: figures/" + figure->id + ".svg (" + figure->title + "). " +
               figure->caption + "\n\n";
      } else if (const auto* pictures = std::get_if<Pictures>(&block)) {
        out += "Pictures in report.html: " + pictures->description + "\n\n";
      }
    }
  }
  return out + "\nReproduce: `" + document.reproduce + "`\n";
}

std::string write_csv(const Document& document) {
  std::string out = csv_line({"table", "arm", "kernel", "reference", "control", "metric", "value",
                              "n", "lo", "hi", "p", "scope", "unit_of_n"}) +
                    "\n";
  for (const auto& number : document.ledger) {
    if (!std::isfinite(number.value)) continue;
    out += csv_line({number.table, number.arm, number.kernel, number.reference, number.control,
                     number.metric, blank_or(number.value), std::to_string(number.n),
                     blank_or(number.lo), blank_or(number.hi), blank_or(number.p), number.scope,
                     number.unit_of_n}) +
           "\n";
  }
  return out;
}

json write_json(const Document& document) {
  json out = {{"schema", kRowSchema},
              {"title", document.title},
              {"reproduce", document.reproduce},
              {"numbers", json::array()},
              {"sections", json::array()}};
  for (const auto& number : document.ledger) out["numbers"].push_back(number_json(number));
  for (const auto& section : document.sections) {
    json blocks = json::array();
    for (const auto& block : section.blocks) {
      if (const auto* paragraph = std::get_if<Paragraph>(&block)) {
        blocks.push_back({{"text", paragraph->text}, {"warning", paragraph->warning}});
      } else if (const auto* table = std::get_if<ReportTable>(&block)) {
        blocks.push_back({{"table", table_json(document, *table)}});
      } else if (const auto* figure = std::get_if<Figure>(&block)) {
        blocks.push_back({{"figure", figure->id}});
      }
    }
    out["sections"].push_back({{"id", section.id}, {"title", section.title}, {"blocks", blocks}});
  }
  return out;
}

std::string write_tex(const Document& document, const ReportTable& table) {
  std::string columns;
  std::string titles;
  for (const auto& column : table.columns) {
    columns += column.numeric ? 'r' : 'l';
    titles += (titles.empty() ? "" : " & ") + tex_escaped(column.title);
  }
  std::string out = "% needs \\usepackage{booktabs}; intervals are 95 % over generations\n";
  out += "\\begin{table}\n\\centering\n\\caption{" + tex_escaped(table.title) +
         "}\n\\label{tab:" + table.id + "}\n\\begin{tabular}{" + columns + "}\n\\toprule\n" +
         titles + " \\\\\n\\midrule\n";
  for (const auto& row : table.rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c)
      line += (c == 0 ? "" : " & ") + tex_cell(document, row[c]);
    out += line + " \\\\\n";
  }
  return out + "\\bottomrule\n\\end{tabular}\n\\end{table}\n";
}

}  // namespace raingauge
