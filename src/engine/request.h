// A generation request inside the engine, and what comes out of it.
//
// A request is prompt_tokens + generated_prefix + effective seed. A new request has no generated
// prefix; one that is resumed after preemption, a lost rank or a cut stream carries the tokens it
// has produced so far: they count as generated (penalties, max_tokens, stop strings), and what
// follows is what would have followed without the interruption. Events report only what comes after
// the prefix.
#pragma once

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "kv/kv_source.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace wideep::engine {

// Sampling as vLLM defines it (order: min_tokens and logit_bias, penalties, temperature, min_p,
// top_k, top_p).
struct SamplingParams {
  float temperature = 1.0F;  // < 1e-5: greedy
  float top_p = 1.0F;
  int32_t top_k = 0;  // 0 or -1: off
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;  // over prompt and output
  float frequency_penalty = 0.0F;   // over output
  float presence_penalty = 0.0F;
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> allowed_tokens;  // empty: all
  int64_t seed = 0;                     // effective: drawn at the door if the client gave none
  std::optional<int32_t> logprobs;      // how many alternatives to report beside the sampled token
};

struct StopParams {
  int64_t max_tokens = 16;  // generated tokens in all, the prefix included
  int64_t min_tokens = 0;   // end-of-sequence and stop tokens cannot come earlier
  std::vector<TokenId> stop_tokens;
  std::vector<std::string> stop_strings;
  bool include_stop_string = false;
  bool ignore_eos = false;
};

struct Request {
  std::string id;
  std::vector<TokenId> prompt_tokens;
  std::vector<TokenId> generated_prefix;
  SamplingParams sampling;
  StopParams stop;
  int32_t priority = 0;    // lower runs first, as in vLLM
  std::string cache_salt;  // prompts of different salts never share cached blocks
  bool skip_special_tokens = true;
  bool keep_kv = false;  // of the prompt at its end, for another rank to pull
  kv::TicketPtr ticket;  // the prompt's KV can be pulled with it; null: it is computed here
};

enum class FinishReason : uint8_t {
  kStop,    // end of sequence, stop token or stop string
  kLength,  // max_tokens or the context is full
  kAbort,   // cancelled
  kError,   // see RequestEvent::error
};

struct TokenLogprob {
  TokenId token{};
  float logprob = 0;  // log-softmax of the raw logits
};

struct GeneratedToken {
  TokenId token{};
  float logprob = 0;              // set when sampling.logprobs is
  std::vector<TokenLogprob> top;  // the most likely ones, best first
};

struct RequestUsage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     // prompt tokens whose KV was in the prefix cache or was pulled
  int64_t generated_tokens = 0;  // the prefix included
};

// When things happened to a request, by the engine's clock; the epoch (zero) if not yet. Queue time
// is scheduled - queued, prefill first_token - scheduled, decode last_token - first_token.
struct RequestTiming {
  TimePoint queued{};
  TimePoint scheduled{};  // first computed in a step
  TimePoint first_token{};
  TimePoint last_token{};
};

// What one step produced for a request. The last event has `finish`.
struct RequestEvent {
  std::vector<GeneratedToken> tokens;
  std::string text;  // whole UTF-8 characters, never part of a stop string
  std::optional<FinishReason> finish;
  std::string stop_reason;            // the stop string that matched
  std::optional<TokenId> stop_token;  // the stop token that matched, unless it was end-of-sequence
  std::string error;                  // with kError: a text fit for the client
  ErrorCode error_code = ErrorCode::kUnavailable;  // with kError
  // With the last event of a request with keep_kv: what its lease is, the issuer's address left
  // open. Null: the KV was not kept. Shared by the event's copies.
  std::shared_ptr<const api::KvTicket> kv_ticket;
  bool retryable = false;  // with kError: the same request may succeed elsewhere or later
  RequestUsage usage;
  RequestTiming timing;
};

// Called on the engine thread, in order, until an event has `finish`: must not block.
using EventSink = std::function<void(const RequestEvent&)>;

}  // namespace wideep::engine
