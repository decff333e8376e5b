#include "base/thread_pool.h"

#include "base/count_allocations.h"

#include <gtest/gtest.h>
#include <sched.h>

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

TEST(ThreadPool, RangesCoverEveryItemOnce) {
  for (const int num_threads : {1, 2, 5}) {
    ThreadPool pool({.num_threads = num_threads, .spin = std::chrono::microseconds(5)});
    for (const int64_t num_items : {0, 1, 3, 64, 257}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(num_items));
      std::vector<std::atomic<bool>> was_first(static_cast<size_t>(num_threads));
      std::atomic<int> too_early{0};
      pool.for_ranges(
          num_items, [&](int thread) { was_first[static_cast<size_t>(thread)] = true; },
          [&](ItemRange items, int thread) {
            if (!was_first[static_cast<size_t>(thread)]) too_early++;
            for (int64_t i = items.begin; i < items.end; ++i)
              hits[static_cast<size_t>(i)]++;
          });
      EXPECT_EQ(too_early, 0);
      for (const auto& count : hits)
        ASSERT_EQ(count, 1);
    }
  }
}

// How long the ranges are that `thread` takes.
std::vector<int64_t> lengths_taken(SharedItems& items, int thread) {
  std::vector<int64_t> lengths;
  for (ItemRange range = items.take(thread); range.begin < range.end; range = items.take(thread))
    lengths.push_back(range.end - range.begin);
  return lengths;
}

TEST(SharedItems, GivesLongRangesFirstAndSingleItemsLast) {
  SharedItems items(1);
  items.start(32, 6);
  EXPECT_EQ(lengths_taken(items, 0), (std::vector<int64_t>{6, 6, 6, 6, 4, 2, 1, 1}));
}

TEST(SharedItems, BeginsWithAThreadsOwnShareAndThenHelpsOthers) {
  SharedItems items(3);
  items.start(10, 1);
  EXPECT_EQ(items.take(0).begin, 0);
  EXPECT_EQ(items.take(2).begin, 7);
  std::vector<int64_t> taken;
  for (ItemRange range = items.take(1); range.begin < range.end; range = items.take(1))
    taken.push_back(range.begin);
  EXPECT_EQ(taken, (std::vector<int64_t>{4, 5, 6, 8, 9, 1, 2, 3}));
}

TEST(SharedItems, GivesFewItemsToTheFirstThreads) {
  SharedItems items(4);
  items.start(1, 1);
  EXPECT_EQ(items.take(0).begin, 0);
  EXPECT_EQ(items.take(0).end, 0);
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

// The CPUs that this process may use.
std::vector<int> allowed_cpus() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

TEST(ThreadPool, RunsEachThreadOnItsCpuAndGivesTheCallerBack) {
  const std::vector<int> cpus = allowed_cpus();
  {
    ThreadPool pool({.num_threads = static_cast<int>(cpus.size()), .cpus = cpus});
    std::vector<int> ran_on(cpus.size(), -1);
    pool.run([&](int thread) { ran_on[static_cast<size_t>(thread)] = sched_getcpu(); });
    EXPECT_EQ(ran_on, cpus);
  }
  EXPECT_EQ(allowed_cpus(), cpus);
}

TEST(ThreadPool, WakesThreadsThatFellAsleep) {
  // No spinning: between two runs every worker is on its futex or about to be.
  ThreadPool pool({.num_threads = 3, .spin = std::chrono::microseconds(0)});
  int64_t sum = 0;
  for (int round = 0; round < 300; ++round) {
    std::atomic<int> ran{0};
    pool.run([&](int) { ran++; });
    sum += ran;
  }
  EXPECT_EQ(sum, 900);
}

TEST(ThreadPool, MoreThreadsThanCoresStillMeetAtBarriers) {
  ThreadPool pool({.num_threads = 9, .spin = std::chrono::microseconds(0)});
  std::atomic<int> arrived{0};
  std::atomic<int> wrong{0};
  pool.run([&](int) {
    for (int round = 1; round <= 20; ++round) {
      arrived++;
      pool.barrier();
      if (arrived != 9 * round) wrong++;
      pool.barrier();
    }
  });
  EXPECT_EQ(wrong, 0);
}

#ifdef WD_COUNTS_ALLOCATIONS
TEST(ThreadPool, AllocatesNothingWhileItRuns) {
  for (const auto spin : {std::chrono::microseconds(0), std::chrono::microseconds(50)}) {
    ThreadPool pool({.num_threads = 3, .spin = spin});
    std::atomic<int64_t> sum{0};
    const int64_t before = num_allocations;
    for (int round = 0; round < 50; ++round) {
      pool.for_each(20, [&](int64_t item, int) { sum += item; });
      pool.run([&](int) { pool.barrier(); });
    }
    EXPECT_EQ(num_allocations, before);
    EXPECT_EQ(sum, 50 * 190);
  }
}
#endif

}  // namespace
}  // namespace wideep
