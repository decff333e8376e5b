#include "base/thread_pool.h"

#include "base/check.h"
#include "base/rounding.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <utility>

namespace wideep {
namespace {

void pause_cpu() {
  __builtin_ia32_pause();
}

void pin_current_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // Fails where the cpu is not ours; the thread then runs where the kernel likes.
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace

void SharedItems::start(int64_t num_items, int64_t range_max) {
  const auto num_shares = static_cast<int64_t>(shares_.size());
  const auto begin_of = [&](int64_t share) { return divide_up(share * num_items, num_shares); };
  for (int64_t i = 0; i < num_shares; ++i) {
    Share& share = shares_[static_cast<size_t>(i)];
    share.next.store(begin_of(i), std::memory_order_relaxed);
    share.end = begin_of(i + 1);
  }
  range_max_ = std::max<int64_t>(range_max, 1);
}

ItemRange SharedItems::take(int thread) {
  const size_t num_shares = shares_.size();
  for (size_t i = 0; i < num_shares; ++i) {
    const ItemRange range = take_from(shares_[(static_cast<size_t>(thread) + i) % num_shares]);
    if (range.begin < range.end) return range;
  }
  return {};
}

ItemRange SharedItems::take_from(Share& share) const {
  int64_t begin = share.next.load(std::memory_order_relaxed);
  while (begin < share.end) {
    const int64_t count = std::clamp<int64_t>((share.end - begin) / 2, 1, range_max_);
    if (share.next.compare_exchange_weak(begin, begin + count, std::memory_order_relaxed))
      return {.begin = begin, .end = begin + count};
  }
  return {};
}

ThreadPool::ThreadPool(ThreadPoolOptions options)
    : num_threads_(options.num_threads), spin_(options.spin), items_(options.num_threads) {
  WD_CHECK(num_threads_ >= 1);
  const auto pin = [cpus = std::move(options.cpus)](int thread) {
    if (static_cast<size_t>(thread) < cpus.size())
      pin_current_thread(cpus[static_cast<size_t>(thread)]);
  };
  pthread_getaffinity_np(pthread_self(), sizeof caller_cpus_, &caller_cpus_);
  pin(0);
  for (int thread = 1; thread < num_threads_; ++thread) {
    threads_.emplace_back([this, thread, pin] {
      pin(thread);
      work(thread);
    });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  ticket_.fetch_add(1, std::memory_order_release);
  ticket_.notify_all();
  for (std::thread& thread : threads_)
    thread.join();
  pthread_setaffinity_np(pthread_self(), sizeof caller_cpus_, &caller_cpus_);
}

void ThreadPool::run(FunctionRef<void(int)> body) {
  if (num_threads_ == 1) {
    body(0);
    return;
  }
  body_ = &body;
  num_running_.store(num_threads_ - 1, std::memory_order_relaxed);
  ticket_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) ticket_.notify_all();
  body(0);
  const auto give_up = std::chrono::steady_clock::now() + spin_;
  int running = num_running_.load(std::memory_order_acquire);
  for (int spins = 0; running > 0; ++spins) {
    if (spins % 64 == 63 && std::chrono::steady_clock::now() > give_up) {
      num_running_.wait(running, std::memory_order_acquire);
    }
    pause_cpu();
    running = num_running_.load(std::memory_order_acquire);
  }
}

void ThreadPool::for_each(int64_t num_items, FunctionRef<void(int64_t, int)> body) {
  items_.start(num_items, 1);
  run([&](int thread) {
    for (ItemRange item = items_.take(thread); item.begin < item.end; item = items_.take(thread))
      body(item.begin, thread);
  });
}

void ThreadPool::for_ranges(int64_t num_items,
                            FunctionRef<void(int)> first,
                            FunctionRef<void(ItemRange, int)> body) {
  items_.start(num_items, num_items);
  run([&](int thread) {
    first(thread);
    for (ItemRange items = items_.take(thread); items.begin < items.end;
         items = items_.take(thread))
      body(items, thread);
  });
}

void ThreadPool::barrier() {
  if (num_threads_ == 1) return;
  const uint32_t round = barrier_round_.load(std::memory_order_acquire);
  if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
    num_arrived_.store(0, std::memory_order_relaxed);
    barrier_round_.fetch_add(1, std::memory_order_release);
    barrier_round_.notify_all();
    return;
  }
  const auto give_up = std::chrono::steady_clock::now() + spin_;
  for (int spins = 0; barrier_round_.load(std::memory_order_acquire) == round; ++spins) {
    if (spins % 64 == 63 && std::chrono::steady_clock::now() > give_up) {
      barrier_round_.wait(round, std::memory_order_acquire);
    }
    pause_cpu();
  }
}

void ThreadPool::wait_for_ticket(uint32_t seen) {
  const auto give_up = std::chrono::steady_clock::now() + spin_;
  for (int spins = 0; ticket_.load(std::memory_order_acquire) == seen; ++spins) {
    if (spins % 64 == 63 && std::chrono::steady_clock::now() > give_up) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      ticket_.wait(seen, std::memory_order_seq_cst);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
    pause_cpu();
  }
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    wait_for_ticket(seen);
    ++seen;
    if (stop_.load(std::memory_order_relaxed)) return;
    (*body_)(thread);
    if (num_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_running_.notify_one();
  }
}

}  // namespace wideep
