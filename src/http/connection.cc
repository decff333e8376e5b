#include "http/connection.h"

#include "http/target.h"

#include <algorithm>
#include <utility>

namespace wideep::http {
namespace {

using net::asio::awaitable;

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
// How long a client may take to read a last error before its connection is cut.
constexpr std::chrono::seconds kLingerTimeout{1};
// A client that gives no sign of life for so long has vanished with its machine.
constexpr std::chrono::seconds kClientSilenceMax{32};
// Requests sent ahead wait here while one is being answered.
constexpr size_t kPipelinedBytesMax = 64 * 1024;

TimePoint now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

// One request while it comes in, and what is needed to answer and record it.
struct Connection::Incoming {
  Request request;
  bool is_head = false;
  bool is_http_1_0 = false;
  bool keep_alive = false;
  const Route* route = nullptr;
};

Connection::Connection(net::Socket socket, std::shared_ptr<ConnectionContext> context)
    : pump_(std::make_shared<SocketPump>(std::move(socket))),
      context_(std::move(context)),
      peer_(net::peer_name(pump_->socket())) {
  net::set_no_delay(pump_->socket());
  net::notice_silence(pump_->socket(), kClientSilenceMax);
  ++context_->num_connections;
}

Connection::~Connection() {
  --context_->num_connections;
}

void Connection::start() {
  net::asio::co_spawn(
      pump_->executor(), [self = shared_from_this()] { return self->serve(); },
      net::asio::detached);
}

void Connection::start_refusing() {
  net::asio::co_spawn(
      pump_->executor(), [self = shared_from_this()] { return self->refuse(); },
      net::asio::detached);
}

void Connection::close() {
  closing_ = true;
  pump_->close();
}

void Connection::drain() {
  closing_ = true;
  pump_->notify();
}

awaitable<void> Connection::serve() {
  bool go_on = true;
  while (go_on && !closing_)
    go_on = co_await serve_one();
  co_await linger_and_close();
}

awaitable<void> Connection::refuse() {
  request_began_at_ = now();
  exchange_ = make_exchange({});
  exchange_->send(error_response({503, "The server has too many connections."}));
  co_await answer(*exchange_);
  co_await linger_and_close();
}

awaitable<bool> Connection::serve_one() {
  auto head = co_await read_head();
  if (!head) co_return false;
  Incoming incoming;
  std::optional<Response> refused;
  if (*head) {
    refused = co_await receive(**std::move(head), incoming);
  } else {
    refused = error_response(head->error());
  }
  const auto exchange = make_exchange(incoming);
  exchange_ = exchange;
  if (refused) {
    exchange->send(*std::move(refused));
  } else {
    // The handler gets the request to keep; what is recorded of it stays here.
    Request request = std::move(incoming.request);
    incoming.request.method = request.method;
    incoming.request.path = request.path;
    incoming.route->handler(std::move(request), Responder(exchange));
  }
  const bool complete = co_await answer(*exchange);
  record(incoming, *exchange);
  exchange_.reset();
  if (exchange->needs_reset()) pump_->reset();
  co_return complete && exchange->may_keep_alive();
}

awaitable<std::optional<Response>> Connection::receive(RequestHead head, Incoming& incoming) {
  Request& request = incoming.request;
  request.peer = peer_;
  request.method = head.method;
  request.headers = std::move(head.headers);
  incoming.is_head = head.method == "HEAD";
  incoming.is_http_1_0 = head.is_http_1_0;
  Result<Target> target = normalise_target(head.target);
  if (!target) co_return error_response({400, target.error().message});
  request.path = std::move(target->path);
  request.query = std::move(target->query);

  // The body of a refused request is not read, and the connection not used again.
  const bool has_body = head.framing.kind != Framing::Kind::kNone;
  incoming.keep_alive = head.keep_alive && !has_body;
  if (auto refused = admit(incoming, head.framing)) co_return refused;
  ParserLimits limits = context_->options.limits.parser;
  const int64_t route_max = incoming.route->options.body_bytes_max;
  if (route_max > 0) limits.body_bytes_max = std::min(limits.body_bytes_max, route_max);
  const auto charge = std::make_shared<ByteCharge>(context_->bodies);
  Parsed<std::string> body = co_await read_body(head, limits, *charge);
  if (!body) {
    incoming.keep_alive = false;
    co_return error_response(body.error());
  }
  request.body = *std::move(body);
  request.body_charge = charge;
  incoming.keep_alive = head.keep_alive;
  co_return std::nullopt;
}

// Everything that can be said before the body is read.
std::optional<Response> Connection::admit(Incoming& incoming, const Framing& framing) const {
  const ServerOptions& options = context_->options;
  Request& request = incoming.request;
  if (options.guard) {
    if (auto refused = options.guard(request)) return refused;
  }
  const Router::Match match = context_->router.find(request.method, request.path);
  if (match.route == nullptr) {
    if (match.allow.empty()) return error_response({404, "There is nothing at this path."});
    Response response = error_response({405, "The path does not take this method."});
    response.headers.set("allow", match.allow);
    return response;
  }
  incoming.route = match.route;
  request.rest = match.rest;
  const std::string& wanted = match.route->options.media_type;
  if (!wanted.empty() && framing.kind != Framing::Kind::kNone &&
      !equal_ignoring_case(media_type(request.headers.get("content-type")), wanted)) {
    return error_response({415, fmt::format("The content-type must be {}.", wanted)});
  }
  return std::nullopt;
}

awaitable<std::optional<Parsed<RequestHead>>> Connection::read_head() {
  const ServerLimits& limits = context_->options.limits;
  HeadScanner scanner(limits.parser);
  TimePoint deadline = now() + limits.idle_timeout;
  std::string& input = pump_->input();
  bool begun = false;
  bool skipped_empty_line = false;
  while (true) {
    // Some clients send a line end after a body (RFC 9112 section 2.2).
    if (!begun && !skipped_empty_line && input.starts_with("\r\n")) {
      input.erase(0, 2);
      skipped_empty_line = true;
    }
    if (!input.empty() && input != "\r") {
      if (!begun) {
        begun = true;
        request_began_at_ = now();
        deadline = request_began_at_ + limits.header_timeout;
      }
      const auto size = scanner.scan(input);
      if (!size) co_return std::unexpected(size.error());
      if (*size) {
        auto head = parse_request_head(std::string_view(input).substr(0, **size), limits.parser);
        input.erase(0, **size);
        co_return head;
      }
    }
    if (pump_->read_closed() || (closing_ && !begun)) co_return std::nullopt;
    pump_->start_read();
    co_await pump_->wait_until(deadline);
    if (now() >= deadline) {
      if (!begun) co_return std::nullopt;
      co_return std::unexpected(Refusal{408, "The head took too long to arrive."});
    }
  }
}

awaitable<Parsed<std::string>> Connection::read_body(const RequestHead& head,
                                                     const ParserLimits& limits,
                                                     ByteCharge& charge) {
  const ServerLimits& server_limits = context_->options.limits;
  const TimePoint began = now();
  std::string body;
  BodyDecoder decoder(head.framing, limits);
  if (head.framing.length > limits.body_bytes_max) {
    co_return std::unexpected(Refusal{413, "The body is too large."});
  }
  if (head.expects_continue && !decoder.done() && pump_->input().empty()) {
    pump_->start_write(std::string(kContinue));
  }
  body.reserve(std::min<size_t>(static_cast<size_t>(head.framing.length), 1 << 20));
  while (true) {
    const auto used = decoder.decode(pump_->input(), body);
    if (!used) co_return std::unexpected(used.error());
    pump_->input().erase(0, *used);
    if (!charge.grow_to(static_cast<int64_t>(body.size()))) {
      co_return std::unexpected(Refusal{503, "The server is receiving too much."});
    }
    if (decoder.done() && !pump_->is_writing()) co_return body;
    if (pump_->read_closed() || pump_->write_failed()) {
      co_return std::unexpected(Refusal{400, "The body is not complete."});
    }
    if (!decoder.done()) pump_->start_read();
    const std::chrono::seconds allowance(decoder.body_bytes() /
                                         server_limits.body_bytes_per_second_min);
    const TimePoint deadline = began + server_limits.body_timeout + allowance;
    co_await pump_->wait_until(deadline);
    if (now() >= deadline) {
      co_return std::unexpected(Refusal{408, "The body took too long to arrive."});
    }
  }
}

awaitable<bool> Connection::answer(Exchange& exchange) {
  const ServerLimits& limits = context_->options.limits;
  const TimePoint answer_deadline = now() + limits.answer_timeout;
  TimePoint quiet_since = now();
  while (true) {
    while (!pump_->is_writing() && !pump_->write_failed()) {
      exchange.output_written();
      std::string output = exchange.take_output();
      if (output.empty()) break;
      quiet_since = now();
      pump_->start_write(std::move(output));
    }
    if (exchange.is_finished() && !pump_->is_writing() && !pump_->write_failed()) co_return true;
    // Who closes before the answer is complete has left; a half-closed client gets what is ready.
    const bool has_left = pump_->write_failed() || (pump_->read_closed() && !pump_->is_writing());
    if (has_left || now() >= answer_deadline) break;
    if (pump_->input().size() < kPipelinedBytesMax) pump_->start_read();

    TimePoint deadline = answer_deadline;
    const Duration ping_interval = exchange.ping_interval();
    if (pump_->is_writing()) {
      deadline = std::min(deadline, pump_->write_progress_at() + limits.write_timeout);
    } else if (ping_interval > Duration{0}) {
      deadline = std::min(deadline, quiet_since + ping_interval);
    }
    if (co_await pump_->wait_until(deadline)) continue;
    if (!pump_->is_writing()) {
      if (ping_interval > Duration{0}) exchange.ping();
    } else if (now() >= pump_->write_progress_at() + limits.write_timeout) {
      break;
    }
  }
  exchange.mark_gone();
  co_return false;
}

// Closing with unread input makes the kernel cut the connection, and the peer may lose what was
// written last. So: say that we are done, and read on for a moment.
awaitable<void> Connection::linger_and_close() {
  if (!pump_->write_failed()) pump_->shutdown_send();
  const TimePoint deadline = now() + kLingerTimeout;
  while (!pump_->read_closed() && !pump_->write_failed()) {
    pump_->input().clear();
    pump_->start_read();
    co_await pump_->wait_until(deadline);
    if (now() >= deadline) break;
  }
  pump_->close();
}

Response Connection::error_response(const Refusal& refusal) const {
  Response response = context_->options.render_error(refusal.status, refusal.message);
  if (refusal.status == 503) response.headers.set("retry-after", "1");
  return response;
}

std::shared_ptr<Exchange> Connection::make_exchange(const Incoming& incoming) {
  Exchange::Options options;
  options.is_head_request = incoming.is_head;
  options.is_http_1_0 = incoming.is_http_1_0;
  options.keep_alive = incoming.keep_alive && !closing_;
  options.buffer_bytes_max = context_->options.limits.stream_buffer_bytes_max;
  options.render_error = context_->options.render_error;
  options.wake = [weak = std::weak_ptr(pump_)] {
    if (const auto pump = weak.lock()) pump->wake();
  };
  return std::make_shared<Exchange>(std::move(options));
}

void Connection::record(const Incoming& incoming, const Exchange& exchange) const {
  if (!context_->options.on_answered) return;
  const bool never_began = exchange.status() == 0;
  context_->options.on_answered(
      {.method = incoming.request.method,
       .path = incoming.request.path,
       .route = incoming.route == nullptr ? std::string_view() : incoming.route->pattern,
       .peer = peer_,
       .status = never_began ? 499 : exchange.status(),
       .bytes_sent = exchange.bytes_sent(),
       .duration = now() - request_began_at_});
}

}  // namespace wideep::http
