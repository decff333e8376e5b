// What clients ask for: OpenAI's chat and text completions with vLLM's extensions, tokenize and
// detokenize. Plain values; parsing checks every type, range and limit, and names the field at
// fault. What we know and do not implement is refused by name; so is what we do not know, except
// for the fields that change nothing (kHarmlessFields in requests.cc, docs/api.md).
#pragma once

#include "api/error.h"
#include "base/ids.h"
#include "base/json.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace wideep::api {

struct RequestLimits {
  int64_t n_max = 16;
  size_t stops_max = 16;
  size_t stop_bytes_max = 256;
  size_t stop_token_ids_max = 256;
  size_t logit_bias_max = 1024;
  size_t allowed_token_ids_max = 4096;
  int64_t logprobs_max = 20;
  size_t prompts_max = 64;  // of one text completion
  size_t messages_max = 4096;
  size_t template_kwargs_bytes_max = 8 * 1024;
  size_t kv_transfer_bytes_max = 1024 * 1024;
  size_t id_bytes_max = 256;  // model, cache_salt, ...
  JsonLimits json = kBodyJsonLimits;
  // kv_transfer_params may move KV between ranks: only from peers that are trusted.
  bool allow_kv_transfer = false;
};

// What both kinds of completion have. Unset optionals: the model's own default.
struct GenerationFields {
  std::string model;  // "" if not given
  int64_t n = 1;
  std::optional<int64_t> max_tokens;
  int64_t min_tokens = 0;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::pair<TokenId, double>> logit_bias;
  std::vector<TokenId> allowed_token_ids;
  std::optional<int64_t> seed;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  std::optional<int64_t> logprobs;  // alternatives beside each sampled token
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool return_token_ids = false;
  int64_t priority = 0;
  std::string cache_salt;
  std::string request_id;                  // "" if not given
  std::optional<Json> kv_transfer_params;  // an object
};

struct ChatMessage {
  std::string role;                    // system, developer, user, assistant
  std::optional<std::string> content;  // text parts joined by line ends; unset: null
  std::string reasoning_content;       // of an assistant; "" if none
  std::string name;                    // "" if none
};

struct ChatFields {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  bool add_special_tokens = false;  // BOS beside what the template writes
  Json template_kwargs;             // null, or an object of scalars
};

struct ChatRequest {
  GenerationFields generation;
  ChatFields chat;
  bool include_reasoning = true;
};

using Prompt = std::variant<std::string, std::vector<TokenId>>;

struct CompletionRequest {
  GenerationFields generation;
  std::vector<Prompt> prompts;  // at least one
  bool echo = false;
  bool add_special_tokens = true;
};

struct TokenizeRequest {
  std::string model;
  std::variant<std::string, ChatFields> input;
  bool add_special_tokens = true;  // for a plain prompt
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
};

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);
ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const RequestLimits& limits);
ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const RequestLimits& limits);
ApiResult<DetokenizeRequest> parse_detokenize_request(std::string_view body,
                                                      const RequestLimits& limits);

}  // namespace wideep::api
