#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>

namespace wideep {
namespace {

TEST(ThreadPool, RunsEveryItemOnceOverAndOver) {
  for (const int num_threads : {1, 2, 5}) {
    ThreadPool pool({.num_threads = num_threads, .spin = std::chrono::microseconds(5)});
    for (int round = 0; round < 200; ++round) {
      std::vector<std::atomic<int>> hits(37);
      pool.for_each(37, [&](int64_t item, int) { hits[static_cast<size_t>(item)]++; });
      for (const auto& count : hits)
        ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, BarrierSeparatesPhases) {
  ThreadPool pool({.num_threads = 4, .spin = std::chrono::microseconds(5)});
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> arrived{0};
    std::atomic<int> wrong{0};
    pool.run([&](int) {
      arrived++;
      pool.barrier();
      if (arrived != 4) wrong++;
    });
    ASSERT_EQ(wrong, 0);
  }
}

}  // namespace
}  // namespace wideep
