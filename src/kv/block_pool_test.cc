#include "kv/block_pool.h"

#include "kv/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace wideep::kv {
namespace {

KvLayout two_groups() {
  return {.groups = {{.name = "mla", .num_layers = 3, .token_bytes = 24, .block_tokens = 16},
                     {.name = "gqa", .num_layers = 1, .token_bytes = 8, .block_tokens = 16}}};
}

std::unique_ptr<BlockPool> pool_of(int64_t num_blocks) {
  return *BlockPool::create(two_groups(), num_blocks);
}

const auto no_eviction = [](BlockId) { ADD_FAILURE() << "a block was evicted"; };

std::vector<BlockId> take(BlockPool& pool, int64_t count) {
  std::vector<BlockId> blocks;
  EXPECT_TRUE(pool.take(count, blocks, no_eviction));
  return blocks;
}

TEST(KvLayout, DescribesEveryGroup) {
  KvLayout layout = two_groups();
  EXPECT_EQ(layout.describe(),
            "mla: 3 layers x 24 bytes, 16 tokens a block; "
            "gqa: 1 layers x 8 bytes, 16 tokens a block");
  layout.groups[1].retention = Retention::kWindow;
  layout.groups[1].window_tokens = 128;
  EXPECT_NE(layout.describe().find("16 tokens a block, the last 128 tokens"), std::string::npos);
  EXPECT_EQ(layout.token_bytes(), 3 * 24 + 8);
}

TEST(BlockPool, RefusesWhatItCannotServe) {
  EXPECT_FALSE(BlockPool::create(two_groups(), 0));
  EXPECT_FALSE(BlockPool::create(two_groups(), PoolImage::kBlocksMax + 1));
  EXPECT_FALSE(BlockPool::create({}, 4));
  KvLayout windowed = two_groups();
  windowed.groups[1].retention = Retention::kWindow;
  EXPECT_FALSE(BlockPool::create(windowed, 4));
  KvLayout uneven = two_groups();
  uneven.groups[1].block_tokens = 32;
  EXPECT_FALSE(BlockPool::create(uneven, 4));
}

TEST(BlockPool, GivesEveryBlockMemoryOfItsOwnInEveryGroup) {
  const auto pool = pool_of(5);
  for (const BlockId block : take(*pool, 5))
    for (size_t group = 0; group < 2; ++group)
      std::ranges::fill(pool->memory(group, block), static_cast<std::byte>(index(block) + 1));
  for (int32_t block = 0; block < 5; ++block) {
    EXPECT_EQ(pool->memory(0, BlockId{block}).size(), 3U * 16 * 24);
    EXPECT_EQ(pool->memory(1, BlockId{block}).size(), 16U * 8);
    for (size_t group = 0; group < 2; ++group)
      EXPECT_TRUE(std::ranges::all_of(pool->memory(group, BlockId{block}), [&](std::byte b) {
        return b == static_cast<std::byte>(block + 1);
      }));
  }
}

TEST(BlockPool, TakesAllOrNothing) {
  const auto pool = pool_of(4);
  std::vector<BlockId> blocks = take(*pool, 3);
  const Status failed = pool->take(2, blocks, no_eviction);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kExhausted);
  EXPECT_EQ(blocks.size(), 3U);
  EXPECT_EQ(pool->num_available(), 1);
  EXPECT_EQ(std::set(blocks.begin(), blocks.end()).size(), 3U);
}

TEST(BlockPool, FreesABlockWithItsLastReference) {
  const auto pool = pool_of(1);
  const BlockId block = take(*pool, 1)[0];
  pool->share(block);
  pool->release(block);
  EXPECT_EQ(pool->num_available(), 0);
  pool->release(block);
  EXPECT_EQ(pool->num_available(), 1);
}

TEST(BlockPool, ChangesTheGenerationWhenContentsGo) {
  const auto pool = pool_of(1);
  const BlockId block = take(*pool, 1)[0];
  const uint64_t first = pool->generation(block);
  pool->release(block);  // not cached: its contents are gone now
  const uint64_t second = pool->generation(block);
  EXPECT_NE(first, second);

  take(*pool, 1);
  EXPECT_EQ(pool->generation(block), second);
  pool->set_cached(block, true);
  pool->release(block);
  EXPECT_EQ(pool->generation(block), second);  // cached: still valid
  std::vector<BlockId> taken;
  int num_evicted = 0;
  ASSERT_TRUE(pool->take(1, taken, [&](BlockId) { ++num_evicted; }));
  EXPECT_EQ(num_evicted, 1);
  EXPECT_NE(pool->generation(block), second);
}

TEST(BlockPool, EvictsTheCachedBlockThatWasLongestWithoutAReference) {
  const auto pool = pool_of(4);
  const std::vector<BlockId> blocks = take(*pool, 4);
  for (const BlockId block : {blocks[2], blocks[0], blocks[3], blocks[1]}) {
    pool->set_cached(block, true);
    pool->release(block);
  }
  pool->share(blocks[0]);  // used again: moves to the end of the line
  pool->release(blocks[0]);
  std::vector<BlockId> evicted;
  std::vector<BlockId> taken;
  ASSERT_TRUE(pool->take(3, taken, [&](BlockId block) { evicted.push_back(block); }));
  EXPECT_EQ(evicted, (std::vector{blocks[2], blocks[3], blocks[1]}));
  EXPECT_EQ(pool->num_available(), 1);
}

TEST(BlockPool, PrefersFreeBlocksToCachedOnes) {
  const auto pool = pool_of(2);
  const std::vector<BlockId> blocks = take(*pool, 2);
  pool->set_cached(blocks[0], true);
  pool->release(blocks[0]);
  pool->release(blocks[1]);
  EXPECT_EQ(take(*pool, 1)[0], blocks[1]);
}

}  // namespace
}  // namespace wideep::kv
