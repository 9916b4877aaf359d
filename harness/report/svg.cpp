// SPDX-License-Identifier: Apache-2.0
// Figures as static SVG, for papers: the same series as the page draws, without its interaction.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

#include "harness/report/document.h"
#include "harness/table.h"

namespace raingauge {
namespace {

constexpr double kWidth = 760, kHeight = 460, kLeft = 80, kRight = 230, kTop = 20, kBottom = 60;
constexpr std::array<const char*, 10> kColours = {"#1f77b4", "#e67e22", "#2ca02c", "#d62728",
                                                  "#9467bd", "#17a2b8", "#bc5090", "#8c6d31",
                                                  "#5f7f95", "#b5a800"};

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2f", value);
  return text.data();
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

std::string label(double x, double y, const std::string& text, const char* extra = "") {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" " + extra + ">" + escaped(text) +
         "</text>\n";
}

// A linear or logarithmic scale onto pixels.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double at(double value) const {
    const double v = log ? std::log10(value) : value;
    return from + (v - low) / (high - low) * (to - from);
  }
  std::vector<double> ticks() const {
    std::vector<double> out;
    for (int i = 0; i <= 4; ++i) {
      const double v = low + (high - low) * i / 4.0;
      out.push_back(log ? std::pow(10.0, v) : v);
    }
    return out;
  }
};

Axis axis_of(std::vector<double> values, bool log, double from, double to) {
  Axis axis{0, 1, from, to, log};
  std::erase_if(values, [&](double v) { return !std::isfinite(v) || (log && v <= 0.0); });
  if (values.empty()) return axis;
  for (auto& v : values) v = log ? std::log10(v) : v;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double pad = std::max(1e-9, 0.05 * (*high - *low));
  axis.low = *low - pad;
  axis.high = *high + pad;
  return axis;
}

std::string frame(const Figure& figure, const Axis& x, const Axis& y, bool x_ticks) {
  std::string out;
  for (const double tick : y.ticks()) {
    out += "<line x1=\"" + number(kLeft) + "\" x2=\"" + number(kWidth - kRight) + "\" y1=\"" +
           number(y.at(tick)) + "\" y2=\"" + number(y.at(tick)) + "\" stroke=\"#ddd\"/>\n";
    out += label(kLeft - 6, y.at(tick) + 4, format_number(tick, 3), "text-anchor=\"end\"");
  }
  for (const double tick : x.ticks()) {
    if (x_ticks)
      out += label(x.at(tick), kHeight - kBottom + 16, format_number(tick, 3),
                   "text-anchor=\"middle\"");
  }
  out +=
      label((kLeft + kWidth - kRight) / 2, kHeight - 12, figure.x_title, "text-anchor=\"middle\"");
  const std::string middle = number((kTop + kHeight - kBottom) / 2);
  return out + "<text x=\"16\" y=\"" + middle +
         "\" text-anchor=\"middle\" transform=\"rotate(-90 16 " + middle + ")\">" +
         escaped(figure.y_title) + "</text>\n";
}

std::string legend(std::size_t line, const std::string& name, const std::string& colour) {
  const double y = kTop + 12 + 15 * static_cast<double>(line);
  if (y > kHeight - 20) return "";
  return "<rect x=\"" + number(kWidth - kRight + 14) + "\" y=\"" + number(y - 8) +
         "\" width=\"10\" height=\"8\" fill=\"" + colour + "\"/>\n" +
         label(kWidth - kRight + 30, y, clip_to_width(name, 34));
}

std::string points(const Document& document, const Figure& figure) {
  std::vector<double> xs;
  std::vector<double> ys;
  for (const auto& series : figure.series) {
    if (series.hidden) continue;
    xs.insert(xs.end(), series.x.begin(), series.x.end());
    for (const auto id : series.y) {
      const auto& n = document.ledger[id];
      for (const double v : {n.value, n.lo, n.hi}) ys.push_back(v);
    }
  }
  const Axis x = axis_of(xs, figure.log_x, kLeft, kWidth - kRight);
  const Axis y = axis_of(ys, figure.log_y, kHeight - kBottom, kTop);
  std::string out = frame(figure, x, y, true);
  std::map<std::string, std::size_t> groups;
  std::size_t line = 0;
  for (const auto& series : figure.series) {
    if (series.hidden) continue;
    const auto group = groups.emplace(series.group, groups.size()).first->second;
    const std::string colour = kColours[group % kColours.size()];
    std::string path;
    for (std::size_t i = 0; i < series.y.size(); ++i) {
      const auto& n = document.ledger[series.y[i]];
      if (!std::isfinite(n.value) || (figure.log_y && n.value <= 0.0)) continue;
      const std::string px = number(x.at(series.x[i]));
      path += (path.empty() ? "" : " ") + px + "," + number(y.at(n.value));
      out += "<circle cx=\"" + px + "\" cy=\"" + number(y.at(n.value)) + "\" r=\"3\" fill=\"" +
             colour + "\"/>\n";
      if (std::isfinite(n.lo) && std::isfinite(n.hi) && (!figure.log_y || n.lo > 0.0)) {
        out += "<line x1=\"" + px + "\" x2=\"" + px + "\" y1=\"" + number(y.at(n.lo)) + "\" y2=\"" +
               number(y.at(n.hi)) + "\" stroke=\"" + colour + "\"/>\n";
      }
    }
    const char* dash = series.style == "dash" ? "6 4" : series.style == "dot" ? "2 3" : "none";
    out += "<polyline points=\"" + path + "\" fill=\"none\" stroke=\"" + colour +
           "\" stroke-width=\"1.6\" stroke-dasharray=\"" + dash + "\"/>\n";
    out += legend(line++, series.name, colour);
  }
  return out;
}

std::string bars(const Document& document, const Figure& figure) {
  std::vector<std::string> names;
  std::map<std::string, double> tops;
  for (const auto& series : figure.series) {
    for (std::size_t i = 0; i < series.y.size(); ++i) {
      if (!tops.contains(series.labels[i])) names.push_back(series.labels[i]);
      tops[series.labels[i]] += document.ledger[series.y[i]].value;
    }
  }
  double top = 0.0;
  for (const auto& [name, value] : tops) top = std::max(top, value);
  const Axis x{0, std::max(1.0, static_cast<double>(names.size())), kLeft, kWidth - kRight, false};
  const Axis y{0, top > 0 ? 1.05 * top : 1.0, kHeight - kBottom, kTop, false};
  std::string out = frame(figure, x, y, false);
  std::map<std::string, double> base;
  for (std::size_t s = 0; s < figure.series.size(); ++s) {
    const auto& series = figure.series[s];
    for (std::size_t i = 0; i < series.y.size(); ++i) {
      const auto place = static_cast<double>(
          std::find(names.begin(), names.end(), series.labels[i]) - names.begin());
      const double value = document.ledger[series.y[i]].value;
      double& low = base[series.labels[i]];
      out += "<rect x=\"" + number(x.at(place + 0.15)) + "\" width=\"" +
             number(x.at(0.7) - x.at(0)) + "\" y=\"" + number(y.at(low + value)) + "\" height=\"" +
             number(y.at(low) - y.at(low + value)) + "\" fill=\"" + kColours[s % kColours.size()] +
             "\"><title>" + escaped(series.labels[i]) + "</title></rect>\n";
      low += value;
    }
    out += legend(s, series.name, kColours[s % kColours.size()]);
  }
  return out;
}

std::string heat(const Document& document, const Figure& figure) {
  const auto& panel = figure.panels.front();
  double low = 1e300;
  double high = -1e300;
  for (const auto& id : panel.cells) {
    if (!id) continue;
    low = std::min(low, document.ledger[*id].value);
    high = std::max(high, document.ledger[*id].value);
  }
  const double w = (kWidth - kLeft - 20) / static_cast<double>(panel.columns.size());
  const double h = (kHeight - kTop - kBottom) / static_cast<double>(panel.rows.size());
  std::string out;
  for (std::size_t r = 0; r < panel.rows.size(); ++r) {
    const double y = kTop + h * static_cast<double>(r);
    out += label(kLeft - 6, y + h / 2, panel.rows[r], "text-anchor=\"end\"");
    for (std::size_t c = 0; c < panel.columns.size(); ++c) {
      const auto& id = panel.cells[r * panel.columns.size() + c];
      if (!id) continue;
      const double share = (document.ledger[*id].value - low) / std::max(1e-12, high - low);
      out += "<rect x=\"" + number(kLeft + w * static_cast<double>(c)) + "\" y=\"" + number(y) +
             "\" width=\"" + number(w) + "\" height=\"" + number(h) + "\" fill=\"hsl(220 70% " +
             number(92 - 67 * share) + "%)\"><title>" +
             escaped(panel.rows[r] + ", " + panel.columns[c]) + ": " +
             format_number(document.ledger[*id].value, 4) + "</title></rect>\n";
    }
  }
  return out + label(kLeft, kHeight - 12,
                     panel.name + ", " + figure.x_title + "; light " + format_number(low, 3) +
                         ", dark " + format_number(high, 3));
}

}  // namespace

std::string write_svg(const Document& document, const Figure& figure) {
  std::string body;
  if (figure.kind == FigureKind::heat)
    body = figure.panels.empty() ? "" : heat(document, figure);
  else
    body =
        figure.kind == FigureKind::stacked_bars ? bars(document, figure) : points(document, figure);
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(kWidth) + " " +
         number(kHeight) + "\" font-family=\"sans-serif\" font-size=\"11\" role=\"img\">\n<title>" +
         escaped(figure.title) +
         "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n" + body + "</svg>\n";
}

}  // namespace raingauge
