#include "epp/request_body.h"

namespace wideep::epp {
namespace {

std::string text_of(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  const std::string* text = value != nullptr ? value->as_string() : nullptr;
  return text != nullptr ? *text : "";
}

void append_content(std::string& prompt, const Json& content) {
  if (const std::string* text = content.as_string()) prompt += *text;
  if (const Json::Array* parts = content.as_array()) {
    for (const Json& part : *parts)
      prompt += text_of(part, "text");
  }
}

void take_messages(PickRequest& pick, const Json& messages) {
  if (!messages.is_array()) return;
  for (const Json& message : *messages.as_array()) {
    pick.prompt += text_of(message, "role");
    pick.prompt += '\n';
    if (const Json* content = message.find("content")) append_content(pick.prompt, *content);
    pick.prompt += '\n';
  }
}

void take_prompt(PickRequest& pick, const Json& prompt) {
  if (const std::string* text = prompt.as_string()) pick.prompt = *text;
  if (!prompt.is_array()) return;
  for (const Json& item : *prompt.as_array()) {
    if (const auto token = item.as_int()) {
      pick.tokens.push_back(static_cast<uint32_t>(*token));
    } else {
      take_prompt(pick, item);  // a list of prompts: the last one leads
    }
  }
}

}  // namespace

Result<RequestBody> parse_request_body(std::string_view body) {
  WD_ASSIGN_OR_RETURN(Json json, parse_json(body, kBodyJsonLimits));
  if (!json.is_object()) return invalid_argument("the body must be a JSON object");
  RequestBody result{.json = std::move(json), .pick = {}};
  const Json& object = result.json;
  result.pick.model = text_of(object, "model");
  result.pick.cache_salt = text_of(object, "cache_salt");
  if (const Json* stream = object.find("stream")) result.stream = stream->as_bool().value_or(false);
  if (const Json* system = object.find("system")) append_content(result.pick.prompt, *system);
  if (const Json* messages = object.find("messages")) take_messages(result.pick, *messages);
  if (const Json* prompt = object.find("prompt")) take_prompt(result.pick, *prompt);
  return result;
}

}  // namespace wideep::epp
