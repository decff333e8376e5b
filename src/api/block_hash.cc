#include "api/block_hash.h"

#include "base/check.h"

#include <algorithm>
#include <cstring>

namespace wideep::api {

size_t BlockHasher::operator()(const BlockHash& hash) const {
  size_t value = 0;
  std::memcpy(&value, hash.data(), sizeof value);
  return value;
}

BlockHash block_hash_root(std::string_view model_fingerprint,
                          std::string_view numeric_config,
                          std::string_view cache_salt) {
  // Digests of fixed width keep ("ab", "c") apart from ("a", "bc").
  std::array<std::byte, 3 * sizeof(Digest)> fields;
  auto out = fields.begin();
  for (const std::string_view field : {model_fingerprint, numeric_config, cache_salt})
    out = std::ranges::copy(sha256(std::as_bytes(std::span(field))), out).out;
  return sha256(fields);
}

BlockHash block_hash(const BlockHash& parent, std::span<const TokenId> tokens, int64_t num_prompt) {
  WD_CHECK(num_prompt >= 0);
  const bool all_prompt = num_prompt >= std::ssize(tokens);
  const std::array mark = {-1 - static_cast<int32_t>(all_prompt ? 0 : num_prompt)};
  const auto mark_bytes = std::as_bytes(std::span(mark)).first(all_prompt ? 0 : sizeof mark);
  std::vector<std::byte> bytes(parent.size() + tokens.size_bytes() + mark_bytes.size());
  auto out = std::ranges::copy(parent, bytes.begin()).out;
  out = std::ranges::copy(std::as_bytes(tokens), out).out;
  std::ranges::copy(mark_bytes, out);
  return sha256(bytes);
}

void extend_block_hashes(const BlockHash& root,
                         std::span<const TokenId> tokens,
                         int64_t block_tokens,
                         std::vector<BlockHash>& hashes,
                         int64_t num_prompt) {
  WD_CHECK(block_tokens > 0);
  const auto num_full = static_cast<int64_t>(tokens.size()) / block_tokens;
  for (auto block = static_cast<int64_t>(hashes.size()); block < num_full; ++block) {
    const BlockHash& parent = block == 0 ? root : hashes.back();
    const int64_t begin = block * block_tokens;
    hashes.push_back(block_hash(parent, tokens.subspan(begin, block_tokens),
                                std::max<int64_t>(0, num_prompt - begin)));
  }
}

}  // namespace wideep::api
