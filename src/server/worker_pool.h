// A few threads for work that would hold up the event loop: parsing large bodies, rendering
// templates, tokenising.
#pragma once

#include "base/bounded_queue.h"

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace wideep::server {

// Ownership: tasks that have not begun when the pool ends are dropped. Thread: any.
class WorkerPool {
 public:
  WorkerPool(int num_threads, size_t queued_tasks_max);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False when the queue is full.
  bool try_run(std::function<void()> task);

 private:
  void work();

  BoundedQueue<std::function<void()>> queue_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace wideep::server
