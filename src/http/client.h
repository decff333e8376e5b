// An HTTP/1.1 client on one event loop: kept connections, streamed responses, deadlines.
//
// A call says how far it got when it fails, because only a call of which nothing was sent may be
// tried elsewhere without asking. Ownership: a call in progress keeps itself alive; the client's
// end cancels all. Thread: start(), fetch() and the methods of CallHandle from any thread;
// callbacks run on the loop.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "http/parser.h"
#include "net/address.h"
#include "net/event_loop.h"

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace wideep::http {

struct ClientOptions {
  ParserLimits parser{.body_bytes_max = int64_t{1} << 40};  // of responses
  int connections_per_address_max = 512;  // one more call fails at once, with nothing sent
  int idle_per_address_max = 64;          // kept for the next call; more are closed
  // Shorter than what servers use, so that a kept connection is rarely closed under a new request.
  std::chrono::milliseconds idle_timeout{15'000};
};

struct Call {
  net::Address address;  // the host may be a name
  std::string method = "GET";
  std::string target = "/";
  Headers headers;  // host, content-length and connection are added; others are sent as they are
  std::string body;
  std::chrono::milliseconds connect_timeout{2'000};
  std::chrono::milliseconds head_timeout{60'000};  // from the request's last byte to the head
  std::chrono::milliseconds idle_timeout{60'000};  // between bytes of the body, or of the request
  std::chrono::milliseconds total_timeout{24 * 3'600'000};
};

struct CallFailure {
  enum class Stage {
    kNothingSent,  // not connected, or no byte of the request was taken by the kernel
    kSent,         // the request may have been seen; no head has come
    kAnswering,    // the head has come; the body is not complete
  };
  Stage stage = Stage::kNothingSent;
  Error error;  // kCancelled, kTimeout, kUnavailable, kExhausted, kInvalidArgument (bad response)
};

using CallResult = std::expected<void, CallFailure>;

struct CallEvents {
  std::function<void(const ResponseHead& head)> on_head;
  std::function<void(std::string_view bytes)> on_body;
  // Exactly once, last.
  std::function<void(const CallResult& result)> on_done;
};

// Copies mean the same call. Letting go of the handle does not cancel.
class CallHandle {
 public:
  class Core;
  CallHandle() = default;

  explicit CallHandle(std::weak_ptr<Core> core) : core_(std::move(core)) {}

  // on_done says kCancelled, unless it has been called already.
  void cancel();
  // The answer is not wanted any more, but if it is on its way already it still comes: the sending
  // side is closed, which a server takes for a client that leaves, and what it has answered is read
  // for at most `patience`. Like cancel() if the request has not been sent whole.
  void hang_up(Duration patience);
  // No more bytes of the body are read until resume(): for a reader downstream that is slower.
  void pause();
  void resume();

 private:
  std::weak_ptr<Core> core_;
};

class Client {
 public:
  explicit Client(net::EventLoop& loop, ClientOptions options = {});
  // Cancels all calls; their on_done has been called when it returns, unless it runs on the loop.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  CallHandle start(Call call, CallEvents events);

  // The whole response, waiting for it. Not from the loop's thread. Bodies over `body_bytes_max`
  // fail with kExhausted.
  std::expected<Response, CallFailure> fetch(Call call, int64_t body_bytes_max = 64 * 1024 * 1024);

  int num_idle() const;

  class Core;

 private:
  std::shared_ptr<Core> core_;  // shared with calls in progress
};

}  // namespace wideep::http
