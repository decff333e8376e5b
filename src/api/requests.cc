#include "api/requests.h"

#include "api/field_reader.h"
#include "api/generation_fields.h"

#include <fmt/format.h>

#include <utility>

namespace wideep::api {
namespace {

ApiResult<Json> parse_body(std::string_view body, const RequestLimits& limits) {
  Result<Json> json = parse_json(body, limits.json);
  if (!json) return std::unexpected(invalid_body(json.error().message));
  return *std::move(json);
}

// logprobs: true with top_logprobs: k.
void read_chat_logprobs(FieldReader& reader,
                        const RequestLimits& limits,
                        GenerationFields& fields) {
  bool wanted = false;
  std::optional<int64_t> top;
  reader.read("logprobs", wanted);
  reader.read("top_logprobs", top, {0, limits.logprobs_max});
  if (top.value_or(0) > 0 && !wanted)
    return reader.fail("top_logprobs", "is allowed only with logprobs: true");
  if (wanted) fields.logprobs = top.value_or(0);
}

void refuse_tools(FieldReader& reader) {
  if (const Json* tools = reader.take("tools")) {
    const bool is_empty = tools->is_array() && tools->as_array()->empty();
    reader.fail(is_empty ? invalid_value("tools", "'tools' must not be an empty array.")
                         : not_implemented("tools", "tools do not exist yet"));
  }
  reader.refuse_unless("tool_choice", Json("none"), "tools do not exist yet");
  reader.refuse("functions", "tools do not exist yet");
  reader.refuse("function_call", "tools do not exist yet");
  reader.ignore("parallel_tool_calls");  // means nothing without tools
}

void refuse_formats(FieldReader& reader) {
  const Json* format = reader.take("response_format");
  const Json* type = format == nullptr ? nullptr : format->find("type");
  if (format != nullptr && (type == nullptr || *type != Json("text"))) {
    reader.fail(not_implemented("response_format", "only {\"type\": \"text\"} is"));
  }
}

void refuse_chat_features(FieldReader& reader) {
  refuse_formats(reader);
  reader.refuse_unless("modalities", Json(Json::Array{Json("text")}), "answers are text");
  reader.refuse("audio", "answers are text");
  reader.refuse("prediction", "there is no predicted output");
  reader.refuse("reasoning_effort", "use chat_template_kwargs as the model's template asks");
  reader.refuse("verbosity", "the model decides");
  reader.refuse("web_search_options", "there is no search");
  reader.refuse_unless("echo", Json(false), "only text completions echo");
}

ApiResult<Prompt> token_prompt(const Json::Array& ids) {
  std::vector<TokenId> tokens;
  tokens.reserve(ids.size());
  for (const Json& id : ids) {
    const auto token = token_id_of(id);
    if (!token) {
      return std::unexpected(
          invalid_value("prompt", "'prompt' must hold token ids from 0 to 2147483647."));
    }
    tokens.push_back(*token);
  }
  return Prompt(std::move(tokens));
}

// "text", ["text", ...], [1, 2, ...] or [[1, 2, ...], ...].
void read_prompts(FieldReader& reader, const RequestLimits& limits, std::vector<Prompt>& prompts) {
  const Json* value = reader.take("prompt");
  if (value == nullptr) return reader.fail("prompt", "is missing");
  if (const std::string* text = value->as_string()) {
    prompts.emplace_back(*text);
    return;
  }
  const Json::Array* items = value->as_array();
  if (items == nullptr || items->empty()) {
    return reader.fail("prompt", "must be a string, strings, token ids or lists of token ids");
  }
  const auto add_tokens = [&](const Json::Array& ids) {
    ApiResult<Prompt> prompt = token_prompt(ids);
    if (!prompt) return reader.fail(std::move(prompt.error()));
    prompts.push_back(*std::move(prompt));
  };
  if (items->front().is_number()) return add_tokens(*items);
  if (items->size() > limits.prompts_max) {
    return reader.fail("prompt", fmt::format("may have at most {} prompts, not {}",
                                             limits.prompts_max, items->size()));
  }
  for (const Json& item : *items) {
    if (const std::string* text = item.as_string()) {
      prompts.emplace_back(*text);
    } else if (const Json::Array* ids = item.as_array()) {
      add_tokens(*ids);
    } else {
      return reader.fail("prompt", "must be a string, strings, token ids or lists of token ids");
    }
  }
}

}  // namespace

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  ApiResult<Json> json = parse_body(body, limits);
  if (!json) return std::unexpected(std::move(json.error()));
  FieldReader reader(*json);
  ChatRequest request;
  if (!reader.failed()) {
    read_generation_fields(reader, limits, request.generation);
    read_chat_logprobs(reader, limits, request.generation);
    read_chat_fields(reader, limits, request.chat);
    reader.read("include_reasoning", request.include_reasoning);
    refuse_tools(reader);
    refuse_chat_features(reader);
  }
  if (auto error = reader.finish()) return std::unexpected(*std::move(error));
  return request;
}

ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const RequestLimits& limits) {
  ApiResult<Json> json = parse_body(body, limits);
  if (!json) return std::unexpected(std::move(json.error()));
  FieldReader reader(*json);
  CompletionRequest request;
  if (!reader.failed()) {
    read_generation_fields(reader, limits, request.generation);
    reader.read("logprobs", request.generation.logprobs, {0, limits.logprobs_max});
    read_prompts(reader, limits, request.prompts);
    reader.read("echo", request.echo);
    if (request.echo && request.generation.logprobs) {
      reader.fail(not_implemented("echo", "logprobs are given for generated tokens only"));
    }
    reader.read("add_special_tokens", request.add_special_tokens);
    refuse_formats(reader);
  }
  if (auto error = reader.finish()) return std::unexpected(*std::move(error));
  return request;
}

ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const RequestLimits& limits) {
  ApiResult<Json> json = parse_body(body, limits);
  if (!json) return std::unexpected(std::move(json.error()));
  FieldReader reader(*json);
  TokenizeRequest request;
  if (!reader.failed()) {
    reader.read("model", request.model, limits.id_bytes_max);
    reader.read("return_token_strs", request.return_token_strs);
    if (json->find("messages") != nullptr) {
      ChatFields chat;
      read_chat_fields(reader, limits, chat);
      reader.refuse("tools", "tools do not exist yet");
      request.input = std::move(chat);
    } else {
      std::string prompt;
      if (json->find("prompt") == nullptr) reader.fail("prompt", "or 'messages' must be given");
      reader.read("prompt", prompt, SIZE_MAX);
      reader.read("add_special_tokens", request.add_special_tokens);
      request.input = std::move(prompt);
    }
  }
  if (auto error = reader.finish()) return std::unexpected(*std::move(error));
  return request;
}

ApiResult<DetokenizeRequest> parse_detokenize_request(std::string_view body,
                                                      const RequestLimits& limits) {
  ApiResult<Json> json = parse_body(body, limits);
  if (!json) return std::unexpected(std::move(json.error()));
  FieldReader reader(*json);
  DetokenizeRequest request;
  if (!reader.failed()) {
    reader.read("model", request.model, limits.id_bytes_max);
    if (json->find("tokens") == nullptr) reader.fail("tokens", "is missing");
    reader.read("tokens", request.tokens, {});
  }
  if (auto error = reader.finish()) return std::unexpected(*std::move(error));
  return request;
}

}  // namespace wideep::api
