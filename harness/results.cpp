// SPDX-License-Identifier: Apache-2.0
#include "harness/results.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "data/sha256.h"
#include "harness/row_stream.h"

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

// A row of a cell of `rows` rows, as it stands in the file.
std::string line_of(const json& row, std::size_t rows) {
  std::string text = dumped(row);
  text.pop_back();
  return text + (row.size() == 0 ? "" : ",") + "\"cell_rows\":" + std::to_string(rows) + "}\n";
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
    std::size_t good_bytes = 0;
    for_each_cell(file, [&](const std::vector<json>& cell, std::size_t end) {
      const std::string name = cell.front().at("cell").get<std::string>();
      if (!stream.cells.insert(name).second)
        throw Error(file.string() + ": cell " + name + " is there twice; start over with --fresh");
      good_bytes = end;
    });
    if (good_bytes != fs::file_size(file)) fs::resize_file(file, good_bytes);
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
  // Rows of one cell stand together, whatever order they came in: a cut then leaves one cell open. Cells
  // stand in the order of their first rows.
  std::vector<std::pair<std::string, std::vector<const json*>>> cells;
  for (const auto& row : rows) {
    const std::string cell = cell_of(row, file.string());
    auto found = std::find_if(cells.rbegin(), cells.rend(),
                              [&](const auto& known) { return known.first == cell; });
    if (found == cells.rend()) {
      cells.emplace_back(cell, std::vector<const json*>());
      found = cells.rbegin();
    }
    found->second.push_back(&row);
  }
  std::string lines;
  for (const auto& [cell, members] : cells) {
    if (stream.cells.count(cell) != 0)
      throw Error(file.string() + ": cell " + cell + " is already there");
    for (const json* member : members) lines += line_of(*member, members.size());
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
  for_each_cell(file, [&](const std::vector<json>& cell, std::size_t) {
    for (const auto& row : cell) use(row);
  });
}

std::vector<json> load_rows(const fs::path& folder, std::string_view stream) {
  std::vector<json> rows;
  for_each_row(folder, stream, [&](const json& row) { rows.push_back(row); });
  return rows;
}

}  // namespace raingauge
