#include "server/engine_request.h"

#include "base/random.h"

#include <fmt/format.h>

#include <algorithm>

namespace wideep::server {
namespace {

// OpenAI's default for text completions; a chat may fill the context.
constexpr int64_t kCompletionTokensDefault = 16;

float number(const std::optional<double>& asked,
             const std::optional<double>& by_model,
             float otherwise) {
  if (asked) return static_cast<float>(*asked);
  return by_model ? static_cast<float>(*by_model) : otherwise;
}

engine::SamplingParams sampling_of(const api::GenerationFields& fields,
                                   const model::GenerationConfig& defaults) {
  engine::SamplingParams sampling;
  sampling.temperature = number(fields.temperature, defaults.temperature, sampling.temperature);
  sampling.top_p = number(fields.top_p, defaults.top_p, sampling.top_p);
  sampling.top_k = static_cast<int32_t>(fields.top_k.value_or(defaults.top_k.value_or(0)));
  sampling.min_p = number(fields.min_p, defaults.min_p, sampling.min_p);
  sampling.repetition_penalty =
      number(fields.repetition_penalty, defaults.repetition_penalty, sampling.repetition_penalty);
  sampling.presence_penalty = static_cast<float>(fields.presence_penalty);
  sampling.frequency_penalty = static_cast<float>(fields.frequency_penalty);
  for (const auto& [token, bias] : fields.logit_bias)
    sampling.logit_bias.emplace_back(token, static_cast<float>(bias));
  sampling.allowed_tokens = fields.allowed_token_ids;
  if (fields.logprobs) sampling.logprobs = static_cast<int32_t>(*fields.logprobs);
  return sampling;
}

api::ApiError too_long(int64_t max_model_len, int64_t num_prompt_tokens, int64_t max_tokens) {
  api::ApiError error = api::invalid_value(
      {},
      fmt::format("The context holds {} tokens; {} were asked for ({} of the prompt and {} to "
                  "generate).",
                  max_model_len, num_prompt_tokens + max_tokens, num_prompt_tokens, max_tokens));
  error.code = "context_length_exceeded";
  return error;
}

}  // namespace

api::ApiResult<engine::Request> make_engine_request(const api::GenerationFields& fields,
                                                    int64_t num_prompt_tokens,
                                                    const RequestContext& context) {
  const int64_t room = context.max_model_len - num_prompt_tokens;
  int64_t max_tokens = room;
  if (fields.max_tokens) {
    max_tokens = *fields.max_tokens;
  } else if (context.defaults.max_new_tokens) {
    max_tokens = std::min(room, *context.defaults.max_new_tokens);
  } else if (context.endpoint == Endpoint::kCompletion) {
    max_tokens = std::min(room, kCompletionTokensDefault);
  }
  if (room < 1 || max_tokens > room) {
    return std::unexpected(
        too_long(context.max_model_len, num_prompt_tokens, std::max<int64_t>(max_tokens, 1)));
  }
  if (fields.min_tokens > max_tokens) {
    return std::unexpected(api::invalid_value(
        "min_tokens", fmt::format("'min_tokens' ({}) is more than will be generated ({}).",
                                  fields.min_tokens, max_tokens)));
  }
  engine::Request request;
  request.sampling = sampling_of(fields, context.defaults);
  request.stop = {.max_tokens = max_tokens,
                  .min_tokens = fields.min_tokens,
                  .stop_tokens = fields.stop_token_ids,
                  .stop_strings = fields.stop,
                  .include_stop_string = fields.include_stop_str_in_output,
                  .ignore_eos = fields.ignore_eos};
  request.priority = static_cast<int32_t>(fields.priority);
  request.cache_salt = fields.cache_salt;
  request.skip_special_tokens = fields.skip_special_tokens;
  return request;
}

int64_t draw_seed() {
  return static_cast<int64_t>(random_device_bits() >> 1);
}

int64_t seed_of_choice(int64_t seed, int64_t choice) {
  return static_cast<int64_t>(static_cast<uint64_t>(seed) + static_cast<uint64_t>(choice));
}

}  // namespace wideep::server
