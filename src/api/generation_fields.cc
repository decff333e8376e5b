#include "api/generation_fields.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace wideep::api {
namespace {

constexpr int64_t kTokensMax = int64_t{1} << 31;
constexpr Range<int64_t> kInt32{INT32_MIN, INT32_MAX};

// Accepted whatever they hold: they change nothing about the answer.
constexpr std::array kHarmlessFields = {std::string_view("user"),
                                        std::string_view("metadata"),
                                        std::string_view("store"),
                                        std::string_view("safety_identifier"),
                                        std::string_view("prompt_cache_key"),
                                        std::string_view("prompt_cache_retention")};

struct RefusedField {
  std::string_view name;
  std::string_view reason;
};

constexpr std::array kRefusedFields = {
    RefusedField{"prompt_logprobs", "logprobs are given for generated tokens only"},
    RefusedField{"truncate_prompt_tokens", "prompts are never cut"},
    RefusedField{"logits_processors", "there are no plug-ins"},
    RefusedField{"structured_outputs", "constrained decoding does not exist yet"},
    RefusedField{"guided_json", "constrained decoding does not exist yet"},
    RefusedField{"guided_regex", "constrained decoding does not exist yet"},
    RefusedField{"guided_choice", "constrained decoding does not exist yet"},
    RefusedField{"guided_grammar", "constrained decoding does not exist yet"},
    RefusedField{"prompt_embeds", "prompts are text or token ids"},
    RefusedField{"mm_processor_kwargs", "prompts are text"},
    RefusedField{"vllm_xargs", "there are no plug-ins"},
    RefusedField{"lora_request", "adapters are not supported"},
};

void read_stop(FieldReader& reader, const RequestLimits& limits, GenerationFields& fields) {
  const Json* value = reader.take("stop");
  if (value == nullptr) return;
  Json::Array one;
  if (value->is_string()) one.push_back(*value);
  const Json::Array* stops = value->is_string() ? &one : value->as_array();
  if (stops == nullptr) return reader.fail("stop", "must be a string or an array of strings");
  if (stops->size() > limits.stops_max) {
    return reader.fail("stop", fmt::format("may have at most {} strings, not {}", limits.stops_max,
                                           stops->size()));
  }
  for (const Json& stop : *stops) {
    const std::string* text = stop.as_string();
    if (text == nullptr) return reader.fail("stop", "must be a string or an array of strings");
    if (text->empty() || text->size() > limits.stop_bytes_max) {
      return reader.fail("stop", fmt::format("must hold strings of 1 to {} bytes, not {}",
                                             limits.stop_bytes_max, text->size()));
    }
    fields.stop.push_back(*text);
  }
}

// {"50256": -100}
void read_logit_bias(FieldReader& reader, const RequestLimits& limits, GenerationFields& fields) {
  const Json* value = reader.take("logit_bias");
  if (value == nullptr) return;
  const Json::Object* biases = value->as_object();
  if (biases == nullptr) return reader.fail("logit_bias", "must be an object");
  if (biases->size() > limits.logit_bias_max) {
    return reader.fail("logit_bias", fmt::format("may have at most {} entries, not {}",
                                                 limits.logit_bias_max, biases->size()));
  }
  for (const auto& [key, bias_value] : *biases) {
    int32_t id = 0;
    const char* end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, id);
    if (parsed.ec != std::errc{} || parsed.ptr != end || id < 0) {
      return reader.fail("logit_bias", "must have token ids as keys");
    }
    const auto bias = bias_value.as_double();
    if (!bias || *bias < -100 || *bias > 100) {
      return reader.fail("logit_bias", "must have numbers from -100 to 100 as values");
    }
    fields.logit_bias.emplace_back(static_cast<TokenId>(id), *bias);
  }
}

void read_stream_options(FieldReader& reader, GenerationFields& fields) {
  reader.read("stream", fields.stream);
  const Json* options = reader.take("stream_options");
  if (options == nullptr) return;
  if (!fields.stream) return reader.fail("stream_options", "is allowed only with stream: true");
  FieldReader inner(*options, "stream_options.");
  inner.read("include_usage", fields.include_usage);
  inner.read("continuous_usage_stats", fields.continuous_usage_stats);
  // Padding against traffic analysis: asking for none is what happens.
  inner.refuse_unless("include_obfuscation", Json(false), "chunks are never padded");
  if (auto error = inner.finish()) reader.fail(*std::move(error));
}

void read_kv_transfer(FieldReader& reader, const RequestLimits& limits, GenerationFields& fields) {
  const Json* value = reader.take("kv_transfer_params");
  if (value == nullptr) return;
  if (!limits.allow_kv_transfer) {
    return reader.fail(not_implemented("kv_transfer_params", "this server moves no KV"));
  }
  if (!value->is_object()) return reader.fail("kv_transfer_params", "must be an object");
  if (value->dump().size() > limits.kv_transfer_bytes_max) {
    return reader.fail("kv_transfer_params",
                       fmt::format("may have at most {} bytes", limits.kv_transfer_bytes_max));
  }
  fields.kv_transfer_params = *value;
}

// What clients send whose defaults ask for what happens anyway.
void refuse_all_but_defaults(FieldReader& reader, int64_t n) {
  reader.refuse_unless("best_of", Json(n), "use n");
  reader.refuse_unless("suffix", Json(""), "text is only generated at the end");
  reader.refuse_unless("use_beam_search", Json(false), "only sampling is implemented");
  reader.refuse_unless("length_penalty", Json(1.0), "only sampling is implemented");
  reader.refuse_unless("early_stopping", Json(false), "only sampling is implemented");
  reader.refuse_unless("bad_words", Json(Json::Array{}), "use logit_bias");
  reader.refuse_unless("return_tokens_as_token_ids", Json(false), "use return_token_ids");
  reader.refuse_unless("spaces_between_special_tokens", Json(true), "spaces are never left out");
  reader.refuse_unless("detokenize", Json(true), "answers are text");
}

void read_sampling(FieldReader& reader, const RequestLimits& limits, GenerationFields& fields) {
  reader.read("n", fields.n, {1, limits.n_max});
  reader.read("temperature", fields.temperature, {0, 2});
  reader.read("top_p", fields.top_p, {0, 1});
  if (fields.top_p && *fields.top_p == 0) reader.fail("top_p", "must be above 0 and at most 1");
  reader.read("top_k", fields.top_k, {-1, INT32_MAX});
  reader.read("min_p", fields.min_p, {0, 1});
  reader.read("repetition_penalty", fields.repetition_penalty, {0, 10});
  if (fields.repetition_penalty && *fields.repetition_penalty == 0) {
    reader.fail("repetition_penalty", "must be above 0 and at most 10");
  }
  reader.read("presence_penalty", fields.presence_penalty, {-2, 2});
  reader.read("frequency_penalty", fields.frequency_penalty, {-2, 2});
  reader.read("seed", fields.seed, {});
  read_logit_bias(reader, limits, fields);
  reader.read("allowed_token_ids", fields.allowed_token_ids,
              {.min = 1, .max = limits.allowed_token_ids_max});
}

ChatMessage read_message(const Json& json, std::string prefix, FieldReader& outer);

// A string, null, or [{"type":"text","text":"..."}, ...].
std::optional<std::string> read_content(const Json* content, FieldReader& reader) {
  if (content == nullptr) return std::nullopt;
  if (const std::string* text = content->as_string()) return *text;
  const Json::Array* parts = content->as_array();
  if (parts == nullptr) {
    reader.fail("content", "must be a string or an array of parts");
    return std::nullopt;
  }
  std::string joined;
  for (size_t i = 0; i < parts->size(); ++i) {
    FieldReader part((*parts)[i], "content part ");
    std::string type;
    std::string text;
    part.read("type", type, 64);
    if (type != "text") {
      reader.fail(not_implemented(type.empty() ? "content" : type, "only text parts are read"));
      return std::nullopt;
    }
    part.read("text", text, SIZE_MAX);
    if (auto error = part.finish()) {
      reader.fail(*std::move(error));
      return std::nullopt;
    }
    if (i > 0) joined += '\n';
    joined += text;
  }
  return joined;
}

ChatMessage read_message(const Json& json, std::string prefix, FieldReader& outer) {
  FieldReader reader(json, std::move(prefix));
  ChatMessage message;
  reader.read("role", message.role, 64);
  const bool is_known = message.role == "system" || message.role == "developer" ||
                        message.role == "user" || message.role == "assistant";
  if (message.role == "tool" || message.role == "function") {
    reader.fail(not_implemented("tool messages", "tools do not exist yet"));
  } else if (!reader.failed() && !is_known) {
    reader.fail("role", "must be system, developer, user or assistant");
  }
  message.content = read_content(reader.take("content"), reader);
  if (!message.content && message.role != "assistant") reader.fail("content", "is missing");
  reader.read("name", message.name, 256);
  reader.read("reasoning_content", message.reasoning_content, SIZE_MAX);
  // vLLM's newer name for the same.
  reader.read("reasoning", message.reasoning_content, SIZE_MAX);
  reader.refuse_unless("tool_calls", Json(Json::Array{}), "tools do not exist yet");
  reader.refuse("function_call", "tools do not exist yet");
  reader.refuse("tool_call_id", "tools do not exist yet");
  reader.refuse("audio", "messages are text");
  reader.refuse("refusal", "refusals are ordinary text here");
  reader.refuse_unless("annotations", Json(Json::Array{}), "messages are text");
  if (auto error = reader.finish()) outer.fail(*std::move(error));
  return message;
}

void read_template_kwargs(FieldReader& reader, const RequestLimits& limits, ChatFields& fields) {
  const Json* kwargs = reader.take("chat_template_kwargs");
  if (kwargs == nullptr) return;
  const Json::Object* members = kwargs->as_object();
  if (members == nullptr) return reader.fail("chat_template_kwargs", "must be an object");
  for (const auto& [key, value] : *members) {
    if (value.is_array() || value.is_object()) {
      return reader.fail("chat_template_kwargs", "must hold booleans, numbers and strings");
    }
    // What the renderer itself sets is not the client's to set.
    static constexpr std::array<std::string_view, 6> kReserved = {
        "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"};
    for (const std::string_view reserved : kReserved) {
      if (key == reserved) {
        return reader.fail("chat_template_kwargs", fmt::format("may not set '{}'", reserved));
      }
    }
  }
  if (kwargs->dump().size() > limits.template_kwargs_bytes_max) {
    return reader.fail("chat_template_kwargs",
                       fmt::format("may have at most {} bytes", limits.template_kwargs_bytes_max));
  }
  fields.template_kwargs = *kwargs;
}

}  // namespace

void read_generation_fields(FieldReader& reader,
                            const RequestLimits& limits,
                            GenerationFields& fields) {
  reader.read("model", fields.model, limits.id_bytes_max);
  read_sampling(reader, limits, fields);
  reader.read("max_tokens", fields.max_tokens, {1, kTokensMax});
  // The newer name wins, as OpenAI says. Sidecars send it with text completions too.
  reader.read("max_completion_tokens", fields.max_tokens, {1, kTokensMax});
  reader.read("min_tokens", fields.min_tokens, {0, kTokensMax});
  read_stop(reader, limits, fields);
  reader.read("stop_token_ids", fields.stop_token_ids, {.max = limits.stop_token_ids_max});
  reader.read("include_stop_str_in_output", fields.include_stop_str_in_output);
  reader.read("ignore_eos", fields.ignore_eos);
  reader.read("skip_special_tokens", fields.skip_special_tokens);
  read_stream_options(reader, fields);
  reader.read("return_token_ids", fields.return_token_ids);
  reader.read("priority", fields.priority, kInt32);
  reader.read("cache_salt", fields.cache_salt, limits.id_bytes_max);
  reader.read("request_id", fields.request_id, limits.id_bytes_max);
  read_kv_transfer(reader, limits, fields);
  for (const RefusedField& field : kRefusedFields)
    reader.refuse(field.name, field.reason);
  refuse_all_but_defaults(reader, fields.n);
  for (const std::string_view name : kHarmlessFields)
    reader.ignore(name);
  std::string service_tier;
  reader.read("service_tier", service_tier, 64);
  if (!service_tier.empty() && service_tier != "auto" && service_tier != "default") {
    reader.fail(not_implemented("service_tier", "there is only one tier"));
  }
}

void read_chat_fields(FieldReader& reader, const RequestLimits& limits, ChatFields& fields) {
  const Json* messages = reader.take("messages");
  const Json::Array* items = messages == nullptr ? nullptr : messages->as_array();
  if (items == nullptr || items->empty() || items->size() > limits.messages_max) {
    reader.fail("messages",
                fmt::format("must be an array of 1 to {} messages", limits.messages_max));
    return;
  }
  for (size_t i = 0; i < items->size() && !reader.failed(); ++i)
    fields.messages.push_back(read_message((*items)[i], fmt::format("messages[{}].", i), reader));
  reader.read("add_generation_prompt", fields.add_generation_prompt);
  reader.read("continue_final_message", fields.continue_final_message);
  if (fields.continue_final_message && fields.add_generation_prompt) {
    reader.fail("continue_final_message", "needs add_generation_prompt: false");
  }
  reader.read("add_special_tokens", fields.add_special_tokens);
  read_template_kwargs(reader, limits, fields);
  reader.refuse("chat_template", "the model's own template is used");
  reader.refuse("documents", "templates get messages only");
}

}  // namespace wideep::api
