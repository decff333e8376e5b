#include "http/forward.h"

#include "http/field_list.h"
#include "http/target.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

namespace wideep::http {
namespace {

constexpr std::array<std::string_view, 10> kConnectionHeaders = {"connection",
                                                                 "keep-alive",
                                                                 "proxy-authenticate",
                                                                 "proxy-authorization",
                                                                 "proxy-connection",
                                                                 "te",
                                                                 "trailer",
                                                                 "transfer-encoding",
                                                                 "upgrade",
                                                                 "content-length"};

constexpr size_t kTailBytes = 2;

// One request under way. All on the client's loop, except what the responder calls, which only
// posts to it.
class Forward : public std::enable_shared_from_this<Forward> {
 public:
  Forward(net::EventLoop& loop, Responder responder, ForwardEvents events)
      : loop_(loop), responder_(std::move(responder)), events_(std::move(events)) {}

  CallHandle start(Client& client, Call call) {
    const auto self = shared_from_this();
    call_ = client.start(std::move(call),
                         {.on_head = [self](const ResponseHead& head) { self->on_head(head); },
                          .on_body = [self](std::string_view bytes) { self->on_body(bytes); },
                          .on_done = [self](const CallResult& result) { self->on_done(result); }});
    responder_.on_disconnect([call = call_]() mutable { call.cancel(); });
    return call_;
  }

 private:
  void on_head(ResponseHead head) {
    if (events_.on_head) events_.on_head(head);
    Response answer;
    answer.status = head.status;
    answer.headers = end_to_end_headers(std::move(head.headers));
    began_ = responder_.begin(answer);
    if (!began_) call_.cancel();
  }

  void on_body(std::string_view bytes) {
    send(events_.rewrite ? events_.rewrite(bytes, false) : std::string(bytes));
  }

  // What the client's buffer has no room for waits here while the upstream is paused, so it is
  // bounded by one piece.
  void send(std::string bytes) {
    if (bytes.empty()) return;
    tail_ += bytes.size() < kTailBytes ? bytes : bytes.substr(bytes.size() - kTailBytes);
    if (tail_.size() > kTailBytes) tail_.erase(0, tail_.size() - kTailBytes);
    if (!pending_.empty()) {
      pending_ += bytes;
      return;
    }
    const WriteResult result = responder_.write(bytes);
    if (result == WriteResult::kGone) {
      call_.cancel();
      return;
    }
    if (result == WriteResult::kFull) pending_ = std::move(bytes);
    if (!pending_.empty() || responder_.buffered() > responder_.buffer_bytes_max() / 2)
      wait_for_client();
  }

  void wait_for_client() {
    call_.pause();
    // The server's thread says when; the work is done on the client's loop.
    responder_.on_writable(
        [self = shared_from_this()] { self->loop_.post([self] { self->on_writable(); }); });
  }

  void on_writable() {
    if (responder_.is_gone()) {
      call_.cancel();
      return;
    }
    // A piece larger than the whole buffer goes in parts.
    const size_t part = std::min(pending_.size(), responder_.buffer_bytes_max() / 2);
    if (part > 0 &&
        responder_.write(std::string_view(pending_).substr(0, part)) == WriteResult::kTaken) {
      pending_.erase(0, part);
    }
    if (!pending_.empty()) {
      wait_for_client();
    } else if (ended_) {
      responder_.finish();
    } else {
      call_.resume();
    }
  }

  void on_done(const CallResult& result) {
    if (!result && !began_) {
      fail_before_answer(result);
      return;
    }
    if (result) {
      if (events_.rewrite) send(events_.rewrite({}, true));
      ended_ = true;
      if (pending_.empty()) responder_.finish();
    } else {
      cut(result.error());
    }
    if (events_.on_done) events_.on_done(result);
  }

  void cut(const CallFailure& failure) {
    std::string words;
    if (events_.last_words) words = events_.last_words(failure, tail_);
    if (words.empty()) {
      responder_.abort();
      return;
    }
    send(std::move(words));
    ended_ = true;
    if (pending_.empty()) responder_.finish();
  }

  void fail_before_answer(const CallResult& result) {
    if (events_.on_failure && events_.on_failure(result.error())) return;
    const bool timed_out = result.error().error.code == ErrorCode::kTimeout;
    responder_.send({.status = timed_out ? 504 : 502, .headers = {}, .body = "upstream failed\n"});
    if (events_.on_done) events_.on_done(result);
  }

  net::EventLoop& loop_;
  Responder responder_;
  ForwardEvents events_;
  CallHandle call_;
  std::string pending_;
  std::string tail_;  // of what the client was sent, at most kTailBytes
  bool began_ = false;
  bool ended_ = false;
};

}  // namespace

std::string forwarded_target(const Request& request) {
  return encode_path(request.path) + (request.query.empty() ? "" : "?" + request.query);
}

Headers end_to_end_headers(Headers headers) {
  const std::string connection(headers.get("connection"));
  headers.erase_if([&](const Header& header) {
    const bool is_of_connection = std::ranges::any_of(
        kConnectionHeaders,
        [&](std::string_view name) { return equal_ignoring_case(name, header.name); });
    return is_of_connection || equal_ignoring_case(header.name, "host") ||
           has_element(connection, header.name);
  });
  return headers;
}

CallHandle forward(
    net::EventLoop& loop, Client& client, Call call, Responder responder, ForwardEvents events) {
  // Shared by the callbacks of the call and of the responder.
  return std::make_shared<Forward>(loop, std::move(responder), std::move(events))
      ->start(client, std::move(call));
}

}  // namespace wideep::http
