// What a request has produced so far, and what ends it: the way from sampled tokens to events.
//
// A new token is counted for the penalties, appended to the text and held against everything that
// may end the request, in this order: end of sequence, stop token, stop string, length. A generated
// prefix takes the same way before the sequence runs, with its events thrown away, so that a
// resumed request goes on in the state that the interrupted one was in, half a character and half a
// stop string included.
//
// Ownership: a generation points to its sequence, which the scheduler owns once it was taken.
// Thread: created anywhere, then the engine thread only.
#pragma once

#include "base/result.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "tokenizer/text_stream.h"
#include "tokenizer/tokenizer.h"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace wideep::engine {

class Generation {
  struct Private {};

 public:
  // The tokenizer may be null: no text then, and stop strings are refused. kInvalidArgument: bad
  // stop strings, or a generated prefix that goes on behind its own end. Feeds the prefix.
  static Result<std::unique_ptr<Generation>> create(std::unique_ptr<Sequence> sequence,
                                                    const tokenizer::Tokenizer* tokenizer,
                                                    std::span<const TokenId> end_tokens,
                                                    EventSink sink);

  // Hands the sequence over; it must outlive this.
  std::unique_ptr<Sequence> take_sequence() { return std::move(owned_); }

  Sequence& sequence() { return *sequence_; }

  // How the next token is to be sampled.
  SampleInput next() const;

  // Takes the next token and reports it. True: the request has ended. The last event of a request
  // that keeps its KV waits for report_last().
  bool accept(GeneratedToken token, TimePoint now);

  bool has_unreported_end() const { return last_event_.has_value(); }

  // Null: the KV was not kept.
  void report_last(std::shared_ptr<const api::KvTicket> kv_ticket);
  // Ends the request without another token.
  void end(FinishReason reason);
  void fail(const Error& error, bool retryable);

  // The prefix had reached its end already.
  const std::optional<FinishReason>& ended() const { return ended_; }

  RequestTiming timing;
  bool is_queued = true;  // counts against the queue's limits

  // For create() only.
  Generation(Private,
             std::unique_ptr<Sequence> sequence,
             const tokenizer::Tokenizer* tokenizer,
             std::span<const TokenId> end_tokens,
             EventSink sink,
             tokenizer::TextStream text);

 private:
  void append(TokenId token, RequestEvent& event);
  bool is_stop_token(TokenId token, RequestEvent& event) const;
  void append_text(TokenId token, RequestEvent& event);
  void report(RequestEvent& event);

  std::unique_ptr<Sequence> owned_;  // until it is taken
  Sequence* sequence_;
  const tokenizer::Tokenizer* tokenizer_;
  std::span<const TokenId> end_tokens_;  // the model's
  EventSink sink_;
  TokenHistory history_;
  tokenizer::TextStream text_;
  std::vector<TokenId> banned_early_;  // until min_tokens
  std::optional<FinishReason> ended_;
  std::optional<RequestEvent> last_event_;  // not reported yet
};

}  // namespace wideep::engine
