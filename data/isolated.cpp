// SPDX-License-Identifier: Apache-2.0
// Runs a piece of work in a forked copy of this process.
#include "data/isolated.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <limits>
#include <new>

#include "data/error.h"

namespace raingauge {
namespace {

constexpr char kFinished = 'f';
constexpr char kThrew = 't';

bool is_copy = false;

void limit(__rlimit_resource_t resource, rlim_t value) {
  const rlimit wanted{value, value};
  ::setrlimit(resource, &wanted);
}

[[noreturn]] void run_child(const std::function<void()>& work, int cpu_seconds, int report) {
  is_copy = true;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU}) {
    std::signal(signal, SIG_DFL);
  }
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, static_cast<rlim_t>(cpu_seconds));
  const int null = ::open("/dev/null", O_WRONLY);
  if (null >= 0) {
    ::dup2(null, STDOUT_FILENO);
    ::dup2(null, STDERR_FILENO);
  }
  char outcome = kFinished;
  try {
    work();
  } catch (...) {
    outcome = kThrew;
  }
  const auto written = ::write(report, &outcome, 1);
  ::_exit(written == 1 ? 0 : 1);
}

// 0 when the copy died or was killed without a report. Waiting for a slow disk is no processor
// time, so the clock's limit is a wide one.
char read_report(int report, pid_t child, int cpu_seconds) {
  pollfd ready{report, POLLIN, 0};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60 + 20L * cpu_seconds);
  int count = 0;
  while (count <= 0 && std::chrono::steady_clock::now() < end) count = ::poll(&ready, 1, 1000);
  if (count <= 0) ::kill(child, SIGKILL);
  char outcome = 0;
  ssize_t got = 0;
  do {
    got = ::read(report, &outcome, 1);
  } while (got < 0 && errno == EINTR);
  return got == 1 ? outcome : '\0';
}

bool used_up_time(pid_t child) {
  int status = 0;
  pid_t waited = 0;
  do {
    waited = ::waitpid(child, &status, 0);
  } while (waited < 0 && errno == EINTR);
  if (waited != child || !WIFSIGNALED(status)) return false;
  return WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL;
}

}  // namespace

Trial try_isolated(const std::function<void()>& work, int cpu_seconds, bool required) {
  int ends[2] = {-1, -1};
  const bool piped = ::pipe2(ends, O_CLOEXEC) == 0;
  const pid_t child = piped ? ::fork() : -1;
  if (child == 0) run_child(work, cpu_seconds, ends[1]);
  const int failure = errno;
  if (piped) ::close(ends[1]);
  if (child < 0) {
    if (piped) ::close(ends[0]);
    if (!required) return Trial::finished;
    throw Error(std::string("cannot start a process to read a file in: ") + std::strerror(failure));
  }
  const char outcome = read_report(ends[0], child, cpu_seconds);
  ::close(ends[0]);
  const bool timed_out = used_up_time(child);
  if (outcome == kFinished) return Trial::finished;
  if (outcome == kThrew) return Trial::threw;
  return timed_out ? Trial::timed_out : Trial::crashed;
}

bool in_isolated_copy() { return is_copy; }

void check_trial(Trial trial, const std::string& path) {
  if (trial == Trial::finished || trial == Trial::threw) return;
  throw Error(path + ": is damaged: the HDF5 library " +
              (trial == Trial::crashed ? "crashes" : "does not come to an end") +
              " reading it; copy or record it again");
}

int metadata_seconds(std::int64_t bytes) {
  constexpr std::int64_t kBytesPerSecond = 1000000;  // of files that are nothing but metadata
  constexpr std::int64_t kLongest = 24 * 3600;
  return static_cast<int>(std::min(kLongest, 1 + bytes / kBytesPerSecond));
}

SharedBuffer::SharedBuffer(std::int64_t bytes) : size_(static_cast<std::size_t>(bytes)) {
  if (size_ == 0) return;
  data_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw std::bad_alloc();
  }
}

SharedBuffer::~SharedBuffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace raingauge
