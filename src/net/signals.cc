#include "net/signals.h"

#include "net/asio.h"

#include <boost/asio/signal_set.hpp>

#include <utility>

namespace wideep::net {

struct SignalWatcher::Core : std::enable_shared_from_this<Core> {
  explicit Core(EventLoop& loop) : signals(context(loop)) {}

  void wait() {
    signals.async_wait([self = shared_from_this()](error_code ec, int signal) {
      if (ec || self->stopped) return;
      self->on_signal(signal);
      if (!self->stopped) self->wait();
    });
  }

  asio::signal_set signals;
  std::function<void(int)> on_signal;
  bool stopped = false;
};

SignalWatcher::SignalWatcher(EventLoop& loop,
                             const std::vector<int>& signals,
                             std::function<void(int)> on_signal)
    : core_(std::make_shared<Core>(loop)) {
  core_->on_signal = std::move(on_signal);
  for (const int signal : signals)
    core_->signals.add(signal);
  core_->wait();
}

SignalWatcher::~SignalWatcher() {
  core_->stopped = true;
  error_code ec;
  core_->signals.cancel(ec);
}

}  // namespace wideep::net
