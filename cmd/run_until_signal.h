// A process that serves until it is told to stop.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "net/event_loop.h"

#include <functional>
#include <string>
#include <thread>

namespace wideep::cmd {

// Runs a loop until SIGTERM, SIGINT or stop(). Thread: run() on one; stop() from any.
class Service {
 public:
  explicit Service(net::EventLoop& loop) : loop_(loop) {}

  // Returns after `drain`, which runs on a thread of its own with the loop still running. A second
  // signal ends the process at once.
  void run(const std::function<void()>& drain);
  // Ends run() as a signal does, also a run() to come.
  void stop();

 private:
  void begin_drain();

  net::EventLoop& loop_;
  const std::function<void()>* drain_ = nullptr;
  std::thread drainer_;
};

// A Service that only a signal stops.
void run_until_signal(net::EventLoop& loop, const std::function<void()>& drain);

// Writes `text` and a line end to `path`, for whoever waits for the file; "" writes nothing.
Status write_ready_file(const std::string& path, const std::string& text);

}  // namespace wideep::cmd
