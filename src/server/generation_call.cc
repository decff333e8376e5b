#include "server/generation_call.h"

#include "http/sse.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace wideep::server {
namespace {

api::ApiError error_of(const engine::RequestEvent& event) {
  if (event.retryable) {
    const bool lost = event.error_code == ErrorCode::kPeerLost;
    const bool late = event.error_code == ErrorCode::kTimeout;
    return api::overloaded(lost   ? "rank_lost"
                           : late ? "timeout"
                                  : "engine_unavailable",
                           event.error, 1);
  }
  if (event.error_code == ErrorCode::kInvalidArgument)
    return api::from_error({event.error_code, event.error});
  api::ApiError error = api::internal_error(event.error);
  error.code = "engine_error";
  return error;
}

}  // namespace

http::Response error_response(const api::ApiError& error, http::Headers headers) {
  headers.set("content-type", "application/json");
  if (error.retry_after_s > 0) headers.set("retry-after", std::to_string(error.retry_after_s));
  if (error.status == 401) headers.set("www-authenticate", "Bearer");
  return {.status = error.status, .headers = std::move(headers), .body = error.to_json()};
}

GenerationCall::GenerationCall(CallContext& context,
                               const tokenizer::Tokenizer& tokenizer,
                               CallPlan plan,
                               http::Responder responder)
    : context_(context),
      plan_(std::move(plan)),
      responder_(std::move(responder)),
      encoder_(plan_.endpoint == Endpoint::kChat ? api::ChunkEncoder::Kind::kChat
                                                 : api::ChunkEncoder::Kind::kCompletion,
               plan_.head),
      num_unfinished_(plan_.choices.size()) {
  for (PlannedChoice& planned : plan_.choices) {
    running_.push_back({.sequence = {},
                        .choice = Choice(tokenizer, std::move(planned.options)),
                        .times = {.arrival = plan_.arrival},
                        .max_tokens = planned.request.stop.max_tokens,
                        .counts_prompt = planned.counts_prompt});
  }
}

void GenerationCall::start() {
  const std::shared_ptr<GenerationCall> self = shared_from_this();
  for (size_t i = 0; i < running_.size(); ++i) {
    auto sequence = context_.engine.submit(
        std::move(plan_.choices[i].request),
        [self, i, mailbox = context_.mailbox](const engine::RequestEvent& event) {
          mailbox->push(self, i, event);
        });
    if (!sequence) {
      context_.metrics.on_rejected(name(sequence.error().code));
      return fail(refusal(sequence.error()));
    }
    running_[i].sequence = *sequence;
  }
  plan_.choices.clear();
  if (plan_.stream) responder_.keep_alive(context_.ping_interval, plan_.headers);
  responder_.on_disconnect([weak = weak_from_this()] {
    if (const auto call = weak.lock()) call->end();
  });
}

api::ApiError GenerationCall::refusal(const Error& reason) const {
  api::ApiError error = api::from_error(reason);
  if (reason.code == ErrorCode::kExhausted) {
    error.retry_after_s =
        context_.queue.retry_after_s(context_.engine.stats(), context_.engine.options());
  }
  return error;
}

void GenerationCall::on_event(size_t choice_index, const engine::RequestEvent& event) {
  Running& running = running_[choice_index];
  record(running, event);
  if (event.kv_ticket) kv_ticket_ = event.kv_ticket;
  if (ended_) let_kv_go();
  if (event.finish) running.sequence.reset();
  if (ended_) return;
  if (event.finish == engine::FinishReason::kError) return fail(error_of(event));
  std::optional<api::ChoicePart> part = running.choice.take(event);
  if (plan_.stream) {
    stream_part(running, part.value_or(api::ChoicePart{.index = running.choice.options().index}));
  } else if (part) {
    append(running.whole, *std::move(part));
  }
  if (event.finish && --num_unfinished_ == 0 && !ended_) {
    if (plan_.stream) {
      finish_stream();
    } else {
      answer_whole();
    }
  }
}

// The first output of the engine opens the stream: until then errors have a status of their own.
void GenerationCall::stream_part(Running& running, const api::ChoicePart& part) {
  const api::Usage usage = usage_of(running);
  const api::Usage* shown = plan_.continuous_usage ? &usage : nullptr;
  std::string events;
  responder_.begin_events(plan_.headers);
  if (!std::exchange(running.opened, true) && plan_.endpoint == Endpoint::kChat) {
    api::ChoicePart first{.index = part.index};
    const ChoiceOptions& options = running.choice.options();
    if (options.with_token_ids) first.prompt_token_ids = options.prompt_tokens;
    http::append_event(events, encoder_.opening(first, shown));
  }
  const bool has_something =
      !part.text.empty() || !part.reasoning.empty() || !part.finish_reason.empty();
  if (has_something) http::append_event(events, encoder_.part(part, shown));
  if (!events.empty()) write(events);
}

void GenerationCall::finish_stream() {
  std::string events;
  if (plan_.include_usage) {
    http::append_event(events, encoder_.usage(tail()));
  } else {
    let_kv_go();  // its ticket has no other place
  }
  http::append_event(events, api::kDone);
  write(events);
  responder_.finish();
  ended_ = true;
}

void GenerationCall::answer_whole() {
  std::vector<api::ChoicePart> choices;
  for (Running& running : running_)
    choices.push_back(std::move(running.whole));
  const api::AnswerTail tail = this->tail();
  http::Headers headers = plan_.headers;
  headers.set("content-type", "application/json");
  responder_.send({.status = 200,
                   .headers = std::move(headers),
                   .body = plan_.endpoint == Endpoint::kChat
                               ? api::encode_chat_answer(plan_.head, choices, tail)
                               : api::encode_completion_answer(plan_.head, choices, tail)});
  ended_ = true;
}

void GenerationCall::fail(const api::ApiError& error) {
  end();
  if (responder_.send(error_response(error, plan_.headers))) return;
  // The stream has begun: the error comes as an event, and the stream ends as it should.
  std::string events;
  http::append_event(events, error.to_json());
  http::append_event(events, api::kDone);
  if (responder_.write(events) == http::WriteResult::kTaken) {
    responder_.finish();
  } else {
    responder_.abort();
  }
}

void GenerationCall::end() {
  ended_ = true;
  for (const Running& running : running_) {
    if (running.sequence) context_.engine.cancel(*running.sequence);
  }
  let_kv_go();
}

void GenerationCall::let_kv_go() {
  if (kv_ticket_) context_.kv->abandon(*std::exchange(kv_ticket_, nullptr));
}

void GenerationCall::write(std::string_view bytes) {
  if (responder_.write(bytes) != http::WriteResult::kFull) return;
  end();
  responder_.abort();
}

void GenerationCall::record(Running& running, const engine::RequestEvent& event) {
  const TimePoint now = context_.clock.now();
  context_.metrics.on_tokens(running.times, static_cast<int64_t>(event.tokens.size()), now);
  if (!event.finish) return;
  context_.metrics.on_finished(running.times,
                               {.reason = *event.finish,
                                .usage = event.usage,
                                .timing = event.timing,
                                .max_tokens = running.max_tokens,
                                .n = plan_.n},
                               now);
  if (event.timing.scheduled != TimePoint{} && event.timing.last_token != TimePoint{})
    context_.queue.on_request(event.timing.last_token - event.timing.scheduled);
}

api::AnswerTail GenerationCall::tail() const {
  api::AnswerTail tail{.usage = usage(), .kv_transfer_params = {}};
  if (kv_ticket_) tail.kv_transfer_params = context_.kv->params(*kv_ticket_);
  return tail;
}

api::Usage GenerationCall::usage() const {
  api::Usage total;
  int64_t reasoning_tokens = 0;
  for (const Running& running : running_) {
    const engine::RequestUsage& usage = running.choice.usage();
    if (running.counts_prompt) {
      total.prompt_tokens += usage.prompt_tokens;
      total.cached_tokens += usage.cached_tokens;
    }
    total.completion_tokens += usage.generated_tokens;
    reasoning_tokens += running.choice.reasoning_tokens();
  }
  if (plan_.count_reasoning) total.reasoning_tokens = reasoning_tokens;
  return total;
}

api::Usage GenerationCall::usage_of(const Running& running) {
  const engine::RequestUsage& usage = running.choice.usage();
  return {.prompt_tokens = usage.prompt_tokens,
          .completion_tokens = usage.generated_tokens,
          .cached_tokens = usage.cached_tokens};
}

}  // namespace wideep::server
