// SPDX-License-Identifier: Apache-2.0
#include "methods/kernels/peers/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "data/error.h"
#include "methods/kernels/peers/runner_text.h"  // made by CMake from the Python files

extern char** environ;

namespace raingauge::peers {
namespace {

using Clock = std::chrono::steady_clock;

std::string system_error() { return std::strerror(errno); }

int anonymous_file(const char* name) {
  const int file = ::memfd_create(name, MFD_CLOEXEC);
  if (file < 0) throw Error("peer: cannot create shared memory: " + system_error());
  return file;
}

// A text of the program as a file that the interpreter can open.
int text_file(std::string_view text) {
  const int file = anonymous_file("raingauge-runner");
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::write(file, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const std::string reason = system_error();
      ::close(file);
      throw Error("peer: cannot write the runner: " + reason);
    }
    done += static_cast<std::size_t>(count);
  }
  return file;
}

std::string ending_of(int status) {
  if (WIFSIGNALED(status)) {
    return "died of signal " + std::to_string(WTERMSIG(status)) + " (" +
           ::strsignal(WTERMSIG(status)) + ")";
  }
  return "ended with status " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : status);
}

}  // namespace

SharedFile::SharedFile() : file_(anonymous_file("raingauge-peer")) {}

SharedFile::~SharedFile() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
  ::close(file_);
}

std::byte* SharedFile::reserve(std::size_t bytes) {
  if (bytes <= bytes_) return data();
  if (data_ != nullptr) ::munmap(data_, bytes_);
  data_ = nullptr;
  bytes_ = 0;
  if (::ftruncate(file_, static_cast<off_t>(bytes)) != 0) {
    throw Error("peer: cannot reserve " + std::to_string(bytes) +
                " bytes of shared memory: " + system_error());
  }
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (mapped == MAP_FAILED) {
    throw Error("peer: cannot map " + std::to_string(bytes) +
                " bytes of shared memory: " + system_error());
  }
  data_ = mapped;
  bytes_ = bytes;
  return data();
}

Process::Process(const std::string& label, const SharedFile& inputs, const SharedFile& plan)
    : label_(label) {
  log_ = anonymous_file("raingauge-peer-log");
  try {
    spawn(inputs, plan);
  } catch (...) {
    ::close(log_);
    throw;
  }
}

Process::~Process() {
  if (alive()) end();
  if (socket_ >= 0) ::close(socket_);
  ::close(log_);
}

// Descriptors of the child: 1 and 2 the log, 3 the socket, 4 inputs, 5 plan, from 6 on the texts of
// runner.py, plan.py and tensors.py. They are copied up first, so that none is overwritten before it has reached its place.
void Process::spawn(const SharedFile& inputs, const SharedFile& plan) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw Error(label_ + ": cannot make a socket: " + system_error());
  }
  socket_ = ends[0];
  const std::array<int, 3> texts = {text_file(kRunnerText), text_file(kPlanText),
                                    text_file(kTensorsText)};
  const std::array<int, 7> sources = {
      log_, ends[1], inputs.descriptor(), plan.descriptor(), texts[0], texts[1], texts[2]};
  constexpr int kCount = static_cast<int>(sources.size());
  constexpr int kHigh = 100;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int i = 0; i < kCount; ++i) {
    posix_spawn_file_actions_adddup2(&actions, sources[static_cast<std::size_t>(i)], kHigh + i);
  }
  posix_spawn_file_actions_adddup2(&actions, kHigh, 1);
  for (int i = 0; i < kCount; ++i) posix_spawn_file_actions_adddup2(&actions, kHigh + i, 2 + i);
  for (int i = 0; i < kCount; ++i) posix_spawn_file_actions_addclose(&actions, kHigh + i);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigfillset(&defaults);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);

  const char* chosen = std::getenv("RAINGAUGE_PYTHON");
  const std::string python = chosen == nullptr || *chosen == '\0' ? "python3" : chosen;
  std::array<std::string, 4> words = {python, "-B", "-u", "/dev/fd/6"};
  std::array<char*, 5> arguments{};
  for (std::size_t i = 0; i < words.size(); ++i) arguments[i] = words[i].data();
  const int failure =
      ::posix_spawnp(&child_, python.c_str(), &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  for (const int text : texts) ::close(text);
  if (failure != 0) {
    child_ = -1;
    ::close(std::exchange(socket_, -1));
    throw Unsupported(label_ + ": cannot start `" + python + "`: " + std::strerror(failure) +
                      "; RAINGAUGE_PYTHON names another interpreter");
  }
}

void Process::send_line(const std::string& line) {
  std::size_t done = 0;
  while (done < line.size()) {
    const ssize_t count = ::send(socket_, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("the child process " + end());
    done += static_cast<std::size_t>(count);
  }
}

std::string Process::receive_line(double seconds) {
  const auto limit = Clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    const auto newline = buffer_.find('\n');
    if (newline != std::string::npos) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      return line;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(limit - Clock::now()).count();
    if (left <= 0) {
      end();
      char text[32];
      std::snprintf(text, sizeof text, "%g", seconds);
      fail("no answer within " + std::string(text) + " s; the child process was ended");
    }
    pollfd ready{socket_, POLLIN, 0};
    const int found = ::poll(&ready, 1, static_cast<int>(std::min<long>(left, 1000)));
    if (found <= 0) continue;
    std::array<char, 65536> chunk{};
    const ssize_t count = ::recv(socket_, chunk.data(), chunk.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("the child process " + end());
    buffer_.append(chunk.data(), static_cast<std::size_t>(count));
  }
}

nlohmann::json Process::request(const nlohmann::json& message, double seconds) {
  if (!alive()) throw Error(label_ + ": the child process is gone");
  send_line(message.dump() + "\n");
  const std::string line = receive_line(seconds);
  const nlohmann::json answer = nlohmann::json::parse(line, nullptr, false);
  if (!answer.is_object() || !answer.contains("ok")) {
    end();
    fail("answered `" + line.substr(0, 200) + "`, not a JSON object with `ok`");
  }
  if (answer["ok"] == true) return answer;
  const std::string reason = label_ + ": " + answer.value("reason", std::string("no reason given"));
  if (answer.value("outcome", std::string()) == "unsupported") throw Unsupported(reason);
  throw Error(reason);
}

// The socket's end makes a waiting child leave; one that is busy is killed.
std::string Process::end() {
  if (!alive()) return "is gone";
  ::shutdown(socket_, SHUT_RDWR);
  int status = 0;
  pid_t waited = 0;
  const auto limit = Clock::now() + std::chrono::seconds(2);
  while ((waited = ::waitpid(child_, &status, WNOHANG)) == 0 && Clock::now() < limit) {
    ::poll(nullptr, 0, 10);
  }
  if (waited == 0) {
    ::kill(child_, SIGKILL);
    do {
      waited = ::waitpid(child_, &status, 0);
    } while (waited < 0 && errno == EINTR);
  }
  child_ = -1;
  return waited > 0 ? ending_of(status) : "is gone";
}

std::string Process::last_words() {
  constexpr off_t kMost = 600;
  const off_t size = ::lseek(log_, 0, SEEK_END);
  std::string text(static_cast<std::size_t>(std::clamp<off_t>(size, 0, kMost)), '\0');
  const ssize_t count =
      ::pread(log_, text.data(), text.size(), size - static_cast<off_t>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

void Process::fail(const std::string& what) {
  const std::string words = last_words();
  throw Error(label_ + ": " + what + (words.empty() ? "" : "; it last printed: " + words));
}

}  // namespace raingauge::peers
