#include "http/server.h"

#include "base/log.h"
#include "http/connection.h"

#include <future>
#include <list>
#include <utility>
#include <vector>

namespace wideep::http {
namespace {

// After accept() failed (no descriptors left): a pause, or the loop would spin.
constexpr std::chrono::milliseconds kAcceptPause{100};
// Connections beyond the limit that are being told so; more are closed without a word.
constexpr int kRefusalsMax = 64;
constexpr std::chrono::milliseconds kDrainPoll{20};

Response plain_text_error(int status, std::string_view message) {
  return Response{.status = status,
                  .headers = {{"content-type", "text/plain; charset=utf-8"}},
                  .body = std::string(message) + "\n"};
}

}  // namespace

class Server::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(net::EventLoop& loop, ServerOptions options)
      : context_(std::make_shared<ConnectionContext>()) {
    if (!options.render_error) options.render_error = plain_text_error;
    context_->options = std::move(options);
    context_->loop = &loop;
    context_->bodies = std::make_shared<ByteBudget>(context_->options.limits.all_bodies_bytes_max);
  }

  ConnectionContext& context() { return *context_; }

  net::EventLoop& loop() { return *context_->loop; }

  Result<net::Address> listen(const net::Address& address, const net::ListenOptions& options) {
    WD_ASSIGN_OR_RETURN(net::Listener listener, net::listen(loop(), address, options));
    acceptors_.push_back(std::make_unique<net::Acceptor>(std::move(listener.acceptor)));
    if (address.is_unix()) unix_paths_.push_back(address.path);
    accept(*acceptors_.back());
    return listener.address;
  }

  void drain(Duration timeout, std::function<void()> done) {
    stop_accepting();
    for_each_connection([](Connection& connection) { connection.drain(); });
    poll_drain(std::chrono::steady_clock::now() + timeout, std::move(done));
  }

  void close() {
    stop_accepting();
    for_each_connection([](Connection& connection) { connection.close(); });
  }

 private:
  void stop_accepting() {
    net::error_code ec;
    for (const auto& acceptor : acceptors_)
      acceptor->close(ec);
    for (const std::string& path : std::exchange(unix_paths_, {}))
      ::unlink(path.c_str());
  }

  void accept(net::Acceptor& acceptor) {
    acceptor.async_accept(
        [self = shared_from_this(), &acceptor](net::error_code ec, net::Socket socket) {
          if (!acceptor.is_open()) return;
          if (ec) {
            log_warning("cannot accept a connection: {}", ec.message());
            self->loop().post_after(kAcceptPause, [self, &acceptor] {
              if (acceptor.is_open()) self->accept(acceptor);
            });
            return;
          }
          self->take(std::move(socket));
          self->accept(acceptor);
        });
  }

  void take(net::Socket socket) {
    const int num_open = context_->num_connections;
    const int connections_max = context_->options.limits.connections_max;
    if (num_open >= connections_max + kRefusalsMax) return;
    const auto connection = std::make_shared<Connection>(std::move(socket), context_);
    std::erase_if(connections_, [](const auto& weak) { return weak.expired(); });
    connections_.push_back(connection);
    if (num_open >= connections_max) {
      connection->start_refusing();
    } else {
      connection->start();
    }
  }

  void for_each_connection(const std::function<void(Connection&)>& action) {
    for (const auto& weak : connections_) {
      if (const auto connection = weak.lock()) action(*connection);
    }
  }

  void poll_drain(TimePoint deadline, std::function<void()> done) {
    if (context_->num_connections == 0) return done();
    if (std::chrono::steady_clock::now() >= deadline) {
      close();
      return done();
    }
    loop().post_after(kDrainPoll, [self = shared_from_this(), deadline, done = std::move(done)] {
      self->poll_drain(deadline, done);
    });
  }

  const std::shared_ptr<ConnectionContext> context_;  // shared with the connections
  std::vector<std::unique_ptr<net::Acceptor>> acceptors_;
  std::vector<std::string> unix_paths_;
  std::list<std::weak_ptr<Connection>> connections_;
};

Server::Server(net::EventLoop& loop, ServerOptions options)
    : core_(std::make_shared<Core>(loop, std::move(options))) {}

Server::~Server() {
  core_->loop().run_and_wait([this] { core_->close(); });
  core_->loop().settle([this] { return num_connections() == 0; });
}

void Server::route(std::string_view method,
                   std::string_view pattern,
                   Handler handler,
                   RouteOptions options) {
  core_->context().router.add({.method = std::string(method),
                               .pattern = std::string(pattern),
                               .handler = std::move(handler),
                               .options = std::move(options)});
}

Result<net::Address> Server::listen(const net::Address& address,
                                    const net::ListenOptions& options) {
  Result<net::Address> bound = error(ErrorCode::kCancelled, "the event loop has stopped");
  core_->loop().run_and_wait([&] { bound = core_->listen(address, options); });
  return bound;
}

void Server::drain(Duration timeout, std::function<void()> done) {
  core_->loop().post(
      [core = core_, timeout, done = std::move(done)] { core->drain(timeout, done); });
}

void Server::drain_and_wait(Duration timeout) {
  std::promise<void> done;
  drain(timeout, [&] { done.set_value(); });
  done.get_future().wait();
}

int Server::num_connections() const {
  return core_->context().num_connections;
}

}  // namespace wideep::http
