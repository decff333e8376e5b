#include "cmd/run_until_signal.h"

#include "base/file.h"
#include "base/log.h"
#include "net/descriptors.h"
#include "net/signals.h"

#include <csignal>
#include <cstdlib>
#include <thread>

namespace wideep::cmd {

void run_until_signal(net::EventLoop& loop, const std::function<void()>& drain) {
  net::raise_descriptor_limit();
  std::thread drainer;
  const net::SignalWatcher watcher(loop, {SIGTERM, SIGINT}, [&](int signal) {
    if (drainer.joinable()) {
      log_warning("second signal: ending at once");
      std::_Exit(128 + signal);
    }
    log_info("signal {}: draining", signal);
    drainer = std::thread([&] {
      drain();
      loop.stop();
    });
  });
  loop.run();
  if (drainer.joinable()) drainer.join();
}

Status write_ready_file(const std::string& path, const std::string& text) {
  return path.empty() ? Status{} : write_file(path, text + "\n");
}

}  // namespace wideep::cmd
