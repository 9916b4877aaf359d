// SPDX-License-Identifier: Apache-2.0
// A Python child process that answers one JSON object a line, and memory that both sides map.
#pragma once

#include <sys/types.h>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

namespace raingauge::peers {

// A file without a name (memfd) that grows; the child inherits it.
class SharedFile {
 public:
  SharedFile();
  ~SharedFile();
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  int descriptor() const { return file_; }
  std::size_t bytes() const { return bytes_; }
  // At least `bytes` bytes, all mapped. Earlier pointers become invalid. Throws Error.
  std::byte* reserve(std::size_t bytes);
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  int file_ = -1;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// python3 (or $RAINGAUGE_PYTHON) running runner.py for one peer file. What it prints is kept, and
// ends up in the message of an error.
class Process {
 public:
  // `inputs` and `plan` become descriptors 4 and 5 of the child. Throws Unsupported when no Python
  // can be started.
  Process(const std::string& label, const SharedFile& inputs, const SharedFile& plan);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Sends one request and waits for its answer. Throws Error when the child dies, answers nonsense,
  // or does not answer within `seconds`; the process is gone then (alive() is false). An answer with
  // "ok": false is thrown as Unsupported or Error, as its "outcome" says; the process lives on.
  nlohmann::json request(const nlohmann::json& message, double seconds);
  bool alive() const { return child_ > 0; }

 private:
  void spawn(const SharedFile& inputs, const SharedFile& plan);
  void send_line(const std::string& line);
  std::string receive_line(double seconds);
  [[noreturn]] void fail(const std::string& what);
  std::string end();         // kills and reaps; "exited with status 3", "died of signal 11 (…)"
  std::string last_words();  // the end of what it printed

  std::string label_;
  std::string buffer_;
  int socket_ = -1;
  int log_ = -1;
  pid_t child_ = -1;
};

}  // namespace raingauge::peers
