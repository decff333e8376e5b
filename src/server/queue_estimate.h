// How long a request that came now would wait, so that one that is refused is told when to try
// again. Two things hold up a queue: the prompts before it, a step's worth of tokens at a time, and
// places, of which one becomes free whenever a request ends. Both times are running averages.
//
// Thread: any.
#pragma once

#include "base/clock.h"
#include "engine/engine.h"

#include <mutex>

namespace wideep::server {

class QueueEstimate {
 public:
  static constexpr int kSecondsMax = 60;

  // A step took that long; a request took that long from its first step to its last token.
  void on_step(Duration duration);
  void on_request(Duration duration);

  // For Retry-After: whole seconds, 1 to kSecondsMax.
  int retry_after_s(const engine::EngineStats& stats, const engine::EngineOptions& options) const;

 private:
  mutable std::mutex mutex_;
  double step_seconds_ = 0;  // 0: none seen yet
  double request_seconds_ = 0;
};

}  // namespace wideep::server
