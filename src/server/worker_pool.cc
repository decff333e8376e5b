#include "server/worker_pool.h"

#include "base/check.h"

#include <chrono>
#include <utility>

namespace wideep::server {
namespace {

// Threads also wake without work, so that no wait is without a deadline.
constexpr std::chrono::seconds kIdleWait{60};

}  // namespace

WorkerPool::WorkerPool(int num_threads, size_t queued_tasks_max) : queue_(queued_tasks_max) {
  WD_CHECK(num_threads >= 1);
  for (int i = 0; i < num_threads; ++i)
    threads_.emplace_back([this] { work(); });
}

WorkerPool::~WorkerPool() {
  stop_ = true;
  queue_.close();
  for (std::thread& thread : threads_)
    thread.join();
}

bool WorkerPool::try_run(std::function<void()> task) {
  return queue_.try_push(std::move(task));
}

void WorkerPool::work() {
  while (!stop_) {
    if (const auto task = queue_.pop(kIdleWait)) (*task)();
  }
}

}  // namespace wideep::server
