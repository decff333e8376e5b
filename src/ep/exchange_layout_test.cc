#include "ep/exchange_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace wideep::ep {
namespace {

std::vector<NodeId> nodes(const std::vector<int>& numbers) {
  std::vector<NodeId> result;
  for (const int number : numbers)
    result.push_back(NodeId{number});
  return result;
}

constexpr ExchangeShape kShape{.hidden = 100,
                               .top_k = 3,
                               .tokens_max = 5,
                               .formats = {.dispatch = math::RowFormat::kInt8,
                                           .input = math::RowFormat::kInt8,
                                           .combine = math::RowFormat::kF32}};

// Every place of every kind, in the arena of every rank that has it: no two overlap and all fit.
TEST(ExchangeLayout, NoTwoPlacesOverlap) {
  const std::vector<NodeId> node_of = nodes({0, 1, 0, 1, 1, 2});
  const ExchangeLayout layout(kShape, node_of);
  for (int32_t owner = 0; owner < 6; ++owner) {
    std::map<int64_t, int64_t> places;  // begin -> end
    for (int64_t t = 0; t < 5; ++t) {
      places[layout.row(t)] = layout.row(t) + layout.row_bytes();
      for (int64_t k = 0; k < 3; ++k)
        places[layout.result(t, k)] = layout.result(t, k) + layout.result_bytes();
    }
    for (int32_t s = 0; s < 6; ++s) {
      places[layout.list(RankId{s})] = layout.list(RankId{s}) + layout.entries_max() * 8;
      if (node_of[static_cast<size_t>(s)] == node_of[static_cast<size_t>(owner)]) continue;
      const Region region = layout.region_of(RankId{s}, RankId{owner});
      if (region.owner != RankId{owner}) continue;
      for (int64_t t = 0; t < 5; ++t)
        places[layout.region_row(region, t)] = layout.region_row(region, t) + layout.row_bytes();
    }
    int64_t end = 0;
    for (const auto& [begin, place_end] : places) {
      EXPECT_GE(begin, end);
      EXPECT_EQ(begin % 64, 0);
      end = place_end;
    }
    EXPECT_LE(end, layout.arena_bytes());
    EXPECT_GE(places.size(), 5U + 15 + 6);
  }
}

TEST(ExchangeLayout, SourcesOfOtherNodesShareOutTheRanksOfANode) {
  const ExchangeLayout layout(kShape, nodes({0, 0, 1, 1}));
  EXPECT_EQ(layout.region_of(RankId{0}, RankId{2}).owner, RankId{2});
  EXPECT_EQ(layout.region_of(RankId{1}, RankId{2}).owner, RankId{3});
  EXPECT_EQ(layout.region_of(RankId{1}, RankId{3}).owner, RankId{3});
  EXPECT_EQ(layout.region_of(RankId{3}, RankId{0}).owner, RankId{1});
  // Three sources, one reader: three regions, all its own.
  const ExchangeLayout lonely(kShape, nodes({0, 0, 0, 1}));
  std::set<int64_t> numbers;
  for (int32_t s = 0; s < 3; ++s) {
    EXPECT_EQ(lonely.region_of(RankId{s}, RankId{3}).owner, RankId{3});
    numbers.insert(lonely.region_of(RankId{s}, RankId{3}).number);
  }
  EXPECT_THAT(numbers, testing::ElementsAre(0, 1, 2));
}

TEST(ExchangeLayout, OneNodeHasNoRegions) {
  const ExchangeLayout here(kShape, nodes({0, 0}));
  const ExchangeLayout apart(kShape, nodes({0, 1}));
  EXPECT_EQ(apart.arena_bytes() - here.arena_bytes(), 5 * here.row_bytes());
}

TEST(ExchangeShape, RefusesWhatIsBeyondTheLimits) {
  EXPECT_TRUE(validate(kShape).has_value());
  for (const auto& [member, limit] : {std::pair{&ExchangeShape::hidden, kHiddenMax},
                                      {&ExchangeShape::top_k, kTopKMax},
                                      {&ExchangeShape::tokens_max, kTokensMax}}) {
    for (const int64_t bad : {int64_t{0}, limit + 1}) {
      ExchangeShape shape = kShape;
      shape.*member = bad;
      EXPECT_FALSE(validate(shape).has_value()) << bad;
    }
  }
}

}  // namespace
}  // namespace wideep::ep
