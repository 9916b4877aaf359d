// SPDX-License-Identifier: Apache-2.0
// The folder of a run: append-only streams of rows, one JSON object a line, and which cells are
// done.
// A kill at any moment loses at most the cell in flight; two runs never write one folder.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "data/error.h"

namespace raingauge {

inline constexpr std::array<std::string_view, 4> kStreams = {"fidelity", "conformance", "latency",
                                                             "generate"};

// 16 hexadecimal digits over the content of `value` (keys sorted; NaN and infinity count as null).
std::string cell_hash(const nlohmann::json& value);

class RunFolder {
 public:
  // Creates the folder, or opens one of the same experiment and cuts off what a kill left
  // unfinished. Throws Error when the folder belongs to another experiment or to no run at all, when another
  // process writes it, or when a row is damaged. `fresh` first deletes the rows that are there.
  RunFolder(const std::filesystem::path& path, const std::string& experiment_hash,
            bool fresh = false);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool done(std::string_view stream, const std::string& cell) const;
  std::size_t cells(std::string_view stream) const;
  // Writes whole cells: every row has a `cell`, and all rows of a cell come in one call. Adds
  // `cell_rows`, by which a cell that a kill cut short is recognised. On disk when it returns.
  void append(std::string_view stream, const std::vector<nlohmann::json>& rows);

 private:
  struct Stream {
    int file = -1;
    std::unordered_set<std::string> cells;
  };
  void lock();
  void claim(const std::string& experiment_hash, bool fresh);
  void open_stream(std::size_t index);
  void close_all();

  std::filesystem::path path_;
  int lock_ = -1;
  std::array<Stream, kStreams.size()> streams_;
};

// All whole cells of a stream in the order written; empty when there is no such file. Never changes
// the folder, so a run may be going on.
std::vector<nlohmann::json> load_rows(const std::filesystem::path& folder, std::string_view stream);

// The same, a cell at a time: a long run's rows need not fit in memory.
void for_each_row(const std::filesystem::path& folder, std::string_view stream,
                  const std::function<void(const nlohmann::json&)>& use);

// Replaces a file in one step: readers see the old text or the new one.
void write_text_file(const std::filesystem::path& path, const std::string& text);

}  // namespace raingauge
