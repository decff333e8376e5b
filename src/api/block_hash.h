// The name of what a KV block holds: a chain of SHA-256 digests over token ids.
//
//   root     = H(model fingerprint, NumericConfig, cache salt)
//   block i  = H(name of block i - 1, tokens of block i)
//   block i  = H(name of block i - 1, tokens of block i, -1 - n)    where only n of them are prompt
//
// The second form is for models that compute generated tokens in another way than prompts (MLA with
// expanded prompts): then a block with generated tokens serves only sequences whose prompt ends at
// the same place. Token ids are not negative, so that no tokens look like the mark.
//
// Equal names mean: the same tokens from position 0 on, for the same weights, rounded the same way,
// for tenants that may share. Nobody can make up tokens that collide, so a match needs no second
// look. Engines key their prefix cache with it, pickers and tickets speak of it.
#pragma once

#include "base/hash.h"
#include "base/ids.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace wideep::api {

using BlockHash = Digest;

// For hash tables: the digest's own first bytes are as good as any hash of it.
struct BlockHasher {
  size_t operator()(const BlockHash& hash) const;
};

BlockHash block_hash_root(std::string_view model_fingerprint,
                          std::string_view numeric_config,
                          std::string_view cache_salt);

// As many leading tokens as there are: roles make no difference.
inline constexpr int64_t kAllPrompt = std::numeric_limits<int64_t>::max();

// `tokens`: a block's tokens, or those of the last block as far as it is filled; the first
// `num_prompt` of them are prompt.
BlockHash block_hash(const BlockHash& parent,
                     std::span<const TokenId> tokens,
                     int64_t num_prompt = kAllPrompt);

// Appends to `hashes` the names of the full blocks that it lacks. Example: 130 tokens, 64 a block,
// one name there already: one is appended. The first `num_prompt` of all tokens are prompt.
void extend_block_hashes(const BlockHash& root,
                         std::span<const TokenId> tokens,
                         int64_t block_tokens,
                         std::vector<BlockHash>& hashes,
                         int64_t num_prompt = kAllPrompt);

}  // namespace wideep::api
