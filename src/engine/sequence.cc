#include "engine/sequence.h"

#include "base/check.h"

#include <algorithm>
#include <utility>

namespace wideep::engine {

Sequence::Sequence(SequenceId id, Request request, int64_t context_max, const BlockNaming& naming)
    : id_(id), request_(std::move(request)), tokens_(request_.prompt_tokens), naming_(naming) {
  WD_CHECK(!request_.prompt_tokens.empty());
  WD_CHECK(num_prompt() < context_max);
  const int64_t max_tokens = std::min(request_.stop.max_tokens, context_max - num_prompt());
  num_tokens_max_ = num_prompt() + max_tokens;
  can_pull = request_.ticket != nullptr;
}

api::BlockHash Sequence::prompt_hash(int64_t block_tokens) {
  const auto num_full = static_cast<size_t>(num_prompt() / block_tokens);
  const auto names = block_names(block_tokens).first(num_full);
  const api::BlockHash& parent = names.empty() ? naming_.root : names.back();
  const auto rest = tokens().first(request_.prompt_tokens.size()).subspan(num_full * block_tokens);
  return rest.empty() ? parent : api::block_hash(parent, rest);
}

std::span<const api::BlockHash> Sequence::block_names(int64_t block_tokens) {
  api::extend_block_hashes(naming_.root, tokens_, block_tokens, names_,
                           naming_.by_role ? num_prompt() : api::kAllPrompt);
  return names_;
}

}  // namespace wideep::engine
