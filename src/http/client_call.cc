#include "http/client_call.h"

#include "net/lookup.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace wideep::http {
namespace {

using Stage = CallFailure::Stage;
using net::asio::awaitable;

TimePoint now() {
  return std::chrono::steady_clock::now();
}

bool has_visible_characters_only(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7F; });
}

}  // namespace

CallHandle::Core::Core(std::shared_ptr<Client::Core> client, Call call, CallEvents events)
    : client_(std::move(client)),
      call_(std::move(call)),
      events_(std::move(events)),
      key_(call_.address.to_string()),
      deadline_(now() + call_.total_timeout) {}

void CallHandle::Core::start() {
  starting_ = true;
  net::asio::co_spawn(
      net::context(client_->loop()),
      [self = shared_from_this()]() -> awaitable<void> {
        const CallResult result = co_await self->run();
        // Nobody hears the end of a call before start() has given them its handle.
        if (self->starting_) {
          self->loop().post([self, result] { self->finish(result); });
        } else {
          self->finish(result);
        }
      },
      net::asio::detached);
  starting_ = false;
}

void CallHandle::Core::cancel() {
  cancelled_ = true;
  if (pump_) pump_->notify();
}

void CallHandle::Core::hang_up(Duration patience) {
  const bool is_sent = pump_ && !pump_->is_connecting() && !pump_->is_writing() &&
                       pump_->bytes_written() > written_before_;
  if (!is_sent) return cancel();
  hung_up_ = true;
  deadline_ = std::min(deadline_, now() + patience);
  pump_->shutdown_send();
  pump_->notify();
}

void CallHandle::Core::set_paused(bool paused) {
  paused_ = paused;
  if (pump_) pump_->notify();
}

awaitable<CallResult> CallHandle::Core::run() {
  if (!has_visible_characters_only(call_.target) || !has_visible_characters_only(call_.method)) {
    co_return fail(Stage::kNothingSent, ErrorCode::kInvalidArgument, "bad method or target");
  }
  while (true) {
    if (cancelled_) co_return fail(Stage::kNothingSent, ErrorCode::kCancelled, "cancelled");
    pump_ = client_->take_idle(key_);
    const bool is_reused = pump_ != nullptr;
    if (!is_reused) {
      CallResult connected = co_await connect();
      if (!connected) co_return connected;
    }
    written_before_ = pump_->bytes_written();
    CallResult result = co_await converse();
    if (result) co_return result;
    client_->discard(key_, std::exchange(pump_, nullptr));
    // A kept connection may have died a moment ago. When it took nothing, a new one may.
    const bool try_again = is_reused && result.error().stage == Stage::kNothingSent &&
                           result.error().error.code == ErrorCode::kUnavailable;
    if (!try_again) co_return result;
  }
}

awaitable<CallResult> CallHandle::Core::connect() {
  if (!client_->count_open(key_)) {
    co_return fail(Stage::kNothingSent, ErrorCode::kExhausted, "too many connections");
  }
  pump_ = std::make_shared<SocketPump>(net::Socket(net::context(client_->loop())));
  const TimePoint deadline = std::min(deadline_, now() + call_.connect_timeout);
  const auto endpoint = co_await resolve(deadline);
  CallResult result;
  if (!endpoint) {
    result = fail(Stage::kNothingSent, endpoint.error().code, endpoint.error().message);
  } else {
    pump_->start_connect(*endpoint);
    while (result && pump_->is_connecting())
      result = co_await wait(Stage::kNothingSent, deadline, "connecting");
    if (result && pump_->write_failed()) {
      result = fail(Stage::kNothingSent, ErrorCode::kUnavailable, "cannot connect");
    }
  }
  if (!result) client_->discard(key_, std::exchange(pump_, nullptr));
  co_return result;
}

awaitable<std::expected<net::Protocol::endpoint, Error>> CallHandle::Core::resolve(
    TimePoint deadline) {
  if (auto endpoint = net::to_endpoint(call_.address)) co_return *endpoint;

  // Shared with the callback: the resolver may answer after we have given up.
  const auto lookup = std::make_shared<std::optional<net::HostAddresses>>();
  net::start_lookup(client_->loop(), call_.address.host,
                    [lookup, pump = pump_](const net::HostAddresses& addresses) {
                      *lookup = addresses;
                      pump->notify();
                    });
  while (!*lookup) {
    const CallResult waited = co_await wait(Stage::kNothingSent, deadline, "resolving the name");
    if (!waited) co_return std::unexpected(waited.error().error);
  }
  const net::HostAddresses& addresses = **lookup;
  if (!addresses) co_return error(ErrorCode::kUnavailable, "{}", addresses.error().message);
  net::Address address = call_.address;
  address.host = addresses->front();
  auto endpoint = net::to_endpoint(address);
  if (!endpoint) co_return std::unexpected(endpoint.error());
  co_return *endpoint;
}

awaitable<CallResult> CallHandle::Core::converse() {
  pump_->start_write(render_request());
  auto head = co_await read_head();
  if (!head) co_return std::unexpected(head.error());
  if (events_.on_head) events_.on_head(*head);
  CallResult result = co_await read_body(*head);
  if (!result) co_return result;
  const bool is_clean = head->keep_alive && !hung_up_ && !pump_->is_writing() &&
                        !pump_->write_failed() && !pump_->read_closed() && pump_->input().empty();
  if (is_clean) {
    client_->give_back(key_, std::exchange(pump_, nullptr));
  } else {
    client_->discard(key_, std::exchange(pump_, nullptr));
  }
  co_return result;
}

awaitable<std::expected<ResponseHead, CallFailure>> CallHandle::Core::read_head() {
  const ParserLimits& limits = client_->options().parser;
  HeadScanner scanner(limits);
  std::string& input = pump_->input();
  while (true) {
    const Stage stage =
        pump_->bytes_written() == written_before_ ? Stage::kNothingSent : Stage::kSent;
    const auto size = scanner.scan(input);
    if (!size) {
      co_return fail(Stage::kSent, ErrorCode::kInvalidArgument, size.error().message);
    }
    if (*size) {
      const std::string_view bytes = std::string_view(input).substr(0, **size);
      auto head = parse_response_head(bytes, limits, call_.method == "HEAD");
      if (!head) {
        co_return fail(Stage::kSent, ErrorCode::kInvalidArgument, head.error().message);
      }
      input.erase(0, **size);
      if (head->status >= 200) co_return *std::move(head);
      scanner = HeadScanner(limits);  // an interim response: the real one follows
      continue;
    }
    // A server that refuses early may stop reading; its answer may have come all the same.
    if (pump_->read_closed()) {
      co_return fail(stage, ErrorCode::kUnavailable, "closed before it answered");
    }
    pump_->start_read();
    TimePoint deadline = pump_->write_progress_at() + call_.idle_timeout;
    if (!pump_->is_writing()) deadline = pump_->write_progress_at() + call_.head_timeout;
    const CallResult waited = co_await wait(stage, deadline, "waiting for the answer");
    if (!waited) {
      // The write may have got on while we waited without being told.
      const bool still_writing = pump_->is_writing() && !cancelled_ && now() < deadline_ &&
                                 now() < pump_->write_progress_at() + call_.idle_timeout;
      if (!still_writing) co_return std::unexpected(waited.error());
    }
  }
}

awaitable<CallResult> CallHandle::Core::read_body(const ResponseHead& head) {
  BodyDecoder decoder(head.framing, client_->options().parser);
  std::string bytes;
  TimePoint last_byte_at = now();
  while (!decoder.done()) {
    if (!paused_) {
      const auto used = decoder.decode(pump_->input(), bytes);
      if (!used) {
        co_return fail(Stage::kAnswering, ErrorCode::kInvalidArgument, used.error().message);
      }
      pump_->input().erase(0, *used);
      if (!bytes.empty()) {
        last_byte_at = now();
        if (events_.on_body) events_.on_body(bytes);
        bytes.clear();
        if (cancelled_) co_return fail(Stage::kAnswering, ErrorCode::kCancelled, "cancelled");
      }
      if (decoder.done()) break;
      if (pump_->read_closed() && pump_->input().empty()) {
        if (decoder.close()) break;
        co_return fail(Stage::kAnswering, ErrorCode::kUnavailable, "closed within its answer");
      }
      pump_->start_read();
    } else {
      last_byte_at = now();
    }
    TimePoint deadline = deadline_;
    if (!paused_) deadline = std::min(deadline, last_byte_at + call_.idle_timeout);
    const CallResult waited = co_await wait(Stage::kAnswering, deadline, "reading the answer");
    if (!waited) co_return waited;
  }
  co_return CallResult{};
}

awaitable<CallResult> CallHandle::Core::wait(Stage stage,
                                             TimePoint deadline,
                                             std::string_view what) {
  const bool notified = co_await pump_->wait_until(std::min(deadline, deadline_));
  if (cancelled_) co_return fail(stage, ErrorCode::kCancelled, "cancelled");
  if (now() >= deadline_) co_return fail(stage, ErrorCode::kTimeout, "the call took too long");
  if (!notified) co_return fail(stage, ErrorCode::kTimeout, fmt::format("timeout {}", what));
  co_return CallResult{};
}

void CallHandle::Core::finish(const CallResult& result) {
  const auto self = shared_from_this();  // the client lets go of it now
  client_->end(self);
  const CallEvents events = std::exchange(events_, {});
  if (events.on_done) events.on_done(result);
}

std::unexpected<CallFailure> CallHandle::Core::fail(Stage stage,
                                                    ErrorCode code,
                                                    std::string_view message) const {
  return std::unexpected(CallFailure{stage, Error{code, fmt::format("{}: {}", key_, message)}});
}

std::string CallHandle::Core::render_request() const {
  std::string out;
  out.reserve(512 + call_.body.size());
  out.append(call_.method).append(" ").append(call_.target).append(" HTTP/1.1\r\n");
  if (call_.headers.find("host") == nullptr) {
    append_header_field(out, "host", call_.address.is_unix() ? "localhost" : key_);
  }
  for (const Header& field : call_.headers) {
    if (!is_framing_header(field.name)) append_header_field(out, field.name, field.value);
  }
  const bool may_have_body = call_.method != "GET" && call_.method != "HEAD";
  if (may_have_body || !call_.body.empty()) {
    append_header_field(out, "content-length", std::to_string(call_.body.size()));
  }
  out += "\r\n";
  out += call_.body;
  return out;
}

}  // namespace wideep::http
