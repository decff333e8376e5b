// What workers do with a request: parse, build prompts, plan the choices, hand over to the loop.
#include "server/api_core.h"

#include <fmt/format.h>

#include <utility>

namespace wideep::server {

void ApiServer::Core::chat(const std::shared_ptr<Arrival>& arrival) {
  run(arrival, plan_chat(*arrival));
}

void ApiServer::Core::completion(const std::shared_ptr<Arrival>& arrival) {
  run(arrival, plan_completion(*arrival));
}

void ApiServer::Core::run(const std::shared_ptr<Arrival>& arrival, api::ApiResult<CallPlan> plan) {
  if (!plan) return refuse(*arrival, plan.error());
  const auto call = std::make_shared<GenerationCall>(context_, parts_.tokenizer, *std::move(plan),
                                                     arrival->responder);
  parts_.loop.post([self = shared_from_this(), call] {
    if (!self->closed_) call->start();
  });
}

api::ApiResult<CallPlan> ApiServer::Core::plan_chat(const Arrival& arrival) const {
  auto request = api::parse_chat_request(arrival.request.body, options_.request_limits);
  if (!request) return std::unexpected(std::move(request.error()));
  const api::GenerationFields& fields = request->generation;
  if (auto error = check_model(fields.model)) return std::unexpected(*std::move(error));
  auto prompt = prompts_.build(request->chat);
  if (!prompt) return std::unexpected(std::move(prompt.error()));
  if (!options_.split_reasoning) prompt->reasoning = ThinkSplitter::Start::kContent;
  CallPlan plan = begin_plan(Endpoint::kChat, arrival, fields);
  plan.count_reasoning = options_.split_reasoning;
  const int64_t seed = fields.seed ? *fields.seed : draw_seed();
  if (auto error = add_choices(plan, fields, *prompt, seed)) {
    return std::unexpected(*std::move(error));
  }
  for (PlannedChoice& choice : plan.choices)
    choice.options.include_reasoning = request->include_reasoning;
  if (auto error = add_kv_wish(plan, fields)) return std::unexpected(*std::move(error));
  return plan;
}

api::ApiResult<CallPlan> ApiServer::Core::plan_completion(const Arrival& arrival) const {
  const auto request = api::parse_completion_request(arrival.request.body, options_.request_limits);
  if (!request) return std::unexpected(request.error());
  const api::GenerationFields& fields = request->generation;
  if (auto error = check_model(fields.model)) return std::unexpected(*std::move(error));
  CallPlan plan = begin_plan(Endpoint::kCompletion, arrival, fields);
  // The prompts of one request share its seed, as they would one by one.
  const int64_t seed = fields.seed ? *fields.seed : draw_seed();
  for (const api::Prompt& prompt : request->prompts) {
    auto built = prompts_.build(prompt, request->add_special_tokens, request->echo);
    if (!built) return std::unexpected(std::move(built.error()));
    built->reasoning = ThinkSplitter::Start::kContent;
    if (auto error = add_choices(plan, fields, *built, seed)) {
      return std::unexpected(*std::move(error));
    }
  }
  if (fields.kv_transfer_params && request->prompts.size() > 1) {
    return std::unexpected(api::invalid_value(
        "kv_transfer_params", "KV moves for one prompt at a time; this request has several."));
  }
  if (auto error = add_kv_wish(plan, fields)) return std::unexpected(*std::move(error));
  return plan;
}

std::optional<api::ApiError> ApiServer::Core::add_kv_wish(
    CallPlan& plan, const api::GenerationFields& fields) const {
  if (!fields.kv_transfer_params) return std::nullopt;
  Result<kv::KvWish> wish = parts_.kv->read(*fields.kv_transfer_params);
  if (!wish) return api::invalid_value("kv_transfer_params", wish.error().message);
  engine::Request& request = plan.choices.front().request;
  request.keep_kv = wish->keep;
  request.ticket = std::move(wish->ticket);
  return std::nullopt;
}

CallPlan ApiServer::Core::begin_plan(Endpoint endpoint,
                                     const Arrival& arrival,
                                     const api::GenerationFields& fields) const {
  CallPlan plan;
  plan.endpoint = endpoint;
  const std::string& id = fields.request_id.empty() ? arrival.id : fields.request_id;
  plan.head = {.id = (endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + id,
               .created = parts_.clock.unix_seconds(),
               .model = fields.model.empty() ? options_.served_model_names.front() : fields.model};
  plan.headers = arrival.headers();
  plan.stream = fields.stream;
  plan.include_usage = fields.include_usage;
  plan.continuous_usage = fields.continuous_usage_stats;
  plan.n = fields.n;
  plan.arrival = arrival.time;
  return plan;
}

std::optional<api::ApiError> ApiServer::Core::add_choices(CallPlan& plan,
                                                          const api::GenerationFields& fields,
                                                          const BuiltPrompt& prompt,
                                                          int64_t seed) const {
  const RequestContext context{.endpoint = plan.endpoint,
                               .defaults = options_.defaults,
                               .max_model_len = parts_.engine.options().max_model_len};
  auto request = make_engine_request(fields, static_cast<int64_t>(prompt.tokens.size()), context);
  if (!request) return request.error();
  for (int64_t i = 0; i < fields.n; ++i) {
    const auto index = static_cast<int64_t>(plan.choices.size());
    PlannedChoice choice{.request = *request, .options = {}, .counts_prompt = i == 0};
    choice.request.id = fmt::format("{}-{}", plan.head.id, index);
    choice.request.prompt_tokens = prompt.tokens;
    choice.request.sampling.seed = seed_of_choice(seed, i);
    choice.options = {.index = index,
                      .split_reasoning = plan.endpoint == Endpoint::kChat,
                      .reasoning = prompt.reasoning,
                      .with_logprobs = fields.logprobs.has_value(),
                      .with_token_ids = fields.return_token_ids,
                      .echo = prompt.text,
                      .prompt_tokens = {}};
    if (fields.return_token_ids) choice.options.prompt_tokens = prompt.tokens;
    plan.choices.push_back(std::move(choice));
  }
  return std::nullopt;
}

void ApiServer::Core::tokenize(const std::shared_ptr<Arrival>& arrival) {
  const auto request = api::parse_tokenize_request(arrival->request.body, options_.request_limits);
  if (!request) return refuse(*arrival, request.error());
  if (const auto error = check_model(request->model)) return refuse(*arrival, *error);
  const auto* chat = std::get_if<api::ChatFields>(&request->input);
  api::TokenizeAnswer answer{
      .tokens = {}, .max_model_len = parts_.engine.options().max_model_len, .token_strs = {}};
  if (chat != nullptr) {
    auto prompt = prompts_.build(*chat);
    if (!prompt) return refuse(*arrival, prompt.error());
    answer.tokens = std::move(prompt->tokens);
  } else {
    auto tokens = parts_.tokenizer.encode(std::get<std::string>(request->input),
                                          {.add_special_tokens = request->add_special_tokens});
    if (!tokens) return refuse(*arrival, api::invalid_value("prompt", tokens.error().message));
    answer.tokens = *std::move(tokens);
  }
  if (request->return_token_strs) {
    answer.token_strs.emplace();
    for (const TokenId token : answer.tokens)
      answer.token_strs->emplace_back(parts_.tokenizer.token_bytes(token));
  }
  http::Headers headers = arrival->headers();
  headers.set("content-type", "application/json");
  arrival->responder.send(
      {.status = 200, .headers = std::move(headers), .body = api::encode_tokenize(answer)});
}

void ApiServer::Core::detokenize(const std::shared_ptr<Arrival>& arrival) {
  const auto request =
      api::parse_detokenize_request(arrival->request.body, options_.request_limits);
  if (!request) return refuse(*arrival, request.error());
  if (const auto error = check_model(request->model)) return refuse(*arrival, *error);
  for (const TokenId token : request->tokens) {
    if (index(token) >= parts_.tokenizer.vocab_size()) {
      return refuse(*arrival,
                    api::invalid_value(
                        "tokens", fmt::format("Token {} is not in the vocabulary.", index(token))));
    }
  }
  http::Headers headers = arrival->headers();
  headers.set("content-type", "application/json");
  arrival->responder.send(
      {.status = 200,
       .headers = std::move(headers),
       .body = api::encode_detokenize(parts_.tokenizer.decode(request->tokens))});
}

}  // namespace wideep::server
