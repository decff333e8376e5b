// What clients get: completions whole and in chunks, models, tokens. Codecs only, in the key order
// of OpenAI and vLLM. Non-finite numbers never reach JSON: a logprob of -inf is -9999.0.
#pragma once

#include "base/ids.h"
#include "base/json.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace wideep::api {

// What all chunks of one answer share.
struct AnswerHead {
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;  // unix seconds
  std::string model;    // the served name
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  std::optional<int64_t> reasoning_tokens;
};

struct TokenText {
  std::string bytes;  // of the token alone; perhaps part of a character
  double logprob = 0;
};

struct TokenLogprobs {
  TokenText chosen;
  std::vector<TokenText> top;  // best first
};

// The stop string or stop token that ended a choice.
using StopReason = std::variant<std::monostate, std::string, TokenId>;

// A choice, or what a chunk adds to it.
struct ChoicePart {
  int64_t index = 0;
  std::string text;
  std::string reasoning;  // chat only
  std::optional<std::vector<TokenLogprobs>> logprobs;
  int64_t text_offset = 0;         // characters of the choice's text before the first of `logprobs`
  std::string_view finish_reason;  // "" while it goes on
  StopReason stop_reason;
  std::optional<std::vector<TokenId>> token_ids;         // of this part
  std::optional<std::vector<TokenId>> prompt_token_ids;  // whole answers and first chunks
};

struct AnswerTail {
  Usage usage;
  std::optional<Json> kv_transfer_params;
};

std::string encode_chat_answer(const AnswerHead& head,
                               const std::vector<ChoicePart>& choices,
                               const AnswerTail& tail);
std::string encode_completion_answer(const AnswerHead& head,
                                     const std::vector<ChoicePart>& choices,
                                     const AnswerTail& tail);

// Of text in UTF-8, or of tokens that are parts of it: summed up, the same.
int64_t num_characters(std::string_view utf8);

// The chunks of one streamed answer, as the data of server-sent events. What all chunks begin with
// is rendered once. Thread: one at a time.
class ChunkEncoder {
 public:
  enum class Kind { kChat, kCompletion };
  ChunkEncoder(Kind kind, const AnswerHead& head);

  // The first chunk of a chat choice: {"role":"assistant","content":""}.
  std::string opening(const ChoicePart& part, const Usage* usage) const;
  // `usage` is not null when every chunk is to carry it.
  std::string part(const ChoicePart& part, const Usage* usage) const;
  // The last chunk, without choices.
  std::string usage(const AnswerTail& tail) const;

 private:
  std::string finish(std::string choices, const Usage* usage) const;

  Kind kind_;
  std::string begin_;  // {"id":...,"object":...,"created":...,"model":...,"choices":[
};

inline constexpr std::string_view kDone = "[DONE]";

struct ModelCard {
  std::string id;
  int64_t created = 0;
  std::string root;
  int64_t max_model_len = 0;
};

std::string encode_models(const std::vector<ModelCard>& models);
std::string encode_model(const ModelCard& model);

struct TokenizeAnswer {
  std::vector<TokenId> tokens;
  int64_t max_model_len = 0;
  std::optional<std::vector<std::string>> token_strs;  // raw bytes of each
};

std::string encode_tokenize(const TokenizeAnswer& answer);
std::string encode_detokenize(std::string_view prompt);

}  // namespace wideep::api
