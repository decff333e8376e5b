// From the prompts of a request to tokens: templates and tokenizer, with the checks that belong to
// the request. Runs on worker threads.
#pragma once

#include "api/requests.h"
#include "base/clock.h"
#include "base/ids.h"
#include "server/reasoning.h"
#include "server/server_options.h"
#include "tokenizer/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace wideep::server {

struct BuiltPrompt {
  std::vector<TokenId> tokens;
  std::string text;  // for echo, where it was asked for
  ThinkSplitter::Start reasoning = ThinkSplitter::Start::kUnknown;
};

// Immutable, any thread.
class PromptBuilder {
 public:
  // Borrows the tokenizer. `renderer` may be empty: chats are refused then.
  PromptBuilder(const tokenizer::Tokenizer& tokenizer,
                ChatRenderer renderer,
                int64_t max_model_len);

  api::ApiResult<BuiltPrompt> build(const api::ChatFields& chat) const;
  api::ApiResult<BuiltPrompt> build(const api::Prompt& prompt,
                                    bool add_special_tokens,
                                    bool with_text) const;

 private:
  api::ApiResult<std::vector<tokenizer::TextSegment>> render(const api::ChatFields& chat) const;
  // Refuses text that cannot fit whatever its tokens are, before it costs a tokenizer's time.
  std::optional<api::ApiError> check_size(size_t text_bytes) const;

  const tokenizer::Tokenizer& tokenizer_;
  const ChatRenderer renderer_;
  const int64_t max_model_len_;
  const size_t text_bytes_max_;  // more is certainly longer than the context
};

}  // namespace wideep::server
