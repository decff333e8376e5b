#include "kv/prefix_index.h"

#include <gtest/gtest.h>

namespace wideep::kv {
namespace {

api::BlockHash named(std::string_view text) {
  return api::block_hash_root(text, "", "");
}

TEST(PrefixIndex, AnswersAbsentLoadingOrPresent) {
  PrefixIndex index(4);
  EXPECT_EQ(index.find(named("a")).presence, Presence::kAbsent);
  ASSERT_TRUE(index.insert(named("a"), {Presence::kLoading, BlockId{2}, SequenceId{7}}));
  EXPECT_EQ(index.find(named("a")).presence, Presence::kLoading);
  EXPECT_EQ(index.find(named("a")).loader, SequenceId{7});
  index.set_present(BlockId{2});
  EXPECT_EQ(index.find(named("a")).presence, Presence::kPresent);
  EXPECT_EQ(index.find(named("a")).block, BlockId{2});
}

TEST(PrefixIndex, KeepsTheFirstOfTwoBlocksWithTheSameName) {
  PrefixIndex index(4);
  ASSERT_TRUE(index.insert(named("a"), {.presence = Presence::kPresent, .block = BlockId{1}}));
  EXPECT_FALSE(index.insert(named("a"), {.presence = Presence::kPresent, .block = BlockId{3}}));
  EXPECT_EQ(index.find(named("a")).block, BlockId{1});
  index.erase(BlockId{3});  // it has no name
  EXPECT_EQ(index.find(named("a")).presence, Presence::kPresent);
}

TEST(PrefixIndex, ForgetsAnErasedBlock) {
  PrefixIndex index(2);
  ASSERT_TRUE(index.insert(named("a"), {.presence = Presence::kPresent, .block = BlockId{0}}));
  index.erase(BlockId{0});
  EXPECT_EQ(index.find(named("a")).presence, Presence::kAbsent);
  EXPECT_EQ(index.presence_of(BlockId{0}), Presence::kAbsent);
  EXPECT_EQ(index.size(), 0);
  EXPECT_TRUE(index.insert(named("b"), {.presence = Presence::kPresent, .block = BlockId{0}}));
}

}  // namespace
}  // namespace wideep::kv
