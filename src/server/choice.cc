#include "server/choice.h"

#include <iterator>
#include <utility>

namespace wideep::server {
namespace {

template <typename T>
void append_list(std::optional<std::vector<T>>& whole, std::optional<std::vector<T>>&& part) {
  if (!part) return;
  if (!whole) whole.emplace();
  whole->insert(whole->end(), std::make_move_iterator(part->begin()),
                std::make_move_iterator(part->end()));
}

}  // namespace

Choice::Choice(const tokenizer::Tokenizer& tokenizer, ChoiceOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      splitter_(options_.split_reasoning ? options_.reasoning : ThinkSplitter::Start::kContent) {
  pending_.text = options_.echo;
  num_characters_ = api::num_characters(options_.echo);
  if (options_.with_token_ids) pending_.prompt_token_ids = options_.prompt_tokens;
}

std::optional<api::ChoicePart> Choice::take(const engine::RequestEvent& event) {
  usage_ = event.usage;
  if (splitter_.in_reasoning()) reasoning_tokens_ += static_cast<int64_t>(event.tokens.size());
  take_tokens(event);
  SplitText split = splitter_.push(event.text);
  pending_.text += split.content;
  pending_.reasoning += split.reasoning;
  if (event.finish) {
    split = splitter_.finish();
    pending_.text += split.content;
    pending_.reasoning += split.reasoning;
    pending_.finish_reason = finish_name(*event.finish);
    if (!event.stop_reason.empty()) {
      pending_.stop_reason = event.stop_reason;
    } else if (event.stop_token) {
      pending_.stop_reason = *event.stop_token;
    }
    finished_ = true;
  }
  if (!options_.include_reasoning) pending_.reasoning.clear();
  if (pending_.text.empty() && pending_.reasoning.empty() && !event.finish) return std::nullopt;
  pending_.index = options_.index;
  pending_.text_offset = num_characters_;
  num_characters_ += std::exchange(pending_characters_, 0);
  return std::exchange(pending_, {});
}

void Choice::take_tokens(const engine::RequestEvent& event) {
  if (options_.with_token_ids && !pending_.token_ids) pending_.token_ids.emplace();
  if (options_.with_logprobs && !pending_.logprobs) pending_.logprobs.emplace();
  for (const engine::GeneratedToken& token : event.tokens) {
    if (options_.with_token_ids) pending_.token_ids->push_back(token.token);
    if (!options_.with_logprobs) continue;
    api::TokenLogprobs entry{.chosen = token_text(token.token, token.logprob), .top = {}};
    for (const engine::TokenLogprob& candidate : token.top)
      entry.top.push_back(token_text(candidate.token, candidate.logprob));
    pending_characters_ += api::num_characters(entry.chosen.bytes);
    pending_.logprobs->push_back(std::move(entry));
  }
}

api::TokenText Choice::token_text(TokenId token, float logprob) const {
  return {.bytes = std::string(tokenizer_.token_bytes(token)),
          .logprob = static_cast<double>(logprob)};
}

void append(api::ChoicePart& whole, api::ChoicePart part) {
  whole.index = part.index;
  whole.text += part.text;
  whole.reasoning += part.reasoning;
  if (!whole.logprobs) whole.text_offset = part.text_offset;
  append_list(whole.logprobs, std::move(part.logprobs));
  append_list(whole.token_ids, std::move(part.token_ids));
  append_list(whole.prompt_token_ids, std::move(part.prompt_token_ids));
  whole.finish_reason = part.finish_reason;
  whole.stop_reason = std::move(part.stop_reason);
}

std::string_view finish_name(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kAbort:
      return "abort";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

}  // namespace wideep::server
