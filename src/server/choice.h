// One choice of an answer: from the engine's events to the parts that clients see.
#pragma once

#include "api/responses.h"
#include "engine/request.h"
#include "server/reasoning.h"
#include "tokenizer/tokenizer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace wideep::server {

struct ChoiceOptions {
  int64_t index = 0;
  bool split_reasoning = false;
  ThinkSplitter::Start reasoning = ThinkSplitter::Start::kContent;
  bool include_reasoning = true;  // what is split off is shown
  bool with_logprobs = false;
  bool with_token_ids = false;
  std::string echo;                    // stands before the generated text
  std::vector<TokenId> prompt_tokens;  // shown with_token_ids
};

// Tokens whose text is still held back (half a character, perhaps a stop string or a tag) wait for
// the next part that has text. Thread: one at a time.
class Choice {
 public:
  // Borrows the tokenizer.
  Choice(const tokenizer::Tokenizer& tokenizer, ChoiceOptions options);

  // What `event` adds, if a client should see it now. The last event always gives a part.
  std::optional<api::ChoicePart> take(const engine::RequestEvent& event);

  const ChoiceOptions& options() const { return options_; }

  const engine::RequestUsage& usage() const { return usage_; }

  // Tokens that came before the end of reasoning, as far as events tell.
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

  bool is_finished() const { return finished_; }

 private:
  void take_tokens(const engine::RequestEvent& event);
  api::TokenText token_text(TokenId token, float logprob) const;

  const tokenizer::Tokenizer& tokenizer_;
  const ChoiceOptions options_;
  ThinkSplitter splitter_;
  api::ChoicePart pending_;
  int64_t num_characters_ = 0;  // of the tokens before pending_
  int64_t pending_characters_ = 0;
  engine::RequestUsage usage_;
  int64_t reasoning_tokens_ = 0;
  bool finished_ = false;
};

// Appends `part` to what came before it of the same choice.
void append(api::ChoicePart& whole, api::ChoicePart part);

// "stop", "length", "abort" or "error".
std::string_view finish_name(engine::FinishReason reason);

}  // namespace wideep::server
