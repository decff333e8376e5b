// The door between any thread and the engine thread: requests, cancellations and wake-ups wait here
// for the next step, and what KV transfer tells. Bounded: it counts the requests that nobody has
// begun to compute, those that the scheduler holds included, and refuses more than the limits in
// one atomic decision.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "engine/generation.h"
#include "kv/kv_source.h"
#include "kv/lease_table.h"

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

namespace wideep::engine {

struct InboxLimits {
  int64_t requests_max = 1024;
  int64_t tokens_max = 1 << 22;
};

class Inbox {
 public:
  explicit Inbox(InboxLimits limits) : limits_(limits) {}

  // kExhausted at a limit, kUnavailable after close().
  Status submit(std::unique_ptr<Generation> generation);
  // Nothing happens if the request is unknown or has ended.
  void cancel(SequenceId id);
  void wake();
  // Nobody needs the blocks of a lease any more; a pull is over. At most one of each for a lease
  // granted and a pull begun, so that their limits bound these too.
  void lease_ended(kv::LeaseId lease);
  void pull_ended(kv::PullOutcome outcome);
  // Also called, on the thread that brings it, when there is mail.
  void set_waker(std::function<void()> waker);
  void close();

  struct Mail {
    std::vector<std::unique_ptr<Generation>> submitted;
    std::vector<SequenceId> cancelled;
    std::vector<kv::LeaseId> leases;
    std::vector<kv::PullOutcome> pulls;
    bool woken = false;
  };

  // Everything that is there; clears a wake-up.
  Mail drain();
  // A request is computed for the first time, or has ended before that: its place is free.
  void leave_queue(int64_t num_tokens);
  // A request has ended: it can no longer be cancelled.
  void forget(SequenceId id);

  bool has_mail() const;
  // Until has_mail() or the timeout.
  void wait(Duration timeout);

  int64_t num_submitted() const;      // not drained yet
  int64_t num_queued_tokens() const;  // not begun yet

 private:
  void announce();

  bool has_mail_locked() const {
    return !mail_.submitted.empty() || !mail_.cancelled.empty() || !mail_.leases.empty() ||
           !mail_.pulls.empty() || mail_.woken;
  }

  const InboxLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::function<void()> waker_;
  Mail mail_;
  std::unordered_set<SequenceId> live_;  // submitted, not ended, not cancelled
  int64_t num_queued_ = 0;
  int64_t num_queued_tokens_ = 0;
  bool closed_ = false;
};

}  // namespace wideep::engine
