// The two bodies of a disaggregated request and the rewriting of its answer, as plain functions on
// JSON (the NIXL connector's protocol, version 2).
#pragma once

#include "base/json.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wideep::sidecar {

// Leg 1, for the prefill rank: one token, no stream, and the request to keep the KV.
Json prefill_body(const Json& request);

// Leg 2, for the decode rank: the client's own request with the prefill's parameters, verbatim;
// without any if the prefill gave none, null (decode computes the prompt itself).
Json decode_body(const Json& request, const Json& kv_transfer_params);

// A legacy completion with a list of prompts. KV is handed over for one prompt, so that such a
// request has no first leg.
bool has_several_prompts(const Json& request);

// The client's request without what only our side may say.
void strip_internal_fields(Json& request);

// usage.prompt_tokens_details.cached_tokens of an answer; 0 if it has none.
int64_t cached_tokens(const Json& answer);
// Sets it, where the answer has a usage. True if it had.
bool set_cached_tokens(Json& answer, int64_t tokens);

// Rewrites cached_tokens in an answer that comes in pieces: server-sent events or one JSON
// document.
class UsageRewriter {
 public:
  // A JSON answer longer than this passes unchanged.
  static constexpr size_t kBodyBytesMax = size_t{64} << 20;

  UsageRewriter(bool is_event_stream, int64_t tokens)
      : is_event_stream_(is_event_stream), cached_tokens_(tokens) {}

  // What may be sent now. `end`: no more bytes come.
  std::string feed(std::string_view bytes, bool end);

 private:
  std::string rewrite_events(bool end);
  std::string rewrite_line(std::string_view line) const;

  bool is_event_stream_;
  int64_t cached_tokens_;
  std::string pending_;
  bool too_long_ = false;
};

}  // namespace wideep::sidecar
