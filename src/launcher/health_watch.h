// Asks every process of a deployment how it is, at a fixed pace: tells the supervisor who answers
// requests and who is stuck, and keeps what the ranks' /metrics said.
//
// A rank's /health looks at the progress of its steps (server/api_server.h), so that a process that
// lives and does not get on is found too. One call per process and path is under way at most.
// Ownership: borrows all; must be gone before loop, client and supervisor. Thread: created and
// destroyed on the loop's thread or while it is not running; look() and snapshot()
// from any.
#pragma once

#include "base/clock.h"
#include "http/client.h"
#include "launcher/deployment.h"
#include "launcher/supervisor.h"
#include "net/event_loop.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace wideep::launcher {

struct HealthWatchOptions {
  std::chrono::milliseconds interval{250};  // until everything is ready
  std::chrono::milliseconds interval_ready{1'000};
  std::chrono::milliseconds timeout{2'000};           // of a call
  std::chrono::milliseconds unhealthy_after{20'000};  // at least twice the intervals
  std::chrono::milliseconds start_timeout{1'800'000};
  int64_t body_bytes_max = 4 << 20;
  bool collect_metrics = true;      // of ranks
  bool any_answer_will_do = false;  // what it says is for others to judge: it lives
  std::function<void()> on_round;   // after each round of answers, on the loop's thread
};

// What a member said last.
struct MemberReport {
  bool healthy = false;
  TimePoint changed{};  // when `healthy` became what it is
  std::string health;   // the body of the last answer
  std::string metrics;  // of a rank; "" before its first answer
  TimePoint metrics_time{};
};

class HealthWatch {
 public:
  HealthWatch(net::EventLoop& loop,
              http::Client& client,
              Supervisor& supervisor,
              std::vector<Member> members,
              HealthWatchOptions options,
              const Clock& clock = real_clock());
  ~HealthWatch();

  // Does not wait for the next round: something has changed. Any thread.
  void look();
  // One report per member, in their order.
  std::vector<MemberReport> snapshot() const;

 private:
  class Core;
  std::shared_ptr<Core> core_;  // shared with the calls and the timer under way
};

}  // namespace wideep::launcher
