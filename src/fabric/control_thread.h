// The thread that never computes: it watches descriptors and beats the heart, so that a long
// computation of the engine thread is never taken for a death. Sleeps in epoll otherwise.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "fabric/event.h"
#include "fabric/unique_fd.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

namespace wideep::fabric {

class ControlThread {
 public:
  using OnEvents = std::function<void(uint32_t epoll_events)>;

  ControlThread() = default;

  ~ControlThread() { stop(); }

  ControlThread(const ControlThread&) = delete;
  ControlThread& operator=(const ControlThread&) = delete;

  // Makes the epoll; nothing runs yet. watch() is allowed from here on.
  Status open();
  // Calls `on_tick` now and every `period` from now on.
  void start(Duration period, std::function<void()> on_tick);
  // Returns when the thread has ended. Idempotent.
  void stop();

  // Borrows the descriptor until unwatch(). Before start(), or on the control thread.
  Status watch(int fd, uint32_t epoll_events, OnEvents on_events);
  void unwatch(int fd);
  // Calls `on_time` once, after `delay`. On the control thread.
  void after(Duration delay, std::function<void()> on_time);
  // Which events of a watched descriptor matter. Any thread.
  void change(int fd, uint32_t epoll_events);

 private:
  struct Timer {
    TimePoint time;
    std::function<void()> on_time;
  };

  void run(Duration period, const std::function<void()>& on_tick);
  void wait_for_events(TimePoint until);
  void fire_timers();

  UniqueFd epoll_;
  Event stop_event_;
  std::map<int, std::shared_ptr<OnEvents>> watched_;  // shared: a callback may unwatch itself
  std::vector<Timer> timers_;
  bool is_stopping_ = false;  // control thread only
  std::thread thread_;
};

}  // namespace wideep::fabric
