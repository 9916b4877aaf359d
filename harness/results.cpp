// SPDX-License-Identifier: Apache-2.0
#include "harness/results.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "data/sha256.h"

namespace raingauge {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kLockFile = ".lock";
constexpr const char* kHashFile = ".experiment";

std::string system_error() { return std::strerror(errno); }

std::string dumped(const json& value) {
  // Text from captures need not be UTF-8; NaN and infinity become null.
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::size_t stream_index(std::string_view stream) {
  const auto found = std::find(kStreams.begin(), kStreams.end(), stream);
  if (found != kStreams.end()) return static_cast<std::size_t>(found - kStreams.begin());
  throw Error("no stream '" + std::string(stream) +
              "'; there are fidelity, conformance, latency, generate");
}

fs::path stream_path(const fs::path& folder, std::string_view stream) {
  return folder / (std::string(stream) + ".jsonl");
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path.string() + ": cannot be read: " + system_error());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// All bytes or Error; `path` for the message.
void write_all(int file, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Error(path.string() + ": cannot be written: " + system_error());
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

struct Contents {
  std::vector<json> rows;
  std::size_t good_bytes = 0;  // what stays: whole lines of whole cells
};

std::string cell_of(const json& row, const std::string& where) {
  const auto cell = row.find("cell");
  if (cell == row.end() || !cell->is_string()) throw Error(where + ": a row without `cell`");
  return cell->get<std::string>();
}

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

// Reads whole lines, then drops the last cell when rows of it are missing: only a kill in the
// middle of the last write can cut a cell, so an incomplete one anywhere else is damage.
Contents read_stream(const fs::path& path) {
  const std::string text = read_text(path);
  Contents contents;
  std::vector<std::size_t> starts;
  std::map<std::string, std::size_t> missing;  // cell -> rows still to come
  int line = 1;
  for (std::size_t start = 0; start < text.size(); ++line) {
    const std::size_t end = text.find('\n', start);
    if (end == std::string::npos) break;  // torn
    const std::string where = path.string() + ":" + std::to_string(line);
    json row = parse_row(std::string_view(text).substr(start, end - start), where);
    const auto [open, is_new] = missing.emplace(cell_of(row, where), rows_of_cell(row, where));
    if (open->second == 0)
      throw Error(where + ": cell " + open->first + " has more rows than it says");
    --open->second;
    starts.push_back(start);
    contents.rows.push_back(std::move(row));
    start = end + 1;
    contents.good_bytes = start;
  }
  while (!contents.rows.empty()) {
    const std::string last = contents.rows.back().at("cell").get<std::string>();
    if (missing.at(last) == 0) break;
    contents.good_bytes = starts.back();
    starts.pop_back();
    contents.rows.pop_back();
  }
  for (const auto& row : contents.rows) {
    const std::string cell = row.at("cell").get<std::string>();
    if (missing.at(cell) != 0) {
      throw Error(path.string() + ": rows of cell " + cell +
                  " are missing; start over with --fresh");
    }
  }
  return contents;
}

void sync_folder(const fs::path& folder) {
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;  // some file systems cannot: the rename stands all the same
  ::fsync(file);
  ::close(file);
}

}  // namespace

std::string cell_hash(const json& value) {
  const std::string text = dumped(value);
  return sha256_hex(text.data(), text.size()).substr(0, 16);
}

void write_text_file(const fs::path& path, const std::string& text) {
  fs::path draft = path;
  draft += ".tmp";
  const int file = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) throw Error(draft.string() + ": cannot be created: " + system_error());
  try {
    write_all(file, text, draft);
    if (::fsync(file) != 0) throw Error(draft.string() + ": cannot be written: " + system_error());
  } catch (const Error&) {
    ::close(file);
    ::unlink(draft.c_str());
    throw;
  }
  ::close(file);
  std::error_code error;
  fs::rename(draft, path, error);
  if (error) throw Error(path.string() + ": cannot be replaced: " + error.message());
  sync_folder(path.parent_path().empty() ? fs::path(".") : path.parent_path());
}

RunFolder::RunFolder(const fs::path& path, const std::string& experiment_hash, bool fresh)
    : path_(path) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error || !fs::is_directory(path_)) {
    throw Error(path_.string() + ": cannot be created as a folder: " +
                (error ? error.message() : "there is a file of that name"));
  }
  try {
    lock();
    claim(experiment_hash, fresh);
    for (std::size_t index = 0; index < kStreams.size(); ++index) open_stream(index);
  } catch (...) {
    close_all();
    throw;
  }
}

RunFolder::~RunFolder() { close_all(); }

void RunFolder::close_all() {
  for (auto& stream : streams_) {
    if (stream.file >= 0) ::close(stream.file);
    stream.file = -1;
  }
  if (lock_ >= 0) ::close(lock_);  // releases the lock
  lock_ = -1;
}

void RunFolder::lock() {
  // A folder that holds something, but nothing of a run, stays untouched.
  const bool ours = fs::exists(path_ / kHashFile) || fs::exists(path_ / kLockFile);
  if (!ours && !fs::is_empty(path_)) {
    throw Error(path_.string() +
                ": the folder is not empty and holds no run; name another with --out");
  }
  const fs::path file = path_ / kLockFile;
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw Error(file.string() + ": cannot be created: " + system_error());
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw Error(file.string() + ": cannot be locked: " + system_error());
    std::string owner = read_text(file);
    owner.erase(std::remove(owner.begin(), owner.end(), '\n'), owner.end());
    throw Error(path_.string() + ": another run" +
                (owner.empty() ? "" : " (process " + owner + ")") +
                " is writing this folder; wait for it, or name another with --out");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(lock_, 0) != 0) throw Error(file.string() + ": " + system_error());
  write_all(lock_, pid, file);
}

void RunFolder::claim(const std::string& experiment_hash, bool fresh) {
  const fs::path file = path_ / kHashFile;
  if (fresh) {
    for (const auto stream : kStreams) fs::remove(stream_path(path_, stream));
    fs::remove(path_ / "manifest.json");
    fs::remove(path_ / "masks.json");
    fs::remove(file);
  }
  if (!fs::exists(file)) {
    write_text_file(file, experiment_hash + "\n");
    return;
  }
  std::string found = read_text(file);
  found.erase(std::remove(found.begin(), found.end(), '\n'), found.end());
  if (found != experiment_hash) {
    throw Error(path_.string() + ": holds rows of another experiment (" + found + ", this one is " +
                experiment_hash +
                "); name another folder with --out, or delete its rows with --fresh");
  }
}

void RunFolder::open_stream(std::size_t index) {
  const fs::path file = stream_path(path_, kStreams[index]);
  Stream& stream = streams_[index];
  if (fs::exists(file)) {
    const Contents contents = read_stream(file);
    for (const auto& row : contents.rows) stream.cells.insert(row.at("cell").get<std::string>());
    if (contents.good_bytes != fs::file_size(file)) fs::resize_file(file, contents.good_bytes);
  }
  stream.file = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (stream.file < 0) throw Error(file.string() + ": cannot be opened: " + system_error());
}

bool RunFolder::done(std::string_view stream, const std::string& cell) const {
  return streams_[stream_index(stream)].cells.count(cell) != 0;
}

std::size_t RunFolder::cells(std::string_view stream) const {
  return streams_[stream_index(stream)].cells.size();
}

void RunFolder::append(std::string_view name, const std::vector<json>& rows) {
  if (rows.empty()) return;
  Stream& stream = streams_[stream_index(name)];
  const fs::path file = stream_path(path_, name);
  // Rows of one cell stand together, whatever order they came in: a cut then leaves one cell open.
  std::map<std::string, std::vector<const json*>> cells;
  for (const auto& row : rows) cells[cell_of(row, file.string())].push_back(&row);
  std::string lines;
  for (const auto& [cell, members] : cells) {
    if (stream.cells.count(cell) != 0)
      throw Error(file.string() + ": cell " + cell + " is already there");
    for (const json* member : members) {
      json row = *member;
      row["cell_rows"] = members.size();
      lines += dumped(row) + "\n";
    }
  }
  const off_t before = ::lseek(stream.file, 0, SEEK_END);
  try {
    write_all(stream.file, lines, file);
    if (::fdatasync(stream.file) != 0)
      throw Error(file.string() + ": cannot be written: " + system_error());
  } catch (const Error&) {
    // A full disk: take back what was written, so that the next attempt starts on a whole line.
    if (before < 0 || ::ftruncate(stream.file, before) != 0) {
      throw Error(file.string() +
                  ": cannot be written, and its last rows are incomplete; the next run "
                  "cuts them off");
    }
    throw;
  }
  for (const auto& [cell, members] : cells) stream.cells.insert(cell);
}

void for_each_row(const fs::path& folder, std::string_view stream,
                  const std::function<void(const json&)>& use) {
  const fs::path file = folder / (std::string(kStreams[stream_index(stream)]) + ".jsonl");
  if (!fs::is_directory(folder)) throw Error(folder.string() + ": no such folder");
  if (!fs::exists(file)) return;
  std::ifstream lines(file, std::ios::binary);
  if (!lines) throw Error(file.string() + ": cannot be read: " + system_error());
  std::vector<json> cell;  // rows of one cell stand together
  std::size_t wanted = 0;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (lines.eof()) break;  // torn: the last line has no end
    const std::string where = file.string() + ":" + std::to_string(number);
    json row = parse_row(line, where);
    const std::string own = cell_of(row, where);
    if (!cell.empty() && cell.front().at("cell") != own) {
      throw Error(where + ": rows of cell " + cell.front().at("cell").get<std::string>() +
                  " are missing; start over with --fresh");
    }
    if (cell.empty()) wanted = rows_of_cell(row, where);
    cell.push_back(std::move(row));
    if (cell.size() < wanted) continue;
    for (const auto& whole : cell) use(whole);
    cell.clear();
  }
}

std::vector<json> load_rows(const fs::path& folder, std::string_view stream) {
  const fs::path file = stream_path(folder, kStreams[stream_index(stream)]);
  if (!fs::is_directory(folder)) throw Error(folder.string() + ": no such folder");
  return fs::exists(file) ? read_stream(file).rows : std::vector<json>{};
}

}  // namespace raingauge
