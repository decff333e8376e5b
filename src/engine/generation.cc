#include "engine/generation.h"

#include "base/check.h"

#include <algorithm>
#include <utility>

namespace wideep::engine {
namespace {

using tokenizer::TextStream;

bool contains(std::span<const TokenId> tokens, TokenId token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

}  // namespace

Result<std::unique_ptr<Generation>> Generation::create(std::unique_ptr<Sequence> sequence,
                                                       const tokenizer::Tokenizer* tokenizer,
                                                       std::span<const TokenId> end_tokens,
                                                       EventSink sink) {
  const StopParams& stop = sequence->request().stop;
  if (tokenizer == nullptr && !stop.stop_strings.empty())
    return invalid_argument("stop strings need a tokenizer, and this model has none");
  WD_ASSIGN_OR_RETURN(
      TextStream text,
      TextStream::create({.stop = stop.stop_strings, .include_stop = stop.include_stop_string}));
  const std::vector<TokenId>& prefix = sequence->request().generated_prefix;
  auto generation = std::make_unique<Generation>(Private{}, std::move(sequence), tokenizer,
                                                 end_tokens, std::move(sink), std::move(text));
  for (size_t i = 0; i < prefix.size(); ++i) {
    if (generation->ended_)
      return invalid_argument("the generated prefix of {} tokens ends after {}", prefix.size(), i);
    RequestEvent unreported;
    generation->append(prefix[i], unreported);
    generation->ended_ = unreported.finish;
  }
  return generation;
}

Generation::Generation(Private,
                       std::unique_ptr<Sequence> sequence,
                       const tokenizer::Tokenizer* tokenizer,
                       std::span<const TokenId> end_tokens,
                       EventSink sink,
                       TextStream text)
    : owned_(std::move(sequence)),
      sequence_(owned_.get()),
      tokenizer_(tokenizer),
      end_tokens_(end_tokens),
      sink_(std::move(sink)),
      history_(sequence_->request().sampling, sequence_->request().prompt_tokens),
      text_(std::move(text)) {
  const StopParams& stop = sequence_->request().stop;
  if (stop.min_tokens <= 0) return;
  banned_early_.assign(end_tokens_.begin(), end_tokens_.end());
  banned_early_.insert(banned_early_.end(), stop.stop_tokens.begin(), stop.stop_tokens.end());
}

SampleInput Generation::next() const {
  const Request& request = sequence_->request();
  const int64_t position = sequence_->num_generated();
  SampleInput input{.params = request.sampling, .history = history_, .banned = {}};
  input.position = position;
  if (position < request.stop.min_tokens) input.banned = banned_early_;
  return input;
}

bool Generation::accept(GeneratedToken token, TimePoint now) {
  RequestEvent event;
  append(token.token, event);
  event.tokens.push_back(std::move(token));
  timing.last_token = now;
  if (timing.first_token == TimePoint{}) timing.first_token = now;
  if (event.finish && sequence_->request().keep_kv) {
    ended_ = event.finish;
    last_event_ = std::move(event);
  } else {
    report(event);
  }
  return ended_.has_value();
}

void Generation::report_last(std::shared_ptr<const api::KvTicket> kv_ticket) {
  RequestEvent event = std::move(*last_event_);
  last_event_.reset();
  event.kv_ticket = std::move(kv_ticket);
  report(event);
}

void Generation::end(FinishReason reason) {
  RequestEvent event;
  event.finish = reason;
  if (reason == FinishReason::kAbort) event.text = text_.finish();
  report(event);
}

void Generation::fail(const Error& error, bool retryable) {
  RequestEvent event;
  event.finish = FinishReason::kError;
  event.error = error.message;
  event.error_code = error.code;
  event.retryable = retryable;
  report(event);
}

// The order of the ends is vLLM's: what was generated before min_tokens cannot end it but by
// length.
void Generation::append(TokenId token, RequestEvent& event) {
  const StopParams& stop = sequence_->request().stop;
  sequence_->append(token);
  history_.append(token);
  const bool can_stop = sequence_->num_generated() >= stop.min_tokens;
  if (can_stop && is_stop_token(token, event)) {
    event.finish = FinishReason::kStop;
    if (stop.include_stop_string) append_text(token, event);
  } else {
    append_text(token, event);
    if (text_.stopped()) {
      event.finish = FinishReason::kStop;
      event.stop_reason = text_.stopped()->text;
    } else if (sequence_->num_tokens() >= sequence_->num_tokens_max()) {
      event.finish = FinishReason::kLength;
    }
  }
  if (event.finish && !text_.stopped()) event.text += text_.finish();
}

bool Generation::is_stop_token(TokenId token, RequestEvent& event) const {
  const StopParams& stop = sequence_->request().stop;
  if (!stop.ignore_eos && contains(end_tokens_, token)) return true;
  if (!contains(stop.stop_tokens, token)) return false;
  event.stop_token = token;
  return true;
}

// Stop strings may begin behind the first min_tokens tokens.
void Generation::append_text(TokenId token, RequestEvent& event) {
  const Request& request = sequence_->request();
  if (tokenizer_ == nullptr) return;
  if (request.skip_special_tokens && tokenizer_->is_special(token)) return;
  const auto stops = sequence_->num_generated() <= request.stop.min_tokens
                         ? TextStream::Stops::kIgnore
                         : TextStream::Stops::kWatch;
  event.text += text_.push(tokenizer_->token_bytes(token), stops);
}

void Generation::report(RequestEvent& event) {
  event.usage = {
      .prompt_tokens = sequence_->num_prompt(),
      .cached_tokens = std::clamp<int64_t>(sequence_->cached_tokens, 0, sequence_->num_prompt()) +
                       sequence_->pulled_tokens,
      .generated_tokens = sequence_->num_generated()};
  event.timing = timing;
  ended_ = event.finish;
  sink_(event);
}

}  // namespace wideep::engine
