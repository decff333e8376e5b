// A clock that stands still until a test moves it. Thread: any.
#pragma once

#include "base/clock.h"

#include <atomic>

namespace wideep {

class TestClock final : public Clock {
 public:
  TimePoint now() const override { return now_.load(); }

  int64_t unix_seconds() const override { return 0; }

  void advance(Duration duration) { now_ = now_.load() + duration; }

 private:
  std::atomic<TimePoint> now_{TimePoint(std::chrono::seconds(1000))};
};

}  // namespace wideep
