// Passing a request on: the upstream's answer flows to the client as it comes, at the pace of the
// slower side. What gateways and sidecars are made of.
//
// The client's leaving cancels the upstream call; the upstream's failure after the answer began
// cuts the client's connection, so that a cut stream never looks complete, unless the caller has
// last words that say what has happened. Headers that belong to
// one connection are dropped. Thread: any; callbacks run on the client's loop. A forward keeps
// itself alive until its end.
#pragma once

#include "http/client.h"
#include "http/responder.h"

#include <functional>
#include <string>
#include <string_view>

namespace wideep::http {

struct ForwardEvents {
  // May change the head before it goes to the client (status, headers).
  std::function<void(ResponseHead& head)> on_head;
  // Rewrites a piece of the body; what it returns is sent. Called with end = true once more at the
  // end of a complete body. Without it the bytes pass unchanged.
  std::function<std::string(std::string_view bytes, bool end)> rewrite;
  // Nothing has gone to the client yet and the call failed: true means that the caller answers
  // (another endpoint, an error of its own), false that forward() answers with 502 or 504.
  std::function<bool(const CallFailure& failure)> on_failure;
  // The answer has begun and the call failed: what it returns is sent and ends the answer in order;
  // "": the connection is cut. `tail`: the last two bytes of the body so far.
  std::function<std::string(const CallFailure& failure, std::string_view tail)> last_words;
  // Exactly once, last; with the time and bytes for logs. Not after on_failure returned true.
  std::function<void(const CallResult& result)> on_done;
};

// `loop` is the client's.
CallHandle forward(
    net::EventLoop& loop, Client& client, Call call, Responder responder, ForwardEvents events);

// The target of the call that passes `request` on. The path is encoded again: what was decoded once
// must not be decoded twice, or the endpoint would serve another path than the one that was judged.
std::string forwarded_target(const Request& request);

// The headers that a proxy may pass on: all but those of the connection (RFC 9110 7.6.1) and
// those named by `connection`, and without host and content-length, which the client sets.
Headers end_to_end_headers(Headers headers);

}  // namespace wideep::http
