#include "server/worker_pool.h"

#include <gtest/gtest.h>

#include <future>

namespace wideep::server {
namespace {

TEST(WorkerPool, RunsTasksOnOtherThreads) {
  WorkerPool pool(2, 4);
  std::promise<std::thread::id> ran;
  ASSERT_TRUE(pool.try_run([&] { ran.set_value(std::this_thread::get_id()); }));
  EXPECT_NE(ran.get_future().get(), std::this_thread::get_id());
}

TEST(WorkerPool, RefusesMoreThanItsQueueHolds) {
  std::promise<void> started;
  std::promise<void> go;
  WorkerPool pool(1, 2);
  ASSERT_TRUE(pool.try_run([&] {
    started.set_value();
    go.get_future().wait();
  }));
  started.get_future().wait();
  EXPECT_TRUE(pool.try_run([] {}));
  EXPECT_TRUE(pool.try_run([] {}));
  EXPECT_FALSE(pool.try_run([] {}));
  go.set_value();
}

}  // namespace
}  // namespace wideep::server
