// SPDX-License-Identifier: Apache-2.0
#include "harness/row_stream.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <string_view>
#include <thread>
#include <utility>

#include "data/error.h"
#include "methods/kernels/threads.h"

namespace raingauge {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json parse_row(std::string_view line, const std::string& where) {
  json row = json::parse(line, nullptr, false);
  if (!row.is_object()) {
    throw Error(where +
                ": not a JSON object; the file was changed by something else. Remove the line, "
                "or start over with --fresh");
  }
  return row;
}

std::size_t rows_of_cell(const json& row, const std::string& where) {
  const auto count = row.find("cell_rows");
  if (count == row.end()) return 1;
  if (!count->is_number_unsigned())
    throw Error(where + ": `cell_rows` is " + count->dump() + ", expected a count");
  return count->get<std::size_t>();
}

constexpr std::size_t kLinesAtOnce = 8192;
constexpr std::size_t kLinesAThread = 256;

struct Line {
  std::string text;
  std::size_t end = 0;  // of the line in the file, bytes
  int number = 0;
};

// The next whole lines; one without an end is torn and ends the file.
std::vector<Line> next_lines(std::istream& file, std::size_t& bytes, int& number) {
  std::vector<Line> lines;
  for (std::string text; lines.size() < kLinesAtOnce && std::getline(file, text);) {
    if (file.eof()) break;
    bytes += text.size() + 1;
    lines.push_back({std::move(text), bytes, ++number});
  }
  return lines;
}

// Parses lines on several threads: a long run has gigabytes of them. Threads of its own, since a process
// that was forked off has no pool.
std::vector<json> parse_lines(const std::vector<Line>& lines, const std::string& file) {
  std::vector<json> rows(lines.size());
  std::vector<std::exception_ptr> failures(lines.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < lines.size(); i = next++) {
      try {
        rows[i] = parse_row(lines[i].text, file + ":" + std::to_string(lines[i].number));
      } catch (const Error&) {
        failures[i] = std::current_exception();
      }
    }
  };
  std::vector<std::thread> others;
  const std::size_t most = static_cast<std::size_t>(resolve_threads(0));
  while (others.size() + 1 < std::min(most, lines.size() / kLinesAThread))
    others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return rows;
}

}  // namespace

std::string cell_of(const json& row, const std::string& where) {
  const auto cell = row.find("cell");
  if (cell == row.end() || !cell->is_string()) throw Error(where + ": a row without `cell`");
  return cell->get<std::string>();
}

void for_each_cell(const fs::path& path,
                   const std::function<void(std::vector<json>& cell, std::size_t end)>& use) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path.string() + ": cannot be read: " + std::strerror(errno));
  std::vector<json> cell;
  std::string name;
  std::size_t wanted = 0;
  std::size_t bytes = 0;
  int number = 0;
  for (;;) {
    const std::vector<Line> lines = next_lines(file, bytes, number);
    if (lines.empty()) return;
    std::vector<json> rows = parse_lines(lines, path.string());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::string where = path.string() + ":" + std::to_string(lines[i].number);
      const std::string own = cell_of(rows[i], where);
      if (cell.empty() && own == name)
        throw Error(where + ": cell " + own + " has more rows than it says");
      if (!cell.empty() && own != name) {
        throw Error(path.string() + ": rows of cell " + name +
                    " are missing; start over with --fresh");
      }
      const std::size_t rows_of_it = rows_of_cell(rows[i], where);
      if (cell.empty()) wanted = rows_of_it;
      name = own;
      cell.push_back(std::move(rows[i]));
      if (cell.size() < wanted) continue;
      use(cell, lines[i].end);
      cell.clear();
    }
  }
}

}  // namespace raingauge
