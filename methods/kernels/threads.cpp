// SPDX-License-Identifier: Apache-2.0
// A pool that grows to the largest number of threads asked for and lives as long as the process. Waking a
// thread takes tens of microseconds, in a virtual machine more, and parallel_for calls often follow one
// another closely: whoever waits, looks for a moment before it sleeps.
#include "methods/kernels/threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace raingauge {
namespace {

constexpr int kMaxThreads = 1024;

using Work = std::function<void(std::int64_t, int)>;

thread_local bool inside_pool = false;

// Returns as soon as `done` holds, and in 100 microseconds at the latest. Lets other threads run meanwhile.
template <class Done>
void look_for_a_moment(const Done& done) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(100);
  while (!done() && Clock::now() < end) {
    std::this_thread::yield();
  }
}

// One parallel_for: the queue is a counter.
struct Job {
  const Work* work = nullptr;
  std::int64_t items = 0;
  int workers = 0;
  std::atomic<std::int64_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;
  std::int64_t failed_item = std::numeric_limits<std::int64_t>::max();

  void run(int worker) {
    for (;;) {
      const std::int64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) {
        return;
      }
      try {
        (*work)(item, worker);
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        if (item < failed_item) {
          failed_item = item;
          failure = std::current_exception();
        }
        next.store(items, std::memory_order_relaxed);
      }
    }
  }
};

class Pool {
 public:
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  void run(Job& job) {
    const std::lock_guard one_job_at_a_time(job_mutex_);
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<int>(threads_.size()) < job.workers - 1) {
        const int worker = static_cast<int>(threads_.size()) + 1;
        threads_.emplace_back([this, worker, seen = generation_.load()] { serve(worker, seen); });
      }
      job_ = &job;
      running_ = job.workers - 1;
      ++generation_;
    }
    start_.notify_all();
    inside_pool = true;
    job.run(0);
    inside_pool = false;
    look_for_a_moment([this] { return running_ == 0; });
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    job_ = nullptr;
  }

 private:
  // `seen` is the generation at the thread's creation: the job that made it start counts as new.
  void serve(int worker, std::uint64_t seen) {
    inside_pool = true;
    for (;;) {
      look_for_a_moment([&] { return stopping_ || generation_ != seen; });
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) {
        return;
      }
      seen = generation_;
      Job* job = job_;
      if (job == nullptr || worker >= job->workers) {
        continue;  // this job uses fewer threads, or is over already
      }
      lock.unlock();
      job->run(worker);
      lock.lock();
      if (--running_ == 0) {
        done_.notify_one();
      }
    }
  }

  std::mutex job_mutex_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  // Written under mutex_.
  std::atomic<int> running_ = 0;
  std::atomic<std::uint64_t> generation_ = 0;
  std::atomic<bool> stopping_ = false;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

int available_cpus() {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int resolve_threads(int threads) {
  return std::min(threads > 0 ? threads : available_cpus(), kMaxThreads);
}

void parallel_for(int threads, std::int64_t items, const Work& fn) {
  Job job;
  job.work = &fn;
  job.items = items;
  job.workers =
      static_cast<int>(std::min<std::int64_t>(inside_pool ? 1 : resolve_threads(threads), items));
  if (job.workers <= 1) {
    for (std::int64_t item = 0; item < items; ++item) {
      fn(item, 0);
    }
    return;
  }
  pool().run(job);
  if (job.failure) {
    std::rethrow_exception(job.failure);
  }
}

}  // namespace raingauge
