#include "server/prompt_builder.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace wideep::server {
namespace {

using tokenizer::TextOrigin;
using tokenizer::TextSegment;

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

api::ApiResult<BuiltPrompt> PromptBuilder::build(const api::ChatFields& chat) const {
  auto segments = render(chat);
  if (!segments) return std::unexpected(std::move(segments.error()));
  if (chat.continue_final_message &&
      !end_with_content(*segments, chat.messages.back().content.value_or(""))) {
    return std::unexpected(api::invalid_value(
        "continue_final_message", "The template does not end with the final message's text."));
  }
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
