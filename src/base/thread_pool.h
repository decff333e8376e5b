// The threads that compute a step: one pool per rank, created once, pinned, and reused by every
// kernel.
//
// A pool of N has N - 1 threads of its own; the caller of run() is thread 0. Workers wait by
// spinning for `spin`, then on a futex; with more ranks than cores set spin to zero (topology.h has
// the policy). Nothing is allocated after construction. Thread: the pool is created on the thread
// that calls it, which is pinned too, until the pool is gone; run() and for_each() are called by
// one thread at a time, and never from inside themselves.
#pragma once

#include "base/clock.h"
#include "base/function_ref.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace wideep {

struct ThreadPoolOptions {
  int num_threads = 1;
  std::chrono::microseconds spin{50};
  std::vector<int> cpus;  // cpus[i] is where thread i is pinned; empty = not pinned
};

// Items [begin, end).
struct ItemRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Deals out the items of one list to the threads of a pool. Each begins with its own share, the
// same part of every list of that length: so it meets in its cache what it wrote in the phase
// before, and neighbours (panels of one matrix, one behind the other in memory) stay on one thread.
// Whoever is done helps the others. Long ranges first, single items at the end: all end at about
// the same time.
class SharedItems {
 public:
  explicit SharedItems(int num_threads) : shares_(static_cast<size_t>(num_threads)) {}

  // Not while others take. No range is longer than `range_max`.
  void start(int64_t num_items, int64_t range_max);
  // Empty (begin == end) when nothing is left. By any thread, with its own number.
  ItemRange take(int thread);

 private:
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  ItemRange take_from(Share& share) const;

  std::vector<Share> shares_;  // by thread
  int64_t range_max_ = 1;
};

class ThreadPool {
 public:
  explicit ThreadPool(ThreadPoolOptions options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Runs body(thread) once on every thread; returns when all are done.
  void run(FunctionRef<void(int thread)> body);

  // Runs body(item, thread) for every item in [0, num_items), dealt out one by one (see
  // SharedItems). Which thread gets which item is not defined: results must not depend on it.
  void for_each(int64_t num_items, FunctionRef<void(int64_t item, int thread)> body);

  // The same for items whose neighbours belong together: body gets ranges, after first(thread) has
  // run on its thread.
  void for_ranges(int64_t num_items,
                  FunctionRef<void(int thread)> first,
                  FunctionRef<void(ItemRange items, int thread)> body);

  // Inside run(): returns once every thread has arrived.
  void barrier();

 private:
  void work(int thread);
  void wait_for_ticket(uint32_t seen);

  const int num_threads_;
  cpu_set_t caller_cpus_{};  // what thread 0 could run on before
  const Duration spin_;
  const FunctionRef<void(int)>* body_ = nullptr;
  SharedItems items_;                            // of for_each and for_ranges
  alignas(64) std::atomic<uint32_t> ticket_{0};  // bumped when there is a body to run, or to stop
  alignas(64) std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> num_running_{0};
  alignas(64) std::atomic<int> num_arrived_{0};
  alignas(64) std::atomic<uint32_t> barrier_round_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace wideep
