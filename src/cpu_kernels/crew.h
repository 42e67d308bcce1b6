// The threads of one call of a kernel that runs many short parallel loops, among them those of oneDNN's primitives.
#pragma once

#include <algorithm>
#include <functional>

#include "onednn.h"
#include "team.h"
#include "vectors.h"

class Crew : public onednn::ThreadPool {
 public:
  // Calls work(crew) on the calling thread while the others wait for its loops.
  template <class Work>
  static void run(const Work& work) {
    Crew crew;
    std::exception_ptr error;
    Team::run(usable_processors(), [&](Team& team, int index) {
      if (index > 0) return crew.serve(team);
      crew.team_ = &team;
      try {
        work(crew);
      } catch (...) {
        error = std::current_exception();
      }
      crew.body_ = nullptr;
      team.wait();
    });
    if (error) std::rethrow_exception(error);
  }

  // Calls body(0) .. body(count - 1), each on whichever thread is free.
  template <class Body>
  void share(int64_t count, const Body& body) {
    parallel_for(static_cast<int>(count), [&](int i, int) { body(i); });
  }

  // Calls body(begin, end) for pieces of 0 .. count of the same size, whatever the number of threads.
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
    team_->wait();
    take(*team_);
  }

 private:
  Crew() = default;

  static bool& inside() {
    static thread_local bool value = false;
    return value;
  }

  void serve(Team& team) {
    for (;;) {
      team.wait();
      if (body_ == nullptr) return;
      take(team);
    }
  }

  void take(Team& team) {
    inside() = true;
    team.share(count_, [&](int64_t i) { (*body_)(static_cast<int>(i), count_); });
    inside() = false;
  }

  Team* team_ = nullptr;
  const std::function<void(int, int)>* body_ = nullptr;
  int count_ = 0;
};
