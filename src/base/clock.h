// Time comes in through a Clock, so that a simulation can run an hour in a second.
#pragma once

#include <chrono>

namespace wideep {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; comparable only within one process.
  virtual TimePoint now() const = 0;
  // Seconds since 1970, for `created` fields and logs only.
  virtual int64_t unix_seconds() const = 0;
};

// The machine's clock. Thread-safe.
const Clock& real_clock();

}  // namespace wideep
