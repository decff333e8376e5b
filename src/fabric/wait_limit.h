// How long a call may block, and what ends it before: the deadline, or a descriptor that becomes
// readable because waiting has become pointless. A TimePoint alone is a limit too.
#pragma once

#include "base/clock.h"

#include <poll.h>

#include <algorithm>
#include <span>

namespace wideep::fabric {

class WaitLimit {
 public:
  // interrupt: borrowed; -1: none.
  WaitLimit(TimePoint deadline, int interrupt = -1)  // NOLINT(google-explicit-constructor)
      : deadline_(deadline), interrupt_(interrupt) {}

  // The same, but no longer than that.
  WaitLimit at_most(TimePoint deadline) const {
    return {std::min(deadline_, deadline), interrupt_};
  }

  TimePoint deadline() const { return deadline_; }

  bool has_passed() const;
  // Blocks until one of them has an event; false: the limit has passed first.
  bool await(std::span<pollfd> any) const;
  bool await(int fd, short events) const;
  // Before the next try.
  void pause(Duration time) const;

 private:
  bool is_interrupted(Duration patience) const;

  TimePoint deadline_;
  int interrupt_;
};

}  // namespace wideep::fabric
