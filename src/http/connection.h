// Internal to http: one client's connection to a server.
#pragma once

#include "http/byte_budget.h"
#include "http/exchange.h"
#include "http/server.h"
#include "http/socket_pump.h"
#include "net/asio.h"

#include <atomic>
#include <memory>
#include <optional>
#include <string>

namespace wideep::http {

// What a server's connections share. Lives as long as any of them.
struct ConnectionContext {
  ServerOptions options;
  Router router;
  net::EventLoop* loop = nullptr;
  std::atomic<int> num_connections{0};
  std::shared_ptr<ByteBudget> bodies;  // shared with requests that handlers hold
};

// Reads requests, calls handlers and writes their answers, until the peer leaves, a limit is hit
// or the server drains. Thread: the loop's.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(net::Socket socket, std::shared_ptr<ConnectionContext> context);
  ~Connection();

  // Both keep the connection alive until it is closed. Refusing: answers 503 and closes.
  void start();
  void start_refusing();

  // Ends it now: the handler under way is told that the client is gone.
  void close();
  // Ends it after the answer under way, or at once.
  void drain();

 private:
  template <typename T>
  using Awaitable = net::asio::awaitable<T>;

  Awaitable<void> serve();
  Awaitable<void> refuse();
  // One request and its answer. Whether another may follow.
  Awaitable<bool> serve_one();
  // Nothing when the peer closed or idled away without a word.
  Awaitable<std::optional<Parsed<RequestHead>>> read_head();
  // Reads the rest of the request, or says how to refuse it. What it learns goes into `incoming`.
  struct Incoming;
  Awaitable<std::optional<Response>> receive(RequestHead head, Incoming& incoming);
  std::optional<Response> admit(Incoming& incoming, const Framing& framing) const;
  Awaitable<Parsed<std::string>> read_body(const RequestHead& head,
                                           const ParserLimits& limits,
                                           ByteCharge& charge);
  // Puts the exchange's output on the socket until it is finished; false if the client left first.
  Awaitable<bool> answer(Exchange& exchange);
  Awaitable<void> linger_and_close();

  Response error_response(const Refusal& refusal) const;
  std::shared_ptr<Exchange> make_exchange(const Incoming& incoming);
  void record(const Incoming& incoming, const Exchange& exchange) const;

  const std::shared_ptr<SocketPump> pump_;            // shared with its pending operations
  const std::shared_ptr<ConnectionContext> context_;  // shared with the other connections
  const std::string peer_;
  TimePoint request_began_at_{};
  std::shared_ptr<Exchange> exchange_;  // shared with the handler's responders
  bool closing_ = false;
};

}  // namespace wideep::http
