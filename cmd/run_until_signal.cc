#include "cmd/run_until_signal.h"

#include "base/file.h"
#include "base/log.h"
#include "net/descriptors.h"
#include "net/signals.h"

#include <csignal>
#include <cstdlib>
#include <utility>

namespace wideep::cmd {

void Service::run(const std::function<void()>& drain) {
  net::raise_descriptor_limit();
  drain_ = &drain;
  bool is_told = false;
  const net::SignalWatcher watcher(loop_, {SIGTERM, SIGINT}, [&](int signal) {
    if (std::exchange(is_told, true)) {
      log_warning("second signal: ending at once");
      std::_Exit(128 + signal);
    }
    log_info("signal {}: draining", signal);
    begin_drain();
  });
  loop_.run();
  if (drainer_.joinable()) drainer_.join();
}

void Service::stop() {
  loop_.post([this] { begin_drain(); });
}

void Service::begin_drain() {
  if (drainer_.joinable()) return;
  drainer_ = std::thread([this] {
    (*drain_)();
    loop_.stop();
  });
}

void run_until_signal(net::EventLoop& loop, const std::function<void()>& drain) {
  Service(loop).run(drain);
}

Status write_ready_file(const std::string& path, const std::string& text) {
  return path.empty() ? Status{} : write_file(path, text + "\n");
}

}  // namespace wideep::cmd
