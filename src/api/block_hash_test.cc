#include "api/block_hash.h"

#include <gtest/gtest.h>

#include <numeric>

namespace wideep::api {
namespace {

std::vector<TokenId> tokens_from(int first, int count) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i)
    tokens.push_back(TokenId{first + i});
  return tokens;
}

std::vector<BlockHash> hashes_of(const BlockHash& root, std::span<const TokenId> tokens) {
  std::vector<BlockHash> hashes;
  extend_block_hashes(root, tokens, 4, hashes);
  return hashes;
}

TEST(BlockHash, IsTheSameForTheSameTokensFromTheStart) {
  const BlockHash root = block_hash_root("model", "bf16", "");
  const auto a = hashes_of(root, tokens_from(0, 11));
  const auto b = hashes_of(root, tokens_from(0, 8));
  ASSERT_EQ(a.size(), 2U);  // the three tokens behind are no full block
  EXPECT_EQ(a, b);
}

TEST(BlockHash, ChangesFromTheFirstDifferentTokenOn) {
  const BlockHash root = block_hash_root("model", "bf16", "");
  auto tokens = tokens_from(0, 12);
  const auto before = hashes_of(root, tokens);
  tokens[5] = TokenId{99};
  const auto after = hashes_of(root, tokens);
  EXPECT_EQ(before[0], after[0]);
  EXPECT_NE(before[1], after[1]);
  EXPECT_NE(before[2], after[2]);  // same tokens, other past
}

TEST(BlockHash, KeepsModelsNumericsAndTenantsApart) {
  const BlockHash root = block_hash_root("model", "bf16", "salt");
  EXPECT_NE(root, block_hash_root("other", "bf16", "salt"));
  EXPECT_NE(root, block_hash_root("model", "f32", "salt"));
  EXPECT_NE(root, block_hash_root("model", "bf16", ""));
  EXPECT_NE(block_hash_root("ab", "c", ""), block_hash_root("a", "bc", ""));
}

// Four tokens a block: the boundary lies in a block, at its edge, or behind all of them.
TEST(BlockHash, OfGeneratedTokensHoldsOnlyForTheSameBoundary) {
  const BlockHash root = block_hash_root("model", "bf16", "");
  const auto tokens = tokens_from(0, 12);
  const auto hashes = [&](int64_t num_prompt) {
    std::vector<BlockHash> names;
    extend_block_hashes(root, tokens, 4, names, num_prompt);
    return names;
  };
  const auto prompt = hashes_of(root, tokens);
  EXPECT_EQ(hashes(12), prompt);
  for (int64_t num_prompt = 0; num_prompt < 12; ++num_prompt) {
    SCOPED_TRACE(num_prompt);
    const auto mixed = hashes(num_prompt);
    for (int64_t block = 0; block < 3; ++block) {
      const bool is_prompt = num_prompt >= 4 * (block + 1);
      EXPECT_EQ(mixed[block] == prompt[block], is_prompt);
      for (int64_t other = 0; other < num_prompt && !is_prompt; ++other)
        EXPECT_NE(mixed[block], hashes(other)[block]) << other;
    }
  }
}

TEST(BlockHash, GrowsBlockByBlockToTheSameChain) {
  const BlockHash root = block_hash_root("model", "bf16", "");
  const auto tokens = tokens_from(7, 40);
  std::vector<BlockHash> grown;
  for (size_t n = 0; n <= tokens.size(); ++n)
    extend_block_hashes(root, std::span(tokens).first(n), 4, grown);
  EXPECT_EQ(grown, hashes_of(root, tokens));
}

}  // namespace
}  // namespace wideep::api
