// SPDX-License-Identifier: Apache-2.0
// report.html: one file that needs no network. Tables are plain HTML, charts are drawn by Plotly from
// JSON that stands beside them, and every number carries its n, formula and p.
#include <array>
#include <cmath>
#include <cstdio>

#include "data/error.h"
#include "harness/report/assets.h"
#include "harness/report/document.h"
#include "harness/rows.h"
#include "harness/table.h"

namespace raingauge {
namespace {

using nlohmann::json;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// "</script>" in a text must not end the element that holds it.
std::string json_script(const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string safe;
  for (std::size_t i = 0; i < text.size(); ++i)
    safe += text[i] == '<' ? std::string("\\u003c") : std::string(1, text[i]);
  return "<script type=\"application/json\">" + safe + "</script>\n";
}

std::string exact(double value) {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.9g", value);
  return text.data();
}

// What stands behind a number, for a tooltip.
std::string origin(const Number& number) {
  std::string text =
      "n = " + std::to_string(number.n) + (number.unit_of_n.empty() ? "" : " " + number.unit_of_n);
  if (std::isfinite(number.p)) text += "; p = " + format_number(number.p, 3);
  if (!number.formula.empty()) text += "; " + number.formula;
  if (!number.scope.empty()) text += "; " + number.scope;
  return text;
}

std::string html_cell(const Document& document, const Cell& cell, bool numeric, bool first) {
  const std::string tag = first ? "th scope=\"row\"" : "td";
  const std::string text = cell_text(document, cell);
  std::string classes = cell.number || numeric ? "number" : "";
  if (cell.best) classes += " best";
  if (cell.warning) classes += " warning";
  if (text.size() > 40) classes += " long";
  std::string out = "<" + tag + (classes.empty() ? "" : " class=\"" + classes + "\"");
  if (cell.number) {
    const auto& number = document.ledger[*cell.number];
    if (std::isfinite(number.value)) out += " data-value=\"" + exact(number.value) + "\"";
    out += " data-id=\"" + std::to_string(*cell.number) + "\" title=\"" + escaped(origin(number)) +
           "\"";
  }
  return out + ">" + escaped(text) + (first ? "</th>" : "</td>");
}

std::string command_cell(const std::string& command) {
  return "<td><details><summary>command</summary><code>" + escaped(command) +
         "</code><button class=\"copy\" type=\"button\">copy</button></details></td>";
}

std::string column_meanings(const ReportTable& table) {
  std::string list;
  for (const auto& column : table.columns) {
    if (!column.formula.empty())
      list += "<dt>" + escaped(column.title) + "</dt><dd>" + escaped(column.formula) + "</dd>\n";
  }
  if (list.empty()) return "";
  return "<details><summary>What the columns mean</summary><dl>\n" + list + "</dl></details>\n";
}

std::string html_table(const Document& document, const ReportTable& table) {
  const bool commands = !table.commands.empty();
  std::string out = table.wide_only
                        ? "<details class=\"fold\"><summary id=\"table-" + table.id + "\">"
                        : "<h3 id=\"table-" + table.id + "\">";
  out += escaped(table.title) + (table.wide_only ? "</summary>\n" : "</h3>\n");
  out += "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"" +
         escaped(table.title) + "\"><table class=\"sortable\" aria-labelledby=\"table-" + table.id +
         "\" data-table=\"" + table.id + "\"><thead><tr>";
  for (const auto& column : table.columns)
    out += "<th scope=\"col\" aria-sort=\"none\"><button type=\"button\">" + escaped(column.title) +
           "</button></th>";
  if (commands)
    out += "<th scope=\"col\" aria-sort=\"none\"><button type=\"button\">rerun</button></th>";
  out += "</tr></thead>\n<tbody>\n";
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    out += "<tr>";
    for (std::size_t c = 0; c < table.rows[r].size(); ++c)
      out += html_cell(document, table.rows[r][c], table.columns[c].numeric, c == 0);
    if (commands) out += command_cell(table.commands[r]);
    out += "</tr>\n";
  }
  out += "</tbody></table></div>\n";
  if (!table.note.empty()) out += "<p class=\"note\">" + escaped(table.note) + "</p>\n";
  return out + column_meanings(table) + (table.wide_only ? "</details>\n" : "");
}

json series_json(const Document& document, const Series& series) {
  json out = {{"name", series.name},     {"group", series.group}, {"style", series.style},
              {"hidden", series.hidden}, {"x", series.x},         {"labels", series.labels},
              {"y", json::array()},      {"lo", json::array()},   {"hi", json::array()},
              {"n", json::array()},      {"ids", series.y},       {"x_ids", series.x_ids}};
  for (const auto id : series.y) {
    const auto& number = document.ledger[id];
    out["y"].push_back(number_or_null(number.value));
    out["lo"].push_back(number_or_null(number.lo));
    out["hi"].push_back(number_or_null(number.hi));
    out["n"].push_back(number.n);
  }
  return out;
}

json panel_json(const Document& document, const HeatPanel& panel) {
  json out = {{"name", panel.name},
              {"rows", panel.rows},
              {"columns", panel.columns},
              {"z", json::array()},
              {"ids", json::array()}};
  for (std::size_t r = 0; r < panel.rows.size(); ++r) {
    json z = json::array();
    json ids = json::array();
    for (std::size_t c = 0; c < panel.columns.size(); ++c) {
      const auto& id = panel.cells[r * panel.columns.size() + c];
      z.push_back(id ? number_or_null(document.ledger[*id].value) : json());
      ids.push_back(id ? json(*id) : json());
    }
    out["z"].push_back(z);
    out["ids"].push_back(ids);
  }
  return out;
}

const char* kind_name(FigureKind kind) {
  switch (kind) {
    case FigureKind::scatter:
      return "scatter";
    case FigureKind::stacked_bars:
      return "stacked_bars";
    case FigureKind::heat:
      return "heat";
    case FigureKind::lines:
      break;
  }
  return "lines";
}

std::string html_figure(const Document& document, const Figure& figure) {
  json data = {{"id", figure.id},           {"kind", kind_name(figure.kind)},
               {"x_title", figure.x_title}, {"y_title", figure.y_title},
               {"log_x", figure.log_x},     {"log_y", figure.log_y},
               {"series", json::array()},   {"panels", json::array()}};
  for (const auto& series : figure.series) data["series"].push_back(series_json(document, series));
  for (const auto& panel : figure.panels) data["panels"].push_back(panel_json(document, panel));
  std::string out =
      "<h3 id=\"figure-" + figure.id + "\">" + escaped(figure.title) + "</h3>\n<figure>\n";
  if (figure.panels.size() > 1) {
    out += "<div class=\"controls\"><label>Arm <select>";
    for (const auto& panel : figure.panels) out += "<option>" + escaped(panel.name) + "</option>";
    out += "</select></label></div>\n";
  }
  out += "<div class=\"chart\" role=\"img\" aria-label=\"" +
         escaped(figure.title + ". " + figure.caption) +
         " The numbers follow as a table.\"></div>\n" + json_script(data);
  out += "<figcaption>" + escaped(figure.caption) + "</figcaption>\n";
  return out +
         "<details class=\"data\"><summary>Numbers of this chart</summary><div class=\"scroll\" "
         "tabindex=\"0\" role=\"region\" aria-label=\"Numbers of this "
         "chart\"></div></details>\n</figure>\n";
}

std::string html_masks(const Pictures& pictures) {
  return "<div class=\"mask-block\"><div class=\"controls\"><label>Head <select "
         "class=\"head\"></select>"
         "</label><label><input type=\"checkbox\"> all arms</label><span class=\"key\">"
         "<i style=\"background:#1f61aa\"></i>kept by score<i "
         "style=\"background:#de8421\"></i>forced"
         "<i style=\"background:#f4f4f4\"></i>left out</span></div>\n<div "
         "class=\"masks\"></div>\n" +
         json_script(pictures.data) + "</div>\n<p class=\"note\">" + escaped(pictures.description) +
         "</p>\n";
}

std::string image(const std::string& classes, const std::string& png, const std::string& alt) {
  return "<img" + (classes.empty() ? "" : " class=\"" + classes + "\"") +
         " loading=\"lazy\" alt=\"" + escaped(alt) + "\" src=\"data:image/png;base64," + png +
         "\">\n";
}

std::string html_strip(const json& strip) {
  const auto arm = strip["arm"].get<std::string>();
  const auto& worst = strip["worst"];
  const std::string place = "frame " + worst["frame"].dump() + ", rows from " + worst["y"].dump() +
                            ", columns from " + worst["x"].dump();
  std::string numbers;
  for (const auto& frame : strip["frames"]) numbers += (numbers.empty() ? "" : ", ") + frame.dump();
  std::string out = "<h3>" + escaped(arm) + "</h3>\n<div class=\"strip\">\n";
  out += image("sheet", strip["sheet"].get<std::string>(),
               arm + ": frames " + numbers + "; rows dense, arm, difference times 8");
  out += "<p>Columns: frames " + numbers + ". Rows: dense, " + escaped(arm) +
         ", |difference| x 8. Worst 32 x 32 crop: " + place + ", root mean square error " +
         format_number(worst["rmse"].get<double>(), 3) + " of 255.</p>\n<div class=\"crops\">";
  const char* names[] = {"dense", "arm", "difference times 8"};
  for (std::size_t i = 0; i < 3; ++i)
    out += image("", strip["crops"][i].get<std::string>(), std::string(names[i]) + ", worst crop");
  json flip = json::array();
  for (std::size_t i = 0; i < 2; ++i) {
    flip.push_back({{"name", (i == 0 ? "dense" : arm) + ", frame " + worst["frame"].dump()},
                    {"src", "data:image/png;base64," + strip["flip"][i].get<std::string>()}});
  }
  return out +
         "</div>\n<details><summary>Flip-book of the worst frame</summary><div class=\"flip-book\">"
         "<img class=\"flip\" alt=\"\"><div class=\"controls\"><button class=\"plain step\" "
         "type=\"button\">next</button><button class=\"plain play\" type=\"button\" "
         "aria-pressed=\"false\">flip</button><span class=\"which\" "
         "aria-live=\"polite\"></span></div>" +
         json_script(flip) + "</div></details>\n</div>\n";
}

std::string html_block(const Document& document, const Block& block) {
  if (const auto* paragraph = std::get_if<Paragraph>(&block)) {
    const char* classes = paragraph->warning   ? " class=\"warning\" role=\"alert\""
                          : paragraph->verdict ? " class=\"verdict\""
                                               : "";
    return "<p" + std::string(classes) + ">" + (paragraph->warning ? "Warning: " : "") +
           escaped(paragraph->text) + "</p>\n";
  }
  if (const auto* table = std::get_if<ReportTable>(&block)) return html_table(document, *table);
  if (const auto* figure = std::get_if<Figure>(&block)) return html_figure(document, *figure);
  const auto& pictures = std::get<Pictures>(block);
  if (pictures.kind == "masks") return html_masks(pictures);
  std::string out;
  for (const auto& strip : pictures.data) out += html_strip(strip);
  return out + "<p class=\"note\">" + escaped(pictures.description) + "</p>\n";
}

std::string head_of(const Document& document) {
  // The page may load nothing: what it shows is in it.
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src "
         "'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:\">\n<title>" +
         escaped(document.title) + ": raingauge</title>\n<style>\n" + std::string(report_css()) +
         "</style>\n</head>\n<body>\n";
}

}  // namespace

std::string write_html(const Document& document) {
  if (plotly_js().empty()) {
    throw Unsupported(
        "report: format 'html' needs plotly.min.js, which this build does not have; `make build` "
        "with a network fetches it");
  }
  std::string out = head_of(document);
  out +=
      "<a class=\"skip\" href=\"#verdict\">Skip to the verdict</a>\n<header class=\"page\"><h1>" +
      escaped(document.title) + "</h1>\n<p class=\"soft\">" + escaped(document.subtitle) +
      "</p>\n<p><code>" + escaped(document.reproduce) +
      "</code> <button class=\"copy\" type=\"button\">copy</button></p>\n"
      "<button class=\"plain\" id=\"theme\" type=\"button\">dark / light</button>\n"
      "<nav aria-label=\"Sections\"><ul>\n";
  for (const auto& section : document.sections)
    out += "<li><a href=\"#" + section.id + "\">" + escaped(section.title) + "</a></li>\n";
  out += "</ul></nav></header>\n<main>\n";
  for (const auto& section : document.sections) {
    out += "<section aria-labelledby=\"" + section.id + "\">\n<h2 id=\"" + section.id + "\">" +
           escaped(section.title) + "</h2>\n";
    for (const auto& block : section.blocks) out += html_block(document, block);
    out += "</section>\n";
  }
  out += "</main>\n<script>" + std::string(plotly_js()) + "</script>\n<script>\n" +
         std::string(report_js()) + "</script>\n</body>\n</html>\n";
  return out;
}

}  // namespace raingauge
