// One streamed completion over HTTP, as chat and the load generator make it.
#pragma once

#include "base/clock.h"
#include "base/json.h"
#include "http/client.h"
#include "net/address.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace wideep::cmd {

// Where a server is: from "http://host:port[/base]" or "unix:/path".
struct ServerUrl {
  net::Address address;
  std::string base;  // path in front of /v1, often ""

  static Result<ServerUrl> parse(const std::string& url);

  std::string target(const std::string& path) const { return base + path; }
};

struct CompletionResult {
  std::string error;  // "" when it went well
  int status = 0;     // of the HTTP answer
  TimePoint start{};
  Duration first_token{};  // from start
  Duration total{};
  std::vector<Duration> gaps;  // between chunks that carry tokens
  std::string text;
  std::string reasoning;
  std::string finish_reason;
  int64_t prompt_tokens = 0;  // as the server counted them
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  // What a gateway with --expose-routes says of the way: "default/decode-0 10.0.0.7:8000"; else "".
  std::string decode_route;
  std::string prefill_route;
};

struct CompletionCall {
  ServerUrl server;
  std::string path;  // "/v1/chat/completions" or "/v1/completions"
  std::string api_key;
  Json body;  // without stream and stream_options, which are added
  std::chrono::milliseconds timeout{600'000};
  // Text as it comes; `is_reasoning` for the part between <think> and </think>. May be empty.
  std::function<void(std::string_view text, bool is_reasoning)> on_text;
  std::function<void(CompletionResult result)> on_done;  // once, on the client's loop
};

http::CallHandle start_completion(http::Client& client, CompletionCall call);
// The same, waiting. Not on the client's loop.
CompletionResult complete(http::Client& client, CompletionCall call);

// Text and reasoning of a stream chunk's first choice (chat or legacy form).
struct ChunkText {
  std::string text;
  std::string reasoning;
};

ChunkText text_of_chunk(const Json& chunk);

}  // namespace wideep::cmd
