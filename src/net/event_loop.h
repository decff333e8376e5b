// One thread's event loop: tasks, timers and, through net/asio.h, sockets.
//
// Ownership: whoever runs the loop owns it; everything that lives on it must be gone before it.
// Thread: run() on one thread; post() and stop() from anywhere; the rest on the loop's thread.
#pragma once

#include "base/clock.h"

#include <functional>
#include <memory>
#include <thread>

namespace wideep::net {

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs tasks until stop(). Blocks in epoll when there is nothing to do.
  void run();
  // Makes run() return soon; what is queued stays queued and is dropped by the destructor.
  void stop();

  // Runs `task` on the loop's thread, never inside this call.
  void post(std::function<void()> task);
  // Like post, after `delay`. Cannot be taken back: let the task check whether it is still wanted.
  void post_after(Duration delay, std::function<void()> task);

  // post() for threads that may outlive the loop: what comes after its end is dropped.
  std::function<void(std::function<void()> task)> poster();

  // Runs `task` on the loop's thread and returns when it is done: from that thread, or while the
  // loop is not running, at once. Not while another thread stops the loop.
  void run_and_wait(const std::function<void()>& task);

  // Lets the loop work on what is ready until `is_settled` (called on it) says yes, or for a
  // bounded number of rounds. Nothing on the loop's own thread or while it is not running.
  void settle(const std::function<bool()>& is_settled);

  bool is_running() const;
  bool in_loop_thread() const;

  struct Core;

  Core& core() { return *core_; }  // for net/asio.h

 private:
  class Door;

  std::unique_ptr<Core> core_;
  std::shared_ptr<Door> door_;  // shared with posters
};

// A loop with its own thread, from construction to destruction.
class LoopThread {
 public:
  LoopThread();
  ~LoopThread();
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  EventLoop& loop() { return loop_; }

 private:
  EventLoop loop_;
  std::thread thread_;
};

}  // namespace wideep::net
