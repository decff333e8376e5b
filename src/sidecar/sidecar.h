// Stands in front of one decode engine and conducts a request's two legs:
//
//   client -> sidecar -> prefill rank (one token, fills KV, answers kv_transfer_params)
//                     -> local decode engine (the request + those parameters) -> stream back
//
// It speaks the protocol of vLLM's NIXL connector and knows nothing of what the parameters mean.
// Requests without x-prefiller-host-port, and everything that is no completion, pass to the local
// engine untouched. Ownership: borrows loop and client, which must outlive it. Thread: created and
// destroyed on the loop's thread or while it is not running.
#pragma once

#include "base/result.h"
#include "http/api_keys.h"
#include "http/client.h"
#include "http/server.h"
#include "net/event_loop.h"
#include "sidecar/kv_releases.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace wideep::sidecar {

// What happens when the prefill leg fails with anything but the request's own fault (4xx passes
// through, but for 408 and 429: a full queue there says nothing about the request).
enum class PrefillFailurePolicy : uint8_t {
  kFail,        // the client gets the prefill's answer, or 502
  kRetryOther,  // the next host of the header, then as kFail
  kDecodeOnly,  // the local engine computes the prompt itself
};

struct SidecarOptions {
  net::Address engine;  // the local decode engine
  // Prefill hosts that may be called: "host" or "host:port". A header that names another is refused
  // with 403: without this list a client could make the sidecar call any address.
  std::vector<std::string> allowed_prefill;
  bool allow_any_prefill = false;  // switches the list off
  bool sample_prefill = false;     // a random host of the header first, not the first
  bool route_headers = false;      // answers name the prefill host that was used
  PrefillFailurePolicy on_prefill_failure = PrefillFailurePolicy::kFail;
  std::chrono::milliseconds connect_timeout{1'000};
  std::chrono::milliseconds prefill_timeout{600'000};
  std::chrono::milliseconds answer_timeout{600'000};
  int64_t prefill_body_bytes_max = 16 << 20;  // of the prefill's answer
  KvReleaseOptions release;
  http::ApiKeys keys;  // one of them is needed for everything but /health; none: everybody may call
  http::ServerLimits limits;
};

class Sidecar {
 public:
  Sidecar(net::EventLoop& loop, http::Client& client, SidecarOptions options);
  ~Sidecar();

  Result<net::Address> listen(const net::Address& address);
  // See http::Server::drain. Not from the loop's thread.
  void drain_and_wait(Duration timeout);

 private:
  class Core;
  std::shared_ptr<Core> core_;  // shared with the requests under way
};

}  // namespace wideep::sidecar
