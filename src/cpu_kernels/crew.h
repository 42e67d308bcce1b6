// The threads of one kernel call. They run the loops of the kernel and of oneDNN's primitives in parallel.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "onednn.h"
#include "vectors.h"

// Number of threads of a kernel: $FASTER_RCNN_NUM_THREADS, or else the number of processors that the calling thread may use, but
// at most the CPU quota of the process's cgroup. Throws std::runtime_error if the variable is not a number.
int thread_count();

// Returns when condition() becomes false. Waits are short, so sleeping would cost more than it saves; yielding lets other threads
// run on a busy machine.
template <class Condition>
void spin_while(const Condition& condition) {
  for (int spins = 0; condition(); ++spins) {
    if (spins > 2000) std::this_thread::yield();
  }
}

// A loop waits only for threads that have started a part of it. It does not wait for threads that the system has not scheduled
// since the loop began: with more threads than processors, that wait takes thousands of times as long as a short loop.
class Crew : public onednn::ThreadPool {
 public:
  // Calls work(crew) on the calling thread while the other threads wait for its loops. If the system cannot start all threads,
  // the started threads do all the work. An exception in a loop ends the loop, which rethrows it on the calling thread.
  template <class Work>
  static void run(const Work& work) {
    Crew crew;
    std::vector<std::thread> others;
    const int threads = thread_count();
    others.reserve(threads - 1);
    try {
      while (static_cast<int>(others.size()) < threads - 1) others.emplace_back([&] { crew.serve(); });
    } catch (const std::exception&) {
    }
    crew.guard([&] { work(crew); });
    crew.loop_.store(kOver, std::memory_order_release);
    for (std::thread& thread : others) thread.join();
    if (crew.error_) std::rethrow_exception(crew.error_);
  }

  // Calls body(0) .. body(count - 1), each on any free thread.
  template <class Body>
  void share(int64_t count, const Body& body) {
    parallel_for(static_cast<int>(count), [&](int i, int) { body(i); });
  }

  // Calls body(begin, end) for equal pieces of 0 .. count. The pieces do not depend on the number of threads.
  template <class Body>
  void share_range(int64_t count, int64_t piece, const Body& body) {
    share(ceil_div(count, piece), [&](int64_t i) { body(i * piece, std::min(count, (i + 1) * piece)); });
  }

  int get_num_threads() const override { return onednn::parts(); }
  bool get_in_parallel() const override { return inside(); }
  uint64_t get_flags() const override { return 0; }

  void parallel_for(int count, const std::function<void(int, int)>& body) override {
    if (inside() || count == 1) {
      for (int i = 0; i < count; ++i) body(i, count);
      return;
    }
    body_ = &body;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    const uint64_t loop = loop_.load(std::memory_order_relaxed) + 1;
    loop_.store(loop, std::memory_order_release);
    take();
    loop_.store(loop + 1);
    spin_while([&] { return busy_.load() != 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr uint64_t kOver = ~uint64_t{0};

  Crew() = default;

  static bool& inside() {
    static thread_local bool value = false;
    return value;
  }

  // Keeps the first exception and skips the rest of the work.
  template <class Work>
  void guard(const Work& work) {
    try {
      if (!failed_) work();
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  void serve() {
    for (uint64_t loop = 0;;) {
      spin_while([&] { return loop_.load(std::memory_order_acquire) == loop; });
      loop = loop_.load(std::memory_order_acquire);
      if (loop == kOver) return;
      if (loop % 2 == 0) continue;
      // Either the caller sees that this thread is busy, or this thread sees that the loop has ended.
      busy_.fetch_add(1);
      if (loop_.load() == loop) take();
      busy_.fetch_sub(1);
    }
  }

  void take() {
    inside() = true;
    for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) guard([&] { (*body_)(i, count_); });
    inside() = false;
  }

  const std::function<void(int, int)>* body_ = nullptr;
  int count_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<int> next_{0};
  alignas(64) std::atomic<int> busy_{0};
  alignas(64) std::atomic<uint64_t> loop_{0};  // odd while a loop runs
};
