// Threads that load: several on each core of the pool, because they wait for the disk in turns.
#pragma once

#include "base/function_ref.h"
#include "base/log.h"
#include "base/thread_pool.h"

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace wideep::model {

inline constexpr int kLoadersPerThread = 4;

inline int num_loaders(const ThreadPool& pool) {
  return pool.num_threads() * kLoadersPerThread;
}

// Runs body(item, loader) for every item in [0, num_items), in about this order; returns when all
// are done. `loader` is below num_loaders().
inline void for_each_loaded(ThreadPool& pool,
                            int64_t num_items,
                            FunctionRef<void(int64_t item, int loader)> body) {
  std::atomic<int64_t> next{0};
  pool.run([&](int thread) {
    const auto work = [&](int loader) {
      for (int64_t item = next++; item < num_items; item = next++)
        body(item, loader);
    };
    // Threads inherit the core of the one that starts them.
    std::vector<std::jthread> others;
    try {
      for (int i = 1; i < kLoadersPerThread; ++i)
        others.emplace_back(work, thread * kLoadersPerThread + i);
    } catch (const std::system_error& refused) {
      log_warning("fewer threads load: {}", refused.what());
    }
    work(thread * kLoadersPerThread);
  });
}

}  // namespace wideep::model
