// A process that serves until it is told to stop.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "net/event_loop.h"

#include <functional>
#include <string>

namespace wideep::cmd {

// Runs the loop until SIGTERM or SIGINT, then `drain` (on a thread of its own, with the loop still
// running), then returns. A second signal ends the process at once.
void run_until_signal(net::EventLoop& loop, const std::function<void()>& drain);

// Writes `text` and a line end to `path`, for whoever waits for the file; "" writes nothing.
Status write_ready_file(const std::string& path, const std::string& text);

}  // namespace wideep::cmd
