// The thread that steps an engine: it runs step() while there is work and otherwise blocks in
// wait_for_work(), where only a liveness timer wakes it.
//
// When the exchange fails (a rank is lost) the epoch is over: every request ends with a retryable
// error, the engine takes no new ones, the loop ends and tells the owner, who restarts the group.
//
// Ownership: borrows the engine and the exchange; the destructor stops the thread. Thread: all
// methods from any thread.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "ep/all_to_all.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace wideep::engine {

struct EngineLoopOptions {
  Duration idle_wait = std::chrono::seconds(1);  // longest sleep without work
  // Called on the loop's thread: must not block.
  std::function<void(const EngineStats&)> on_step;  // after each step
  std::function<void(const Error&)> on_failure;     // once, when the exchange has failed
  // In a group: how a rank without work sleeps until a time (true: another rank has opened a step,
  // see FabricAllToAll::sleep_until), and how any thread ends that sleep. By default the loop
  // sleeps in the engine.
  std::function<Result<bool>(TimePoint until)> sleep;
  std::function<void()> wake;
};

class EngineLoop {
 public:
  // Starts the thread.
  EngineLoop(Engine& engine,
             ep::AllToAll& all_to_all,
             const Clock& clock,
             EngineLoopOptions options);
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  // Refuses new requests and waits until the last one has ended. kTimeout if some have not by then.
  Status drain(Duration timeout);
  // Waits until no rank of the group has work, as far as this one knows: then nobody misses its
  // experts when it leaves. kTimeout.
  Status await_idle(Duration timeout);
  // Ends the thread after its present step; what is unfinished ends with a retryable error.
  void stop();

  // How long the present step has been running; zero between steps and in sleep. A rank whose age
  // grows past the progress deadline is stuck.
  Duration step_age() const;
  // Why the loop has ended, if the exchange failed.
  std::optional<Error> failure() const;

 private:
  void run();
  Status sleep();
  void fail(const Error& reason);

  Engine& engine_;
  ep::AllToAll& all_to_all_;
  const Clock& clock_;
  const EngineLoopOptions options_;
  std::atomic<bool> stop_{false};
  std::atomic<TimePoint::rep> step_begin_{0};  // 0: not in a step

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // after each step, and at the end
  std::optional<Error> failure_;
  std::thread thread_;
};

}  // namespace wideep::engine
