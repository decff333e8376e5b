#include "kv/kv_cache.h"

#include "base/random.h"

#include <gtest/gtest.h>

#include <map>

namespace wideep::kv {
namespace {

constexpr int64_t kBlockTokens = 16;

KvCache cache_of(int64_t num_blocks, PrefixCaching caching = PrefixCaching::kOn) {
  KvLayout layout;
  layout.groups = {
      {.name = "mla", .num_layers = 1, .token_bytes = 8, .block_tokens = kBlockTokens}};
  return {*BlockPool::create(layout, num_blocks), caching};
}

std::vector<api::BlockHash> chain(int first_token, int64_t num_blocks) {
  std::vector<TokenId> tokens(static_cast<size_t>(num_blocks * kBlockTokens), TokenId{first_token});
  std::vector<api::BlockHash> names;
  api::extend_block_hashes(api::block_hash_root("m", "n", ""), tokens, kBlockTokens, names);
  return names;
}

void publish_all(KvCache& cache,
                 std::span<const BlockId> table,
                 std::span<const api::BlockHash> names) {
  for (size_t i = 0; i < names.size(); ++i)
    cache.publish(table[i], names[i]);
}

TEST(KvCache, SharesTheBlocksOfACommonStart) {
  KvCache cache = cache_of(8);
  const auto names = chain(1, 3);
  std::vector<BlockId> first;
  ASSERT_TRUE(cache.take(3, first));
  publish_all(cache, first, std::span(names).first(2));

  const PrefixMatch match = cache.match(names);
  EXPECT_EQ(match.blocks, (std::vector{first[0], first[1]}));
  EXPECT_EQ(match.num_idle, 0);
  std::vector<BlockId> second;
  cache.share(match, second);
  EXPECT_EQ(cache.pool().num_references(first[0]), 2);
  cache.give_back(first);
  cache.give_back(second);
  EXPECT_EQ(cache.num_available(), 8);
}

TEST(KvCache, FindsBlocksAgainAfterTheirUserIsGone) {
  KvCache cache = cache_of(4);
  const auto names = chain(1, 2);
  std::vector<BlockId> table;
  ASSERT_TRUE(cache.take(2, table));
  publish_all(cache, table, names);
  cache.give_back(table);
  const PrefixMatch match = cache.match(names);
  EXPECT_EQ(match.blocks.size(), 2U);
  EXPECT_EQ(match.num_idle, 2);
}

TEST(KvCache, EvictsTheEndOfAChainBeforeItsStart) {
  KvCache cache = cache_of(3);
  const auto names = chain(1, 3);
  std::vector<BlockId> table;
  ASSERT_TRUE(cache.take(3, table));
  publish_all(cache, table, names);
  cache.give_back(table);
  std::vector<BlockId> other;
  ASSERT_TRUE(cache.take(1, other));
  EXPECT_EQ(cache.match(names).blocks.size(), 2U);
}

TEST(KvCache, TellsWhoIsLoadingABlockUntilItIsPresentOrGivenUp) {
  KvCache cache = cache_of(4);
  const auto names = chain(1, 2);
  std::vector<BlockId> table;
  ASSERT_TRUE(cache.take(2, table));
  cache.announce(table[0], names[0], SequenceId{5});
  cache.announce(table[1], names[1], SequenceId{5});
  EXPECT_EQ(cache.match(names).loader, SequenceId{5});
  cache.publish(table[0], names[0]);
  EXPECT_EQ(cache.match(names).blocks.size(), 1U);
  EXPECT_EQ(cache.match(names).loader, SequenceId{5});
  cache.give_back(table);  // preempted in the middle
  EXPECT_EQ(cache.match(names).blocks.size(), 1U);
  EXPECT_FALSE(cache.match(names).loader);
}

TEST(KvCache, FindsNothingWhenCachingIsOff) {
  KvCache cache = cache_of(4, PrefixCaching::kOff);
  const auto names = chain(1, 1);
  std::vector<BlockId> table;
  ASSERT_TRUE(cache.take(1, table));
  cache.announce(table[0], names[0], SequenceId{1});
  cache.publish(table[0], names[0]);
  EXPECT_TRUE(cache.match(names).blocks.empty());
  EXPECT_FALSE(cache.match(names).loader);
}

// Random users against a model of what each block must contain.
TEST(KvCache, NeverHandsOutABlockThatHoldsSomethingElse) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    KvCache cache = cache_of(12);
    std::map<BlockId, api::BlockHash> contents;  // what was last written there
    std::vector<std::vector<BlockId>> tables(4);
    for (int round = 0; round < 300; ++round) {
      std::vector<BlockId>& table = tables[random.below(4)];
      cache.give_back(table);
      const auto names = chain(static_cast<int>(random.below(6)), 1 + random.below(4));
      const PrefixMatch match = cache.match(names);
      for (size_t i = 0; i < match.blocks.size(); ++i)
        ASSERT_EQ(contents.at(match.blocks[i]), names[i]);
      cache.share(match, table);
      if (!cache.take(static_cast<int64_t>(names.size() - match.blocks.size()), table)) {
        cache.give_back(table);
        continue;
      }
      for (size_t i = match.blocks.size(); i < names.size(); ++i) {
        ASSERT_EQ(cache.pool().num_references(table[i]), 1);
        contents.insert_or_assign(table[i], names[i]);
        if (random.below(3) != 0) cache.announce(table[i], names[i], SequenceId{1});
        if (random.below(3) != 0) cache.publish(table[i], names[i]);
      }
    }
    for (std::vector<BlockId>& table : tables)
      cache.give_back(table);
    EXPECT_EQ(cache.num_available(), 12);
  }
}

}  // namespace
}  // namespace wideep::kv
