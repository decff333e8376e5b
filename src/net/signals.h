// SIGTERM and SIGINT as events of a loop.
#pragma once

#include "net/event_loop.h"

#include <functional>
#include <memory>
#include <vector>

namespace wideep::net {

// While it lives, the given signals no longer end the process but run `on_signal` on the loop.
// Thread: created and destroyed while the loop is not running, or on its thread.
class SignalWatcher {
 public:
  SignalWatcher(EventLoop& loop,
                const std::vector<int>& signals,
                std::function<void(int)> on_signal);
  ~SignalWatcher();

 private:
  struct Core;
  std::shared_ptr<Core> core_;  // shared with the pending wait, which may outlive this object
};

}  // namespace wideep::net
