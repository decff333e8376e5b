// An HTTP/1.1 server on one event loop: keep-alive, streams with backpressure, limits, drain.
//
// Example:
//   http::Server server(loop, {});
//   server.route("POST", "/v1/completions", [](Request request, Responder responder) { ... });
//   WD_ASSIGN_OR_RETURN(const net::Address address, server.listen({"127.0.0.1", 0, {}}));
//
// More cores: several loops, each with a Server, on one port (ListenOptions::reuse_port).
// Thread: routes are added before listen(); every method may be called from any thread. The loop
// must run until the server is gone, and threads that hold Responders must end before the loop.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "http/parser.h"
#include "http/router.h"
#include "net/address.h"
#include "net/event_loop.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace wideep::http {

struct ServerLimits {
  ParserLimits parser;
  int connections_max = 1024;                        // one more is answered with 503 and closed
  std::chrono::milliseconds idle_timeout{75'000};    // between requests
  std::chrono::milliseconds header_timeout{10'000};  // from a head's first byte to its last
  std::chrono::milliseconds body_timeout{10'000};    // this, and a second more for each ...
  int64_t body_bytes_per_second_min = 16 * 1024;     // ... bytes that came
  std::chrono::milliseconds write_timeout{30'000};   // without one byte taken by the client
  std::chrono::milliseconds answer_timeout{24 * 3'600'000};  // to the end of the answer
  size_t stream_buffer_bytes_max = 1024 * 1024;              // per response, waiting for the client
  // Bodies of all requests that are received or in the hands of a handler; one more gets 503.
  int64_t all_bodies_bytes_max = 512 * 1024 * 1024;
};

// One answered request, for access logs and metrics.
struct AccessRecord {
  std::string_view method;
  std::string_view path;
  std::string_view route;  // the pattern; "" when none matched or the request was not understood
  std::string_view peer;
  int status = 0;  // 499: the client left before the answer began
  int64_t bytes_sent = 0;
  Duration duration{0};
};

struct ServerOptions {
  ServerLimits limits;
  // What errors found by http look like; plain text if not given.
  ErrorRenderer render_error;
  // Looks at every request after its path is normalised and before its body is read or a route is
  // sought; a response refuses it. `request.body` is empty then.
  std::function<std::optional<Response>(const Request& request)> guard;
  std::function<void(const AccessRecord& record)> on_answered;
};

class Server {
 public:
  Server(net::EventLoop& loop, ServerOptions options);
  // Closes everything at once; handlers under way have been told when it returns, unless it runs on
  // the loop.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // `pattern` is "/v1/models" or, with the rest in request.rest, "/v1/models/*".
  void route(std::string_view method,
             std::string_view pattern,
             Handler handler,
             RouteOptions options = {});

  // Accepts connections from now on; may be called for several addresses. The address with the
  // port that was chosen, or kUnavailable.
  Result<net::Address> listen(const net::Address& address, const net::ListenOptions& options = {});

  // Stops accepting, closes idle connections, lets answers under way end. What is not done after
  // `timeout` is cut. `done` is called on the loop, once.
  void drain(Duration timeout, std::function<void()> done);
  // The same, waiting. Not from the loop's thread.
  void drain_and_wait(Duration timeout);

  int num_connections() const;

 private:
  class Core;
  std::shared_ptr<Core> core_;  // shared with its connections' pending operations
};

}  // namespace wideep::http
