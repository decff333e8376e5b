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
