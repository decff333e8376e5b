#include "server/prompt_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace wideep::server {
namespace {

using tokenizer::TextOrigin;
using tokenizer::TextSegment;

// Normalisation (NFC) may shrink a text before it is cut into tokens, but never to a fourth.
constexpr size_t kShrinkMax = 4;

// Of any token.
size_t longest_token_bytes(const tokenizer::Tokenizer& tokenizer) {
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    longest = std::max(longest, tokenizer.token_bytes(TokenId{id}).size());
  return longest;
}

std::string_view trim_end(std::string_view text) {
  const size_t end = text.find_last_not_of(" \t\r\n");
  return text.substr(0, end == std::string_view::npos ? 0 : end + 1);
}

// What templates know as a message.
Json message_json(const api::ChatMessage& message) {
  Json json;
  json.set("role", message.role == "developer" ? "system" : message.role);
  json.set("content", message.content ? Json(*message.content) : Json());
  if (!message.reasoning_content.empty()) {
    json.set("reasoning_content", message.reasoning_content);
  }
  if (!message.name.empty()) json.set("name", message.name);
  return json;
}

// Cuts what the template wrote behind the last message, so that the model goes on with it.
bool end_with_content(std::vector<TextSegment>& segments, std::string_view content) {
  const std::string_view end = trim_end(content);
  while (!segments.empty() && segments.back().origin == TextOrigin::kTemplate)
    segments.pop_back();
  if (segments.empty() || end.empty()) return false;
  std::string& last = segments.back().text;
  last.resize(trim_end(last).size());
  return last.ends_with(end.substr(end.size() - std::min(end.size(), last.size())));
}

std::string last_text(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments)
    text = segment.origin == TextOrigin::kTemplate ? segment.text : "";
  return text;
}

}  // namespace

PromptBuilder::PromptBuilder(const tokenizer::Tokenizer& tokenizer,
                             ChatRenderer renderer,
                             int64_t max_model_len)
    : tokenizer_(tokenizer),
      renderer_(std::move(renderer)),
      max_model_len_(max_model_len),
      text_bytes_max_(static_cast<size_t>(max_model_len) * longest_token_bytes(tokenizer) *
                      kShrinkMax) {}

std::optional<api::ApiError> PromptBuilder::check_size(size_t text_bytes) const {
  if (text_bytes <= text_bytes_max_) return std::nullopt;
  api::ApiError error = api::invalid_value(
      {}, fmt::format("The context holds {} tokens, certainly less than the prompt's {} bytes.",
                      max_model_len_, text_bytes));
  error.code = "context_length_exceeded";
  return error;
}

api::ApiResult<BuiltPrompt> PromptBuilder::build(const api::ChatFields& chat) const {
  auto segments = render(chat);
  if (!segments) return std::unexpected(std::move(segments.error()));
  if (chat.continue_final_message &&
      !end_with_content(*segments, chat.messages.back().content.value_or(""))) {
    return std::unexpected(api::invalid_value(
        "continue_final_message", "The template does not end with the final message's text."));
  }
  size_t text_bytes = 0;
  for (const TextSegment& segment : *segments)
    text_bytes += segment.text.size();
  if (auto error = check_size(text_bytes)) return std::unexpected(*std::move(error));
  BuiltPrompt prompt;
  // Only what the template wrote opens the model's reasoning.
  prompt.reasoning = ThinkSplitter::start_after(last_text(*segments));
  auto tokens = tokenizer_.encode_chat(*segments);
  if (!tokens) return std::unexpected(api::invalid_value("messages", tokens.error().message));
  prompt.tokens = *std::move(tokens);
  const auto bos = tokenizer_.bos_id();
  if (chat.add_special_tokens && bos) prompt.tokens.insert(prompt.tokens.begin(), *bos);
  return prompt;
}

api::ApiResult<std::vector<TextSegment>> PromptBuilder::render(const api::ChatFields& chat) const {
  if (!renderer_) {
    return std::unexpected(api::not_implemented("messages", "the model has no chat template"));
  }
  Json variables;
  if (const Json::Object* kwargs = chat.template_kwargs.as_object()) {
    for (const auto& [key, value] : *kwargs)
      variables.set(key, value);
  }
  Json::Array messages;
  for (const api::ChatMessage& message : chat.messages)
    messages.push_back(message_json(message));
  variables.set("messages", std::move(messages));
  variables.set("add_generation_prompt", chat.add_generation_prompt);
  auto segments = renderer_(variables);
  if (!segments) return std::unexpected(api::invalid_value("messages", segments.error().message));
  return *std::move(segments);
}

api::ApiResult<BuiltPrompt> PromptBuilder::build(const api::Prompt& prompt,
                                                 bool add_special_tokens,
                                                 bool with_text) const {
  BuiltPrompt built;
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) {
    built.tokens = *ids;
    if (with_text) built.text = tokenizer_.decode(*ids);
  } else {
    const auto& text = std::get<std::string>(prompt);
    if (auto error = check_size(text.size())) return std::unexpected(*std::move(error));
    auto tokens = tokenizer_.encode(text, {.add_special_tokens = add_special_tokens});
    if (!tokens) return std::unexpected(api::invalid_value("prompt", tokens.error().message));
    built.tokens = *std::move(tokens);
    if (with_text) built.text = text;
  }
  if (built.tokens.empty()) {
    return std::unexpected(api::invalid_value("prompt", "'prompt' must not be empty."));
  }
  return built;
}

}  // namespace wideep::server
