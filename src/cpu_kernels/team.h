// A team of threads that lives for one call: every member runs the same function and meets the others at barriers.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

// Processors the calling thread may run on: a job confined to one core must not start more threads than that.
inline int usable_processors() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const int n = static_cast<int>(std::thread::hardware_concurrency());
  return n > 0 ? n : 1;
}

// Returns when condition() no longer holds. Waits are short, so sleeping would cost more than it frees; yielding keeps a crowded
// machine moving.
template <class Condition>
void spin_while(const Condition& condition) {
  for (int spins = 0; condition(); ++spins) {
    if (spins > 2000) std::this_thread::yield();
  }
}

class Team {
 public:
  // Runs member(team, index) on `size` threads, the calling one included, and returns when all have finished. A member
  // must not throw: what it needs is allocated before. Where fewer threads can be started, these do all the work.
  template <class Member>
  static void run(int size, const Member& member) {
    Team team(size);
    std::vector<std::thread> others;
    others.reserve(size - 1);
    try {
      for (int i = 1; i < size; ++i) others.emplace_back([&, i] { member(team, i); });
    } catch (const std::exception&) {
      // Nobody passes a barrier before this thread comes there, and the last to come knows the new size.
      team.size_.store(static_cast<int>(others.size()) + 1, std::memory_order_relaxed);
    }
    member(team, 0);
    for (std::thread& t : others) t.join();
  }

  // Calls body(0) .. body(count - 1), each on whichever thread is free, and waits until all of them are done.
  template <class Body>
  void share(int64_t count, const Body& body) {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
    wait();
  }

  // Returns when all members have come here.
  void wait() {
    const uint64_t round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_.load(std::memory_order_relaxed) - 1) {
      // The last to arrive resets the counters; the others look at them only after the new round is published.
      next_.store(0, std::memory_order_relaxed);
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    spin_while([&] { return round_.load(std::memory_order_acquire) == round; });
  }

 private:
  explicit Team(int size) : size_(size) {}

  std::atomic<int> size_;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint64_t> round_{0};
};

// Calls body(0) .. body(count - 1) on all processors that this thread may use.
template <class Body>
void share_among_all(int64_t count, const Body& body) {
  Team::run(usable_processors(), [&](Team& team, int) { team.share(count, body); });
}

// The same with a buffer of `size` floats that is the thread's own: body(item, buffer).
template <class Body>
void share_with_buffers(int64_t count, int64_t size, const Body& body) {
  // A page between the buffers: side by side they slow each other down, RoIAlign to less than half the speed.
  const int64_t distance = size + 1024;
  const int threads = usable_processors();
  std::vector<float> buffers(threads * distance);
  Team::run(threads, [&](Team& team, int thread) {
    team.share(count, [&](int64_t item) { body(item, buffers.data() + thread * distance); });
  });
}
