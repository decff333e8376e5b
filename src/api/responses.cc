#include "api/responses.h"

#include "base/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace wideep::api {
namespace {

// What vLLM writes for a logprob that JSON cannot hold.
constexpr double kLogprobMin = -9999.0;

Json logprob_json(double logprob) {
  return std::isfinite(logprob) ? Json(std::max(logprob, kLogprobMin)) : Json(kLogprobMin);
}

Json ids_json(const std::vector<TokenId>& ids) {
  Json::Array array;
  array.reserve(ids.size());
  for (const TokenId id : ids)
    array.emplace_back(index(id));
  return array;
}

Json token_json(const TokenText& token) {
  Json::Array bytes;
  for (const char c : token.bytes)
    bytes.emplace_back(static_cast<int>(static_cast<unsigned char>(c)));
  Json json;
  json.set("token", token.bytes);  // ill-formed bytes are written as U+FFFD
  json.set("logprob", logprob_json(token.logprob));
  json.set("bytes", std::move(bytes));
  return json;
}

Json chat_logprobs_json(const std::vector<TokenLogprobs>& logprobs) {
  Json::Array content;
  for (const TokenLogprobs& entry : logprobs) {
    Json json = token_json(entry.chosen);
    Json::Array top;
    for (const TokenText& token : entry.top)
      top.push_back(token_json(token));
    json.set("top_logprobs", std::move(top));
    content.push_back(std::move(json));
  }
  Json json;
  json.set("content", std::move(content));
  return json;
}

// Legacy logprobs know tokens by text alone; part of a character is spelled "bytes:\xe2\x82".
std::string legacy_token(const std::string& bytes) {
  if (is_valid_utf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes)
    text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

Json legacy_logprobs_json(const std::vector<TokenLogprobs>& logprobs, int64_t text_offset) {
  Json::Array tokens;
  Json::Array token_logprobs;
  Json::Array top_logprobs;
  Json::Array offsets;
  for (const TokenLogprobs& entry : logprobs) {
    std::string token = legacy_token(entry.chosen.bytes);
    Json top{Json::Object{}};
    for (const TokenText& candidate : entry.top) {
      const std::string name = legacy_token(candidate.bytes);
      // Tokens may share a text; the most likely one speaks for it.
      if (top.find(name) == nullptr) top.set(name, logprob_json(candidate.logprob));
    }
    if (top.find(token) == nullptr) top.set(token, logprob_json(entry.chosen.logprob));
    tokens.emplace_back(std::move(token));
    token_logprobs.push_back(logprob_json(entry.chosen.logprob));
    top_logprobs.push_back(std::move(top));
    offsets.emplace_back(text_offset);
    text_offset += num_characters(entry.chosen.bytes);
  }
  Json json;
  json.set("text_offset", std::move(offsets));
  json.set("token_logprobs", std::move(token_logprobs));
  json.set("tokens", std::move(tokens));
  json.set("top_logprobs", std::move(top_logprobs));
  return json;
}

Json usage_json(const Usage& usage) {
  Json json;
  json.set("prompt_tokens", usage.prompt_tokens);
  json.set("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  json.set("completion_tokens", usage.completion_tokens);
  Json prompt_details;
  prompt_details.set("cached_tokens", usage.cached_tokens);
  json.set("prompt_tokens_details", std::move(prompt_details));
  if (usage.reasoning_tokens) {
    Json details;
    details.set("reasoning_tokens", *usage.reasoning_tokens);
    json.set("completion_tokens_details", std::move(details));
  }
  return json;
}

Json stop_reason_json(const StopReason& reason) {
  if (const auto* text = std::get_if<std::string>(&reason)) return *text;
  if (const auto* token = std::get_if<TokenId>(&reason)) return index(*token);
  return nullptr;
}

Json finish_reason_json(std::string_view reason) {
  return reason.empty() ? Json() : Json(reason);
}

void set_ending(Json& choice, const ChoicePart& part) {
  choice.set("finish_reason", finish_reason_json(part.finish_reason));
  if (!part.finish_reason.empty()) choice.set("stop_reason", stop_reason_json(part.stop_reason));
  if (part.token_ids) choice.set("token_ids", ids_json(*part.token_ids));
}

Json head_json(const AnswerHead& head, std::string_view object) {
  Json json;
  json.set("id", head.id);
  json.set("object", object);
  json.set("created", head.created);
  json.set("model", head.model);
  return json;
}

Json completion_choice_json(const ChoicePart& part, int64_t text_offset) {
  Json choice;
  choice.set("index", part.index);
  choice.set("text", part.text);
  choice.set("logprobs",
             part.logprobs ? legacy_logprobs_json(*part.logprobs, text_offset) : Json());
  set_ending(choice, part);
  if (part.prompt_token_ids) choice.set("prompt_token_ids", ids_json(*part.prompt_token_ids));
  return choice;
}

void set_tail(Json& json, const AnswerTail& tail) {
  json.set("usage", usage_json(tail.usage));
  if (tail.kv_transfer_params) json.set("kv_transfer_params", *tail.kv_transfer_params);
}

Json model_json(const ModelCard& model) {
  Json json;
  json.set("id", model.id);
  json.set("object", "model");
  json.set("created", model.created);
  json.set("owned_by", "wideep");
  json.set("root", model.root);
  json.set("parent", nullptr);
  json.set("max_model_len", model.max_model_len);
  json.set("permission", Json::Array{});
  return json;
}

}  // namespace

int64_t num_characters(std::string_view utf8) {
  return std::ranges::count_if(
      utf8, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string encode_chat_answer(const AnswerHead& head,
                               const std::vector<ChoicePart>& choices,
                               const AnswerTail& tail) {
  Json json = head_json(head, "chat.completion");
  Json::Array array;
  for (const ChoicePart& part : choices) {
    Json message;
    message.set("role", "assistant");
    const bool is_only_reasoning = part.text.empty() && !part.reasoning.empty();
    message.set("content", is_only_reasoning ? Json() : Json(part.text));
    message.set("refusal", nullptr);
    if (!part.reasoning.empty()) message.set("reasoning_content", part.reasoning);
    Json choice;
    choice.set("index", part.index);
    choice.set("message", std::move(message));
    choice.set("logprobs", part.logprobs ? chat_logprobs_json(*part.logprobs) : Json());
    set_ending(choice, part);
    array.push_back(std::move(choice));
  }
  json.set("choices", std::move(array));
  json.set("service_tier", nullptr);
  json.set("system_fingerprint", nullptr);
  set_tail(json, tail);
  if (!choices.empty() && choices[0].prompt_token_ids) {
    json.set("prompt_token_ids", ids_json(*choices[0].prompt_token_ids));
  }
  return json.dump();
}

std::string encode_completion_answer(const AnswerHead& head,
                                     const std::vector<ChoicePart>& choices,
                                     const AnswerTail& tail) {
  Json json = head_json(head, "text_completion");
  Json::Array array;
  for (const ChoicePart& part : choices)
    array.push_back(completion_choice_json(part, part.text_offset));
  json.set("choices", std::move(array));
  json.set("system_fingerprint", nullptr);
  set_tail(json, tail);
  return json.dump();
}

ChunkEncoder::ChunkEncoder(Kind kind, const AnswerHead& head) : kind_(kind) {
  begin_ =
      head_json(head, kind == Kind::kChat ? "chat.completion.chunk" : "text_completion").dump();
  begin_.back() = ',';
  begin_ += "\"choices\":[";
}

std::string ChunkEncoder::opening(const ChoicePart& part, const Usage* usage) const {
  Json delta;
  delta.set("role", "assistant");
  delta.set("content", "");
  Json choice;
  choice.set("index", part.index);
  choice.set("delta", std::move(delta));
  choice.set("logprobs", nullptr);
  choice.set("finish_reason", nullptr);
  std::string chunk = finish(choice.dump(), usage);
  if (part.prompt_token_ids) {  // beside the choices, as in whole answers
    chunk.back() = ',';
    chunk += "\"prompt_token_ids\":" + ids_json(*part.prompt_token_ids).dump() + '}';
  }
  return chunk;
}

std::string ChunkEncoder::part(const ChoicePart& part, const Usage* usage) const {
  if (kind_ == Kind::kCompletion) {
    return finish(completion_choice_json(part, part.text_offset).dump(), usage);
  }
  Json delta{Json::Object{}};
  if (!part.reasoning.empty()) delta.set("reasoning_content", part.reasoning);
  if (!part.text.empty()) delta.set("content", part.text);
  Json choice;
  choice.set("index", part.index);
  choice.set("delta", std::move(delta));
  choice.set("logprobs", part.logprobs ? chat_logprobs_json(*part.logprobs) : Json());
  set_ending(choice, part);
  return finish(choice.dump(), usage);
}

std::string ChunkEncoder::usage(const AnswerTail& tail) const {
  std::string chunk = finish({}, &tail.usage);
  if (tail.kv_transfer_params) {
    chunk.back() = ',';
    chunk += "\"kv_transfer_params\":" + tail.kv_transfer_params->dump() + '}';
  }
  return chunk;
}

std::string ChunkEncoder::finish(std::string choices, const Usage* usage) const {
  std::string chunk = begin_ + std::move(choices) + ']';
  if (usage != nullptr) chunk += ",\"usage\":" + usage_json(*usage).dump();
  return chunk + '}';
}

std::string encode_models(const std::vector<ModelCard>& models) {
  Json::Array array;
  for (const ModelCard& model : models)
    array.push_back(model_json(model));
  Json json;
  json.set("object", "list");
  json.set("data", std::move(array));
  return json.dump();
}

std::string encode_model(const ModelCard& model) {
  return model_json(model).dump();
}

std::string encode_tokenize(const TokenizeAnswer& answer) {
  Json json;
  json.set("count", answer.tokens.size());
  json.set("max_model_len", answer.max_model_len);
  json.set("tokens", ids_json(answer.tokens));
  Json strings;
  if (answer.token_strs) {
    Json::Array array;
    for (const std::string& text : *answer.token_strs)
      array.emplace_back(text);
    strings = std::move(array);
  }
  json.set("token_strs", std::move(strings));
  return json.dump();
}

std::string encode_detokenize(std::string_view prompt) {
  Json json;
  json.set("prompt", prompt);
  return json.dump();
}

}  // namespace wideep::api
